/* Stands for a CUDA runtime: its functions say which of it they are, under its version as real ones have. */
#include <stdio.h>

#define SAYS(name)                                                                                                     \
    int name(void) { return printf("%s of %s\n", #name, RUNTIME), 0; }

SAYS(cudaProfilerStart)
SAYS(cudaProfilerStop)
SAYS(cudaGraphDestroy)
