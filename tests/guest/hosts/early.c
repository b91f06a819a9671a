/* Opens its window before anything has initialised CUDA. */
#include "cuda.h"

int main(void) {
    register_kernel();
    start();
    launch(9);
    synchronize();
    stop();
    launch(4);
    synchronize();
    return 0;
}
