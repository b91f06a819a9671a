// Which kernels of a CUDA graph are recorded, by when it was made and when records were on. One JSON object a script:
//
//   probe_toggle LIBCUPTI KINDS SCRIPT      KINDS: kernel (that kind alone), all (those colonel enables)
//
// SCRIPT is a word of single steps, done one after the other:
//   S subscribe        E kinds on       D kinds off      F flush, and a rest of 20 ms
//   C capture a graph  I instantiate it L 20 launches of the newest executable   A 20 launches of the first one
//   K 20 kernels without a graph        U upload the executable
//   ( launches of the newest by a thread of its own, until )   W wait for 50 ms
//   [ launches without a graph by a thread of its own, until ]     { flushes by a thread of its own, until }
//   Y cuInit           X the context, a stream and memory: both are done first where the script has no X
//   J subscribe and turn the kinds on within cuInit, as an injected library does; it comes before Y
//   B a thread of its own subscribes and turns the kinds on 30 ms later, while X takes its time; Q wait for it
//   H subscribe within cuInit, and turn the kinds on as the context is made; it comes before Y
//   h the same, with device, context and stream on from the start
//   d, e the kind of kernels off and on alone      o, c, s, m all off but overhead, contexts, synchronization, copies
//   R enable the callback for the driver call again      r disable it, then enable it again
// After each L, A, K, ) and ] a flush tells how many kernels were recorded, beside how many were launched, with the least and
// the greatest correlation id among them, how often the id changed from one record to the next, and the ids of two driver
// calls: one just before the launches, one after. A script that takes 10 s is ended, and its threads' stacks are printed.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#define CUDA(call) do { cudaError_t e_ = (call); if (e_ != cudaSuccess) { \
    printf("{\"error\":\"%s: %s\",\"line\":%d}\n", #call, cudaGetErrorString(e_), __LINE__); fflush(stdout); exit(1); } } while (0)

static const int NODES = 336, LAUNCHES = 20, CONCURRENT_KERNEL = 10, CORRELATION_ID = 92;
static const int DRIVER_API = 1, CU_DRIVER_GET_VERSION = 2, RESOURCE = 3, CONTEXT_CREATED = 1;
// Kernel, memcpy, memcpy2, memset, synchronization, overhead, device, context, stream.
static const int ALL[] = {10, 1, 22, 2, 38, 17, 8, 9, 37};

// ---- CUPTI, by name
static int (*subscribe)(void **, void *, void *), (*enable)(int), (*disable)(int), (*flush_all)(uint32_t),
    (*version)(uint32_t *), (*register_callbacks)(void *, void *), (*next_record)(uint8_t *, size_t, int **),
    (*enable_callback)(uint32_t, void *, int, uint32_t);

template <class T> static void find(void *library, T &function, const char *name) {
    function = (T)dlsym(library, name);
    if (!function) { printf("{\"error\":\"no %s\"}\n", name); exit(1); }
}

static std::atomic<uint64_t> recorded{0};
static std::atomic<uint32_t> least{UINT32_MAX}, greatest{0}, changes{0}, latest{0}, resources[40];
static void request(uint8_t **buffer, size_t *size, size_t *records) {
    *buffer = (uint8_t *)calloc(1, *size = 1 << 20), *records = 0;
}
static void complete(void *, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    for (int *record = nullptr; valid && !next_record(buffer, valid, &record);) {
        if (*record < 40) resources[*record]++;
        if (*record != CONCURRENT_KERNEL) continue;
        uint32_t id = ((uint32_t *)record)[CORRELATION_ID / 4];
        recorded++;
        if (id < least) least = id;
        if (id > greatest) greatest = id;
        if (id != latest.exchange(id)) changes++;
    }
    free(buffer);
}

// ---- the correlation id of a harmless driver call
static uint32_t marked;
static void (*when_created)();
static void callback(void *, uint32_t domain, uint32_t cbid, const void *data) {
    if (domain == DRIVER_API) marked = *(uint32_t *)((char *)data + 64);
    else if (domain == RESOURCE && cbid == CONTEXT_CREATED && when_created) when_created();
}
static uint32_t mark() {
    static auto get_version = (int (*)(int *))dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuDriverGetVersion");
    int driver;
    marked = 0;
    get_version(&driver);
    return marked;
}
static void rest(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }
static void flush() { flush_all(0), rest(20), flush_all(0); }

// ---- the load
__global__ void tiny(float *data) { data[threadIdx.x] += 1.0f; }
static float *data;
static cudaStream_t stream;
static std::string counts;

static uint64_t told = 0;
static void tell(char step, uint64_t launched, uint32_t before) {
    uint32_t after = mark();
    flush();
    char text[200];
    snprintf(text, sizeof text, "%s{\"step\":\"%c\",\"launched\":%llu,\"recorded\":%llu,\"marks\":[%u,%u],\"ids\":[%u,%u],\"changes\":%u}",
             counts.empty() ? "" : ",", step, (unsigned long long)launched, (unsigned long long)(recorded - told), before, after,
             least == UINT32_MAX ? 0 : least.load(), greatest.load(), changes.load());
    told = recorded, least = UINT32_MAX, greatest = 0, changes = 0;
    counts += text;
}

static uint64_t launch(cudaGraphExec_t exec) {
    for (int i = 0; i < LAUNCHES; i++) {
        CUDA(cudaGraphLaunch(exec, stream));
        CUDA(cudaStreamSynchronize(stream));
    }
    return LAUNCHES * NODES;
}

// ---- where it hangs
static char step_now;
static pthread_t launching;
static void stack(int) {
    void *frames[40];
    backtrace_symbols_fd(frames, backtrace(frames, 40), 2);
}
static void too_long(int) {
    fprintf(stderr, "hangs at step %c\n", step_now);
    stack(0);
    if (launching) fprintf(stderr, "the launching thread\n"), pthread_kill(launching, SIGUSR1), usleep(300000);
    _exit(9);
}

// ---- attaching
static bool every_kind, attaches_within, attaches_early;
static void *subscriber;
static void toggle(int (*call)(int)) {
    for (int kind : ALL)
        if (every_kind || kind == CONCURRENT_KERNEL) call(kind);
}
static void disable_but(std::vector<int> kept) {
    for (int kind : ALL)
        if (!std::count(kept.begin(), kept.end(), kind)) disable(kind);
}
static void attach() {
    if (int status = subscribe(&subscriber, (void *)callback, nullptr)) printf("{\"refused\":%d}\n", status);
    register_callbacks((void *)request, (void *)complete);
    enable_callback(1, subscriber, DRIVER_API, CU_DRIVER_GET_VERSION);
}
// Called by the library that CUDA_INJECTION64_PATH names.
extern "C" __attribute__((visibility("default"))) void within_cu_init() {
    if (!attaches_within) return;
    attach();
    if (attaches_early) enable(8), enable(9), enable(37);
    if (when_created) enable_callback(1, subscriber, RESOURCE, CONTEXT_CREATED);
    else toggle(enable);
}

static void initialize() {
    auto init = (int (*)(unsigned))dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuInit");
    if (int status = init(0)) printf("{\"cuInit\":%d}\n", status);
}
static void make_context() {
    CUDA(cudaMalloc(&data, 4096));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
}

int main(int count, char **words) {
    if (count != 4) { fprintf(stderr, "usage: probe_toggle LIBCUPTI kernel|all SCRIPT\n"); return 2; }
    void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) { printf("{\"error\":\"%s\"}\n", dlerror()); return 1; }
    find(library, subscribe, "cuptiSubscribe"), find(library, enable, "cuptiActivityEnable");
    find(library, disable, "cuptiActivityDisable"), find(library, flush_all, "cuptiActivityFlushAll");
    find(library, register_callbacks, "cuptiActivityRegisterCallbacks"), find(library, version, "cuptiGetVersion");
    find(library, next_record, "cuptiActivityGetNextRecord"), find(library, enable_callback, "cuptiEnableCallback");
    signal(SIGALRM, too_long), signal(SIGUSR1, stack), alarm(10);
    uint32_t api = 0;
    version(&api);
    every_kind = !strcmp(words[2], "all");
    if (!strchr(words[3], 'X')) make_context();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t first = nullptr, exec = nullptr;
    std::atomic<bool> ended{false};
    uint64_t beside = 0, launched = 0;
    uint32_t before = 0;
    std::thread launcher, attacher, flusher;
    std::atomic<bool> flushes{false};
    for (const char *step = words[3]; (step_now = *step); step++) switch (*step) {
        case 'S': attach(); break;
        case 'h': attaches_early = true; [[fallthrough]];
        case 'H': when_created = [] { toggle(enable); }; [[fallthrough]];
        case 'J': attaches_within = true; break;
        case 'Y': initialize(); break;
        case 'X': make_context(); break;
        case 'B': attacher = std::thread([] { rest(30), attach(), toggle(enable); }); break;
        case 'Q': attacher.join(); break;
        case 'r': enable_callback(0, subscriber, DRIVER_API, CU_DRIVER_GET_VERSION); [[fallthrough]];
        case 'R': enable_callback(1, subscriber, DRIVER_API, CU_DRIVER_GET_VERSION); break;
        case 'E': toggle(enable); break;
        case 'D': toggle(disable); break;
        case 'd': disable(CONCURRENT_KERNEL); break;
        case 'e': enable(CONCURRENT_KERNEL); break;
        case 'o': disable_but({17}); break;
        case 'c': disable_but({8, 9, 37}); break;
        case 's': disable_but({38}); break;
        case 'm': disable_but({1, 22, 2}); break;
        case 'F': flush(); break;
        case 'W': rest(50); break;
        case 'C':
            CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
            for (int i = 0; i < NODES; i++) tiny<<<1, 32, 0, stream>>>(data);
            CUDA(cudaStreamEndCapture(stream, &graph));
            break;
        case 'I':
            CUDA(cudaGraphInstantiate(&exec, graph, 0));
            if (!first) first = exec;
            break;
        case 'U': CUDA(cudaGraphUpload(exec, stream)); CUDA(cudaStreamSynchronize(stream)); break;
        case 'L': before = mark(), launched = launch(exec), tell('L', launched, before); break;
        case 'A': before = mark(), launched = launch(first), tell('A', launched, before); break;
        case 'K':
            before = mark();
            for (int i = 0; i < LAUNCHES; i++) tiny<<<1, 32, 0, stream>>>(data);
            CUDA(cudaStreamSynchronize(stream));
            tell('K', LAUNCHES, before);
            break;
        case '(':
            ended = false, beside = 0, before = mark();
            launcher = std::thread([&, exec] { while (!ended) beside += launch(exec); });
            launching = launcher.native_handle();
            break;
        case '[':
            ended = false, beside = 0, before = mark();
            launcher = std::thread([&] {
                for (; !ended; beside++) {
                    tiny<<<1, 32, 0, stream>>>(data);
                    if (beside % 64 == 0) CUDA(cudaStreamSynchronize(stream));
                }
            });
            launching = launcher.native_handle();
            break;
        case '{':
            flushes = true;
            flusher = std::thread([&] { while (flushes) flush_all(0); });
            break;
        case '}': flushes = false, flusher.join(); break;
        case ']':
        case ')': ended = true, launcher.join(), launching = 0, tell(*step, beside, before); break;
        default: fprintf(stderr, "probe_toggle: no step `%c`\n", *step); return 2;
    }
    CUDA(cudaDeviceSynchronize());
    flush();
    printf("{\"api\":%u,\"kinds\":\"%s\",\"script\":\"%s\",\"counts\":[%s],\"devices\":%u,\"contexts\":%u,\"streams\":%u,\"came_later\":%llu}\n", api, words[2], words[3],
           counts.c_str(), resources[8].load(), resources[9].load(), resources[37].load(), (unsigned long long)(recorded - told));
    return 0;
}
