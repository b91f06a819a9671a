/* Looks at what belongs to the process before CUDA is used and after; names what changed. */
#include "cuda.h"
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

struct state {
    char environment[65536];
    char cwd[4096];
    char locale[256];
    char name[16];
    mode_t umask;
    sigset_t blocked;
    struct {
        void (*handler)(int);
        int flags;
    } handlers[65];
    struct rlimit limits[RLIM_NLIMITS];
    int priority;
    int dumpable;
};

static struct state before, after;

static void look(struct state *state) {
    memset(state, 0, sizeof *state);
    size_t used = 0;
    for (char **variable = environ; *variable; variable++)
        used += snprintf(state->environment + used, sizeof state->environment - used, "%s\n", *variable);
    getcwd(state->cwd, sizeof state->cwd);
    strncpy(state->locale, setlocale(LC_ALL, NULL), sizeof state->locale - 1);
    prctl(PR_GET_NAME, state->name);
    state->umask = umask(0);
    umask(state->umask);
    pthread_sigmask(SIG_SETMASK, NULL, &state->blocked);
    for (int signal = 1; signal <= 64; signal++) {
        struct sigaction action = {0};
        sigaction(signal, NULL, &action);
        state->handlers[signal].handler = action.sa_handler;
        state->handlers[signal].flags = action.sa_flags;
    }
    for (int limit = 0; limit < RLIM_NLIMITS; limit++)
        getrlimit(limit, &state->limits[limit]);
    state->priority = getpriority(PRIO_PROCESS, 0);
    state->dumpable = prctl(PR_GET_DUMPABLE);
}

static int changes;

static void compare(const char *what, const void *one, const void *other, size_t size) {
    if (memcmp(one, other, size) != 0) {
        printf("%s changed\n", what);
        changes++;
    }
}

#define SAME(field) compare(#field, &before.field, &after.field, sizeof before.field)

static void keeps_errno(const char *what, int (*call)(void)) {
    errno = ENOTNAM;
    int status = call();
    if (errno != ENOTNAM || status != 0) {
        printf("%s: status %d, errno %d\n", what, status, errno);
        changes++;
    }
}

int main(void) {
    umask(027);
    setlocale(LC_ALL, "C");
    signal(SIGPIPE, SIG_IGN);
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR2);
    sigprocmask(SIG_BLOCK, &some, NULL);
    look(&before);
    register_kernel();
    launch(3);
    keeps_errno("first cudaProfilerStart", cudaProfilerStart);
    launch(3);
    synchronize();
    keeps_errno("first cudaProfilerStop", cudaProfilerStop);
    keeps_errno("second cudaProfilerStart", cudaProfilerStart);
    keeps_errno("second cudaProfilerStop", cudaProfilerStop);
    look(&after);
    SAME(environment);
    SAME(cwd);
    SAME(locale);
    SAME(name);
    SAME(umask);
    SAME(blocked);
    SAME(handlers);
    SAME(limits);
    SAME(priority);
    SAME(dumpable);
    puts(changes ? "not the same" : "the same");
    return changes != 0;
}
