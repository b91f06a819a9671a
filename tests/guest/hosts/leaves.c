/* Leaves by _exit inside a window, as a forked EngineCore does; on the way a child of vfork, which shares all memory,
   has left by _exit as well. */
#include "cuda.h"
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    register_kernel();
    start();
    launch(5);
    if (vfork() == 0) {
        _exit(3);
    }
    wait(NULL);
    launch(6);
    synchronize();
    _exit(9);
}
