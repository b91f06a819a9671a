/* A worker as vLLM's: forked, with a title in the place of its command line, and another one once CUDA is
   initialised. */
#include "cuda.h"
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *line;
static size_t length;

/* As setproctitle does: the arguments overwritten, the rest zeroed. */
static void set_title(const char *title) {
    memset(line, 0, length);
    strncpy(line, title, length - 1);
}

int main(int argc, char **argv) {
    line = argv[0];
    length = argv[argc - 1] + strlen(argv[argc - 1]) + 1 - line;
    if (fork() == 0) {
        set_title("W::Worker");
        register_kernel();
        launch(1);
        set_title("W::Worker_TP0");
        start();
        launch(7);
        synchronize();
        stop();
        exit(0);
    }
    wait(NULL);
    return 0;
}
