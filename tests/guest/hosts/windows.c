/* Three windows of five kernels, with others around them. A program that links the CUDA runtime, or (-DPLUGIN) a
   library that does. */
#include "cuda.h"

int run(void) {
    register_kernel();
    launch(7);
    for (int window = 0; window < 3; window++) {
        start();
        launch(5);
        synchronize();
        stop();
        launch(2);
    }
    synchronize();
    puts("launched 28 kernels, 15 of them in windows");
    fputs("and said so\n", stderr);
    return 21;
}

#ifndef PLUGIN
int main(void) { return run(); }
#endif
