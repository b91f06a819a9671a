/* What the test programs need of CUDA's runtime, declared by hand; gpu-sim's libcudart is linked. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    unsigned x, y, z;
} sides;

int cudaFree(void *);
int cudaProfilerStart(void);
int cudaProfilerStop(void);
int cudaStreamSynchronize(void *);
int cudaLaunchKernel(const void *, sides, sides, void **, size_t, void *);
void **__cudaRegisterFatBinary(void *);
void __cudaRegisterFunction(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *);

/* Stands for the kernel, as a host function does in code from nvcc. */
static char kernel_symbol;

static void check(const char *what, int status) {
    if (status != 0) {
        fprintf(stderr, "%s failed with %d\n", what, status);
        exit(99);
    }
}

/* Before any other call, as nvcc's code does. */
static void register_kernel(void) {
    void **binary = __cudaRegisterFatBinary(NULL);
    char *name = "step_kernel";
    __cudaRegisterFunction(binary, &kernel_symbol, name, name, -1, NULL, NULL, NULL, NULL, NULL);
}

static void launch_on(void *stream, int count) {
    sides grid = {4, 2, 1}, block = {128, 1, 1};
    for (int i = 0; i < count; i++)
        check("cudaLaunchKernel", cudaLaunchKernel(&kernel_symbol, grid, block, NULL, 0, stream));
}

static void launch(int count) { launch_on(NULL, count); }

static void synchronize(void) { check("cudaStreamSynchronize", cudaStreamSynchronize(NULL)); }

static void start(void) { check("cudaProfilerStart", cudaProfilerStart()); }

static void stop(void) { check("cudaProfilerStop", cudaProfilerStop()); }
