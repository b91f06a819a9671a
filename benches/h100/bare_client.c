// The cheapest honest CUPTI client: what colonel's capture is compared with.
//
// It gets into a process as colonel does (CUDA_INJECTION64_PATH, LD_PRELOAD) and makes no CUPTI call before the first
// cudaProfilerStart. Then it subscribes, registers buffer callbacks, enables the activity kinds, flushes four times a
// second from a thread of its own and counts the records. No decoding, no files until exit.
//
//   BARE_OUT=FILE       counts as JSON, written at exit (".PID" is appended)
//   BARE_KINDS=kernel   or `all`: the kinds that colonel enables, or names joined by commas
//   BARE_ATTACH=start   or `inject`: attach and enable inside InitializeInjection
//   BARE_SUBSCRIBE=1    0: register the buffer callbacks only
#define _GNU_SOURCE
#include <cupti.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { BUFFER_BYTES = 1 << 20, FLUSH_MS = 250, KINDS = 128 };

static const struct { const char *name; CUpti_ActivityKind kind; } NAMED[] = {
    {"kernel", CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL},
    {"memcpy", CUPTI_ACTIVITY_KIND_MEMCPY},
    {"memcpy2", CUPTI_ACTIVITY_KIND_MEMCPY2},
    {"memset", CUPTI_ACTIVITY_KIND_MEMSET},
    {"sync", CUPTI_ACTIVITY_KIND_SYNCHRONIZATION},
    {"overhead", CUPTI_ACTIVITY_KIND_OVERHEAD},
    {"device", CUPTI_ACTIVITY_KIND_DEVICE},
    {"context", CUPTI_ACTIVITY_KIND_CONTEXT},
    {"stream", CUPTI_ACTIVITY_KIND_STREAM},
};
enum { NAMED_LEN = sizeof NAMED / sizeof NAMED[0] };

static atomic_ullong records[KINDS], requested, completed, dropped, flushes, flush_ns, slowest_flush_ns;
static atomic_int windows, attached, last_error;
static char first_error[160];
static CUpti_SubscriberHandle subscriber;
static pthread_mutex_t flush_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t flush_now = PTHREAD_COND_INITIALIZER;
static uint64_t start_cost_ns, stop_cost_ns;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int check(CUptiResult result, const char *call) {
    if (result == CUPTI_SUCCESS) return 0;
    const char *text = "?";
    cuptiGetResultString(result, &text);
    if (!atomic_exchange(&last_error, (int)result)) {
        snprintf(first_error, sizeof first_error, "%s: %d %s", call, (int)result, text);
    }
    return (int)result;
}

static int wanted(int index) {
    const char *kinds = getenv("BARE_KINDS");
    if (!kinds || !*kinds) return index == 0;
    if (!strcmp(kinds, "all")) return 1;
    const char *name = NAMED[index].name;
    size_t length = strlen(name);
    for (const char *at = kinds; (at = strstr(at, name)); at += length) {
        if ((at == kinds || at[-1] == ',') && (at[length] == 0 || at[length] == ',')) return 1;
    }
    return 0;
}

static void CUPTIAPI request(uint8_t **buffer, size_t *size, size_t *max_records) {
    atomic_fetch_add(&requested, 1);
    *buffer = malloc(BUFFER_BYTES);
    *size = *buffer ? BUFFER_BYTES : 0;
    *max_records = 0;
}

static void CUPTIAPI complete(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    (void)context, (void)stream, (void)size;
    atomic_fetch_add(&completed, 1);
    unsigned long long counts[KINDS] = {0};
    CUpti_Activity *record = NULL;
    while (valid && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        counts[(unsigned)record->kind % KINDS]++;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (counts[kind]) atomic_fetch_add(&records[kind], counts[kind]);
    }
    free(buffer);
}

static void CUPTIAPI no_callback(void *data, CUpti_CallbackDomain domain, CUpti_CallbackId id, const void *info) {
    (void)data, (void)domain, (void)id, (void)info;
}

static void flush(uint32_t flag) {
    uint64_t begin = now_ns();
    check(cuptiActivityFlushAll(flag), "cuptiActivityFlushAll");
    uint64_t took = now_ns() - begin;
    size_t lost = 0;
    if (cuptiActivityGetNumDroppedRecords(NULL, 0, &lost) == CUPTI_SUCCESS) atomic_fetch_add(&dropped, lost);
    atomic_fetch_add(&flushes, 1);
    atomic_fetch_add(&flush_ns, took);
    if (took > atomic_load(&slowest_flush_ns)) atomic_store(&slowest_flush_ns, took);
}

static void *flusher(void *unused) {
    pthread_mutex_lock(&flush_lock);
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += FLUSH_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&flush_now, &flush_lock, &until);
        flush(0);
    }
    return unused;
}

EXPORT size_t bare_report(char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size,
        "{\"pid\":%d,\"windows\":%d,\"requested\":%llu,\"completed\":%llu,\"dropped\":%llu,\"flushes\":%llu,"
        "\"flush_ns\":%llu,\"slowest_flush_ns\":%llu,\"start_cost_ns\":%llu,\"stop_cost_ns\":%llu,\"error\":\"%s\","
        "\"records\":{",
        (int)getpid(), atomic_load(&windows), atomic_load(&requested), atomic_load(&completed), atomic_load(&dropped),
        atomic_load(&flushes), atomic_load(&flush_ns), atomic_load(&slowest_flush_ns),
        (unsigned long long)start_cost_ns, (unsigned long long)stop_cost_ns, first_error);
    const char *comma = "";
    for (int kind = 0; kind < KINDS && used < size; kind++) {
        unsigned long long count = atomic_load(&records[kind]);
        if (!count) continue;
        const char *name = NULL;
        for (int i = 0; i < NAMED_LEN; i++) {
            if ((int)NAMED[i].kind == kind) name = NAMED[i].name;
        }
        used += name ? (size_t)snprintf(text + used, size - used, "%s\"%s\":%llu", comma, name, count)
                     : (size_t)snprintf(text + used, size - used, "%s\"kind_%d\":%llu", comma, kind, count);
        comma = ",";
    }
    if (used < size) used += (size_t)snprintf(text + used, size - used, "}}\n");
    return used < size ? used : size;
}

EXPORT unsigned long long bare_kernels(void) { return atomic_load(&records[CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL]); }

EXPORT void bare_flush(int forced) {
    pthread_mutex_lock(&flush_lock);
    flush(forced ? 1 : 0);
    pthread_mutex_unlock(&flush_lock);
}

static void at_exit(void) {
    bare_flush(1);
    const char *path = getenv("BARE_OUT");
    if (!path) return;
    char name[4096], text[4096];
    snprintf(name, sizeof name, "%s.%d", path, (int)getpid());
    size_t length = bare_report(text, sizeof text);
    FILE *file = fopen(name, "w");
    if (!file) return;
    fwrite(text, 1, length, file);
    fclose(file);
}

EXPORT int bare_register(void) {
    return check(cuptiActivityRegisterCallbacks(request, complete), "cuptiActivityRegisterCallbacks");
}

EXPORT int bare_attach(void) {
    if (atomic_exchange(&attached, 1)) return 0;
    const char *subscribe = getenv("BARE_SUBSCRIBE");
    int refused = 0;
    if (!subscribe || strcmp(subscribe, "0")) refused = check(cuptiSubscribe(&subscriber, no_callback, NULL), "cuptiSubscribe");
    if (!refused) refused = bare_register();
    pthread_t thread;
    if (!refused && pthread_create(&thread, NULL, flusher, NULL) == 0) pthread_detach(thread);
    atexit(at_exit);
    return refused;
}

EXPORT int bare_start(void) {
    uint64_t begin = now_ns();
    int refused = bare_attach();
    for (int i = 0; i < NAMED_LEN && !refused; i++) {
        if (wanted(i)) refused = check(cuptiActivityEnable(NAMED[i].kind), NAMED[i].name);
    }
    atomic_fetch_add(&windows, 1);
    start_cost_ns = now_ns() - begin;
    return refused;
}

EXPORT int bare_stop(void) {
    uint64_t begin = now_ns();
    int refused = 0;
    for (int i = 0; i < NAMED_LEN; i++) {
        if (wanted(i)) refused |= check(cuptiActivityDisable(NAMED[i].kind), NAMED[i].name);
    }
    pthread_cond_signal(&flush_now);
    stop_cost_ns = now_ns() - begin;
    return refused;
}

// The name of whoever holds CUPTI, as cuptiSubscribe_v2 tells it. Returns the call's status.
EXPORT int bare_holder(const char *own_name, char *name, size_t size, int keep) {
    CUpti_SubscriberHandle handle;
    CUpti_SubscriberParams params;
    memset(&params, 0, sizeof params);
    params.structSize = CUpti_SubscriberParams_STRUCT_SIZE;
    params.subscriberName = own_name;
    params.oldSubscriberName = name;
    params.oldSubscriberSize = size;
    CUptiResult result = cuptiSubscribe_v2(&handle, no_callback, NULL, &params);
    if (result == CUPTI_SUCCESS && !keep) cuptiUnsubscribe(handle);
    return (int)result;
}

EXPORT int InitializeInjection(void) {
    const char *attach = getenv("BARE_ATTACH");
    if (attach && !strcmp(attach, "inject")) bare_start();
    return 1;
}

static int real(const char *name) {
    void *runtime = dlopen("libcudart.so.13", RTLD_NOLOAD | RTLD_LAZY);
    if (!runtime) runtime = dlopen("libcudart.so.12", RTLD_NOLOAD | RTLD_LAZY);
    int (*call)(void) = runtime ? (int (*)(void))dlsym(runtime, name) : NULL;
    return call ? call() : 0;
}

EXPORT int cudaProfilerStart(void) {
    bare_start();
    return real("cudaProfilerStart");
}

EXPORT int cudaProfilerStop(void) {
    int result = real("cudaProfilerStop");
    bare_stop();
    return result;
}
