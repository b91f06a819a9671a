/* A program that is a CUPTI client itself, with a name, before any window. */
#include "cuda.h"
#include <dlfcn.h>

struct parameters {
    size_t size;
    const char *name;
    char *other;
    size_t other_size;
    unsigned char several, padding[7];
};

static void callback(void *user, unsigned domain, unsigned id, const void *data) {
    (void)user, (void)domain, (void)id, (void)data;
}

int main(void) {
    register_kernel();
    launch(1);
    void *cupti = dlopen("libcupti.so.13", RTLD_NOW | RTLD_LOCAL);
    int (*subscribe)(void **, void *, void *, struct parameters *) = dlsym(cupti, "cuptiSubscribe_v2");
    void *handle;
    struct parameters parameters = {32, "rival", NULL, 0, 0, {0}};
    check("cuptiSubscribe_v2", subscribe(&handle, (void *)callback, NULL, &parameters));
    start();
    launch(5);
    synchronize();
    stop();
    puts("subscribed");
    return 24;
}
