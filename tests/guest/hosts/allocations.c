/* A program linked against one CUDA runtime; its first argument is a plugin that is linked against none, its second one that is
   linked against another runtime. Prints how often memory was allocated in calls of which the way is known. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int cudaGraphDestroy(void *);
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);

static int allocations;

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

static void count(const char *when) {
    int before = allocations;
    cudaGraphDestroy(NULL);
    printf("%d allocations %s\n", allocations - before, when);
}

int main(int arguments, char **words) {
    (void)arguments;
    cudaGraphDestroy(NULL);
    count("again");
    dlopen(words[1], RTLD_NOW);
    count("after a dlopen");
    dlopen(words[2], RTLD_NOW);
    cudaGraphDestroy(NULL);
    count("with a second runtime");
    return 0;
}
