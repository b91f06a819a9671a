/* Works in a context of its own, as PyCUDA does; the primary one is never made. */
#include <dlfcn.h>

#include "cuda.h"

static void *of_driver(const char *name) {
    static void *driver;
    if (driver == NULL) driver = dlopen("libcuda.so.1", RTLD_NOW);
    return dlsym(driver, name);
}

int main(void) {
    void *context, *module, *function;
    check("cuInit", ((int (*)(unsigned))of_driver("cuInit"))(0));
    check("cuCtxCreate", ((int (*)(void **, unsigned, int))of_driver("cuCtxCreate_v2"))(&context, 0, 0));
    check("cuModuleLoadData", ((int (*)(void **, const void *))of_driver("cuModuleLoadData"))(&module, "image"));
    check("cuModuleGetFunction",
          ((int (*)(void **, void *, const char *))of_driver("cuModuleGetFunction"))(&function, module, "step_kernel"));
    int (*launch_kernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                         void **) = of_driver("cuLaunchKernel");
    for (int i = 0; i < 9; i++) check("cuLaunchKernel", launch_kernel(function, 4, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    check("cuCtxSynchronize", ((int (*)(void))of_driver("cuCtxSynchronize"))());
    return 5;
}
