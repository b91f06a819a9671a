/* Ends while its threads launch on. */
#include "cuda.h"
#include <pthread.h>
#include <unistd.h>

static void *launch_on_and_on(void *nothing) {
    for (;;) {
        launch(20);
        synchronize();
    }
    return nothing;
}

int main(void) {
    register_kernel();
    launch(1);
    synchronize();
    start();
    launch(10);
    synchronize();
    stop();
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, launch_on_and_on, NULL);
    }
    usleep(300000);
    return 0;
}
