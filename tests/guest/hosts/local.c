/* Loads a library that links the CUDA runtime with RTLD_LOCAL, as Python does, and calls its `run`. */
#include <dlfcn.h>
#include <stdio.h>

int main(int count, char **words) {
    void *library = count == 2 ? dlopen(words[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 98;
    }
    int (*run)(void) = (int (*)(void))dlsym(library, "run");
    return run();
}
