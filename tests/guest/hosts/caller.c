/* A program that is linked against one CUDA runtime, and loads plugins that are linked against others, or none. With
   -DPLUGIN, a plugin. Each calls the runtime by name. */
#include <dlfcn.h>
#include <stdio.h>

#ifdef UNLINKED
static int call(const char *name) { return ((int (*)(void *))dlsym(RTLD_DEFAULT, name))(NULL); }
#define cudaProfilerStart() call("cudaProfilerStart")
#define cudaGraphDestroy(graph) call("cudaGraphDestroy")
#define cudaProfilerStop() call("cudaProfilerStop")
#else
int cudaProfilerStart(void);
int cudaProfilerStop(void);
int cudaGraphDestroy(void *);
#endif

int run(void) {
    /* Not the last thing that it does: where it returns to is in here. */
    int status = cudaProfilerStart() + cudaGraphDestroy(NULL) + cudaProfilerStop();
    return fflush(stdout) + status;
}

#ifndef PLUGIN
int main(int count, char **words) {
    int status = run();
    for (int i = 1; i < count; i++) {
        void *plugin = dlopen(words[i], RTLD_NOW | RTLD_LOCAL);
        if (!plugin)
            return fprintf(stderr, "%s\n", dlerror()), 98;
        /* Twice: what was found for one is not taken for another. */
        status += ((int (*)(void))dlsym(plugin, "run"))() + run();
    }
    return status;
}
#endif
