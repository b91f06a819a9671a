/* Sends itself signals while it is captured; counts the threads that they were delivered to, by name. */
#define _GNU_SOURCE
#include "cuda.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static atomic_int total, foreign, ended;
static __thread int is_host;

static void handle(int number) {
    (void)number;
    if (!is_host)
        foreign++;
    total++;
}

static void *take_signals(void *nothing) {
    is_host = 1;
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    while (!ended)
        usleep(1000);
    return nothing;
}

int main(void) {
    is_host = 1;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    /* libcupti's own thread is not our matter: it starts while the signal is blocked. */
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    register_kernel();
    /* The guest's threads start now, with the signal unblocked here. */
    launch(1);
    usleep(50000);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    start();
    pthread_t taker;
    pthread_create(&taker, NULL, take_signals, NULL);
    for (int i = 0; i < 300; i++) {
        int before = total;
        kill(getpid(), SIGUSR1);
        for (int waited = 0; total == before && waited < 5000; waited++)
            usleep(100);
        launch(1);
    }
    synchronize();
    stop();
    ended = 1;
    pthread_join(taker, NULL);
    printf("%d signals, %d on threads that are not the program's\n", (int)total, (int)foreign);
    return 0;
}
