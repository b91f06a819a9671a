/* Calls CUDA from a signal handler that comes over colonel's own code, at every few instructions of it: the processor's
   single steps are the signals. First argument: what the handler does. Prints whether it did; a hang ends by SIGALRM. */
#define _GNU_SOURCE
#include "cuda.h"
#include "nvtx.h"
#include "graphs.h"
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

/* A prime, so that loops are met at all their places. */
enum { EVERY = 61, LONGEST_S = 100, STEPS = 0x100 };

static unsigned long begin, end, instructions, calls;
static char action;

/* Where colonel's code lies. */
static void find_colonel(void) {
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "libcolonel_guest.so") && strstr(line, " r-xp "))
            sscanf(line, "%lx-%lx", &begin, &end);
    fclose(maps);
}

/* All may fail in here and in what was interrupted, since it comes at any place. */
static void act(void) {
    void *made;
    switch (action) {
    case 'r': cudaDeviceReset(); break;
    case 's':
        cudaStreamCreate(&made);
        cudaStreamDestroy(made);
        break;
    case 'c': pass_context(0); break;
    default: cudaGraphExecUpdate(execs[0], graphs[1], NULL);
    }
    calls++;
}

static void interrupt(int number, siginfo_t *info, void *context) {
    unsigned long at = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    (void)number, (void)info;
    if (at >= begin && at < end && ++instructions % EVERY == 0)
        act();
}

static void push(const char *name) { CALL(libraries->core, 9, int (*)(const char *), -2, name); }

static void pop(void) { CALL(libraries->core, 11, int (*)(void), -2); }

/* A graph of one kernel and its executable, of this number. */
static void make(const char *range, int number) {
    void *stream;
    sides one = {1, 1, 1};
    push(range);
    cudaStreamCreate(&stream);
    cudaStreamBeginCapture(stream, RELAXED);
    cudaLaunchKernel(&kernel_symbol, one, one, NULL, 0, stream);
    push("inner");
    pop();
    cudaStreamEndCapture(stream, graphs + number);
    cudaGraphInstantiate(execs + number, graphs[number], 0);
    cudaStreamDestroy(stream);
    pop();
}

static void run(int number) {
    push("launch");
    check("cudaGraphLaunch", cudaGraphLaunch(execs[number], NULL));
    synchronize();
    pop();
}

int main(int count, char **words) {
    struct sigaction steps = {.sa_sigaction = interrupt, .sa_flags = SA_SIGINFO};
    action = *words[count - 1];
    alarm(LONGEST_S);
    register_kernel();
    nvtx_initialize(libraries);
    check("cudaFree", cudaFree(NULL));
    make("kept", 0);
    make("other", 1);
    start();
    run(0);
    stop();
    find_colonel();
    sigaction(SIGTRAP, &steps, NULL);
    __asm__ volatile("pushfq; orq %0, (%%rsp); popfq" ::"i"(STEPS) : "memory", "cc");
    make("interrupted", 2);
    __asm__ volatile("pushfq; andq %0, (%%rsp); popfq" ::"i"(~STEPS) : "memory", "cc");
    fprintf(stderr, "%lu calls over %lu instructions\n", calls, instructions);
    printf("%s\n", calls > 10 ? "interrupted" : "not interrupted");
    make("fresh", 3);
    start();
    if (action != 'r')
        run(0);
    run(3);
    stop();
    return 0;
}
