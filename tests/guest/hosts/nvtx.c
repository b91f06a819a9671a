/* Does what its arguments say, word by word, as a program with NVTX does.
     I        initialises CUDA            lN       launches N kernels          s   waits for them
     P, p     cudaProfilerStart and Stop  tN       sleeps N ms                 F   forks: both go on
     KFNAME   makes a range or mark, of kind K: > (push), + (start) or ! (mark); in form F: a (narrow), w (wide),
              e (attributes), d (attributes and a registered string, in the domain `dom`), and then, of e and d, a digit
              is the payload's type and a category
     <, d<    pops                        -N, d-N  ends the N-th range that was started
     ~        ends a range that nobody started
     >>N <<N  pushes and pops N ranges    >B       pushes one with a name of a megabyte
     >X       pushes one whose name is no UTF-8    >0  pushes one without attributes
     >S       pushes one whose name can't be read: the signal's handler leaves by _exit, within the push
     k        from here on, a timer's signal handler pushes and pops, too     WN   opens and closes N windows
     L        goes on as another library with NVTX
     RN       registers the same string N times, as many domains of one name, and names a category as often
     CNAME    names category 3, of both domains
     g…       makes and launches graphs: see graphs.h    K  ends by SIGKILL
     1WORD    does the word on a second thread     Q   ends that thread
     H        holds on until there is a file `go` in its folder
   Prints what NVTX returns. */
#include "cuda.h"
#include "nvtx.h"
#include "graphs.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static library *now = libraries;
static void *domain;
static uint64_t ids[20000];
static int started;

static wchar_t *wide(const char *name) {
    static _Thread_local wchar_t text[256];
    size_t length = strlen(name);
    for (size_t i = 0; i <= length; i++)
        text[i] = (unsigned char)name[i];
    return text;
}

static void *dom(void) {
    if (!domain)
        domain = CALL(now->core2, 12, void *(*)(const char *), NULL, "dom");
    return domain;
}

static attributes event(const char *name, int registered) {
    attributes event = {.version = 3, .size = sizeof event};
    if (*name >= '1' && *name <= '9') {
        event.payload_type = *name - '0';
        event.category = 3;
        switch (event.payload_type) {
        case 3: event.payload.f64 = 0.5; break;
        case 6: event.payload.f32 = -2.25f; break;
        case 4: event.payload.u64 = 0xffffffff00000007u; break;
        default: event.payload.i64 = -7;
        }
        name++;
    }
    event.message_type = registered ? 3 : 1;
    if (registered)
        event.message.registered = CALL(now->core2, 10, void *(*)(void *, const char *), NULL, dom(), name);
    else
        event.message.ascii = name;
    return event;
}

static void push(const char *name) { CALL(now->core, 9, int (*)(const char *), -2, name); }

static int pop(void) { return CALL(now->core, 11, int (*)(void), -2); }

static void make(char kind, char form, const char *name) {
    attributes with = {0};
    if (form == 'e' || form == 'd')
        with = event(name, form == 'd');
    long value = 0;
    switch (kind) {
    case '>':
        switch (form) {
        case 'a': value = CALL(now->core, 9, int (*)(const char *), -2, name); break;
        case 'w': value = CALL(now->core, 10, int (*)(const wchar_t *), -2, wide(name)); break;
        case 'e': value = CALL(now->core, 8, int (*)(attributes *), -2, &with); break;
        default: value = CALL(now->core2, 4, int (*)(void *, attributes *), -2, dom(), &with);
        }
        break;
    case '+':
        switch (form) {
        case 'a': value = CALL(now->core, 5, uint64_t(*)(const char *), 0, name); break;
        case 'w': value = CALL(now->core, 6, uint64_t(*)(const wchar_t *), 0, wide(name)); break;
        case 'e': value = CALL(now->core, 4, uint64_t(*)(attributes *), 0, &with); break;
        default: value = CALL(now->core2, 2, uint64_t(*)(void *, attributes *), 0, dom(), &with);
        }
        ids[started++] = value;
        for (int i = 0; i < started - 1; i++)
            if (ids[i] == (uint64_t)value)
                abort();
        value = value != 0;
        break;
    default:
        switch (form) {
        case 'a': DO(now->core, 2, void (*)(const char *), name); break;
        case 'w': DO(now->core, 3, void (*)(const wchar_t *), wide(name)); break;
        case 'e': DO(now->core, 1, void (*)(attributes *), &with); break;
        default: DO(now->core2, 1, void (*)(void *, attributes *), dom(), &with);
        }
    }
    printf("%c%c%s %ld\n", kind, form, name, value);
}

static void end(const char *which, int with_domain) {
    uint64_t id = ids[atoi(which)];
    if (with_domain)
        DO(now->core2, 3, void (*)(void *, uint64_t), dom(), id);
    else
        DO(now->core, 7, void (*)(uint64_t), id);
}

static void many(const char *word) {
    int count = atoi(word + 2);
    char name[32];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "n%d", i);
        if (*word == '>')
            push(name);
        else
            pop();
    }
}

static void again(int count) {
    for (int i = 0; i < count; i++) {
        CALL(now->core2, 10, void *(*)(void *, const char *), NULL, dom(), "again");
        CALL(now->core2, 12, void *(*)(const char *), NULL, "dom");
        DO(now->core, 12, void (*)(uint32_t, const char *), 3, "again");
    }
}

static void leave(int unused) { _exit(0); }

static void interrupt(int unused) {
    push("handler");
    pop();
}

static void interrupt_often(void) {
    struct itimerval often = {{0, 100}, {0, 100}};
    signal(SIGALRM, interrupt);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void windows(int count) {
    for (int i = 0; i < count; i++) {
        start();
        stop();
    }
}

static void odd(const char *word) {
    static char megabyte[1 << 20];
    memset(megabyte, 'm', sizeof megabyte - 1);
    int level = 0;
    switch (word[1]) {
    case 'B': push(megabyte); return;
    case 'X': push("a\xff\xfe z"); return;
    case 'S':
        signal(SIGSEGV, leave);
        push(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        return;
    default:
        level = CALL(now->core, 8, int (*)(attributes *), -2, NULL);
        printf("%s %d\n", word, level);
    }
}

static void second(const char *word);

static void act(const char *word) {
    switch (*word) {
    case 'I': check("cudaFree", cudaFree(NULL)); break;
    case 'l': launch(atoi(word + 1)); break;
    case 's': synchronize(); break;
    case 't': usleep((unsigned)atoi(word + 1) * 1000); break;
    case 'R': again(atoi(word + 1)); break;
    case 'k': interrupt_often(); break;
    case 'W': windows(atoi(word + 1)); break;
    case 'P': start(); break;
    case 'p': stop(); break;
    case 'F': fflush(stdout); fork(); break;
    case 'g': graph_word(word); break;
    case 'K': raise(SIGKILL); break;
    case 'H':
        while (access("go", F_OK) != 0)
            usleep(1000);
        break;
    case 'L': now = libraries + 1; nvtx_initialize(now); break;
    case 'C':
        DO(now->core, 12, void (*)(uint32_t, const char *), 3, word + 1);
        DO(now->core2, 8, void (*)(void *, uint32_t, const char *), dom(), 3, word + 1);
        break;
    case '1':
    case 'Q': second(word); break;
    case '-': end(word + 1, 0); break;
    case '~': DO(now->core, 7, void (*)(uint64_t), 4711); break;
    case 'd':
        if (word[1] == '-')
            end(word + 2, 1);
        else
            printf("%s %d\n", word, CALL(now->core2, 5, int (*)(void *), -2, dom()));
        break;
    case '<':
        if (word[1] == '<')
            many(word);
        else
            printf("%s %d\n", word, pop());
        break;
    case '>':
        if (word[1] == '>')
            many(word);
        else if (strchr("BXS0", word[1]))
            odd(word);
        else
            make(*word, word[1], word + 2);
        break;
    case '+':
    case '!': make(*word, word[1], word + 2); break;
    default: exit(95);
    }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *given;
static pthread_t thread;

static void *follow(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!given)
            pthread_cond_wait(&changed, &lock);
        int ends = *given == 'Q';
        if (!ends)
            act(given + 1);
        given = NULL;
        pthread_cond_broadcast(&changed);
        if (ends)
            break;
    }
    pthread_mutex_unlock(&lock);
    return unused;
}

/* Has the second thread do a word, and waits for it. */
static void second(const char *word) {
    if (!thread)
        pthread_create(&thread, NULL, follow, NULL);
    pthread_mutex_lock(&lock);
    given = word;
    pthread_cond_broadcast(&changed);
    while (given)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    if (*word == 'Q') {
        pthread_join(thread, NULL);
        thread = 0;
    }
}

int main(int count, char **words) {
    register_kernel();
    printf("wanted %d\n", nvtx_initialize(now));
    for (int i = 1; i < count; i++)
        act(words[i]);
    fflush(stdout);
    /* Of a fork's two, the parent ends last. */
    while (wait(NULL) > 0)
        ;
    return 0;
}
