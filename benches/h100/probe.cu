// Questions about CUPTI that only a GPU answers, one mode each. Prints one JSON object a line.
//
//   probe marks|h8|canary|late_kinds|first_disable [early|late|paired]|flush|costs|workload
//
// Kernels carry their phase in grid.x, so that a record says where it was launched.
#include <cuda_runtime.h>
#include <cupti.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

struct Kernel { uint32_t correlation, phase, graph; uint64_t node, start, end; };
struct Call { uint32_t cbid, correlation, thread; bool driver; uint64_t start, end; };

static std::mutex records_lock;
static std::vector<Kernel> kernels;
static std::vector<Call> calls;
static std::map<uint32_t, unsigned> kinds;
static std::atomic<unsigned> requested{0}, completed{0};
static std::set<int> complete_threads;

#define CUDA(call) do { cudaError_t e_ = (call); if (e_ != cudaSuccess) { \
    printf("{\"error\":\"%s: %s\",\"line\":%d}\n", #call, cudaGetErrorString(e_), __LINE__); fflush(stdout); _exit(1); } } while (0)

// CUPTI's refusals are answers: printed, never fatal.
static CUptiResult say(CUptiResult result, const char *call) {
    if (result != CUPTI_SUCCESS) printf("{\"refused\":\"%s\",\"code\":%d}\n", call, (int)result);
    return result;
}
#define CUPTI(call) say((call), #call)

static uint64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static void print(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

// ---- a small client
static void CUPTIAPI request(uint8_t **buffer, size_t *size, size_t *max_records) {
    requested++;
    *buffer = (uint8_t *)malloc(1 << 20);
    *size = 1 << 20;
    *max_records = 0;
}

static void CUPTIAPI complete(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    std::lock_guard<std::mutex> hold(records_lock);
    completed++;
    complete_threads.insert((int)gettid());
    CUpti_Activity *record = nullptr;
    while (valid && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        kinds[(uint32_t)record->kind]++;
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            auto *k = (CUpti_ActivityKernel10 *)record;
            kernels.push_back({k->correlationId, (uint32_t)k->gridX, k->graphId, k->graphNodeId, k->start, k->end});
        } else if (record->kind == CUPTI_ACTIVITY_KIND_DRIVER || record->kind == CUPTI_ACTIVITY_KIND_RUNTIME) {
            auto *a = (CUpti_ActivityAPI *)record;
            calls.push_back({a->cbid, a->correlationId, a->threadId, record->kind == CUPTI_ACTIVITY_KIND_DRIVER, a->start, a->end});
        }
    }
    free(buffer);
}

static thread_local uint32_t last_mark;
static std::atomic<unsigned> mark_callbacks{0};
static void CUPTIAPI on_call(void *, CUpti_CallbackDomain domain, CUpti_CallbackId id, const void *data) {
    if (domain != CUPTI_CB_DOMAIN_DRIVER_API || id != CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion) return;
    auto *info = (const CUpti_CallbackData *)data;
    if (info->callbackSite == CUPTI_API_ENTER) last_mark = info->correlationId, mark_callbacks++;
}

static uint32_t mark() {
    static auto *version = (CUresult (*)(int *))dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuDriverGetVersion");
    int ignored = 0;
    last_mark = 0;
    version(&ignored);
    return last_mark;
}

static CUpti_SubscriberHandle subscriber;
static void attach() {
    CUPTI(cuptiSubscribe(&subscriber, on_call, nullptr));
    CUPTI(cuptiActivityRegisterCallbacks(request, complete));
}
static void marks_on() {
    CUPTI(cuptiEnableCallback(1, subscriber, CUPTI_CB_DOMAIN_DRIVER_API, CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion));
}
static void kernels_on() { CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)); }
static void kernels_off() { CUPTI(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)); }
static void flush() { CUPTI(cuptiActivityFlushAll(0)); }
static void forget() {
    std::lock_guard<std::mutex> hold(records_lock);
    kernels.clear(), calls.clear(), kinds.clear();
}
static unsigned count(uint32_t phase) {
    std::lock_guard<std::mutex> hold(records_lock);
    return (unsigned)std::count_if(kernels.begin(), kernels.end(), [&](const Kernel &k) { return k.phase == phase; });
}

// ---- a small workload
__global__ void tiny(float *data) { data[threadIdx.x] += 1.0f; }
__global__ void spin(long long cycles) {
    long long begin = clock64();
    while (clock64() - begin < cycles) { }
}

static float *data;
static cudaStream_t stream;
static void setup() {
    CUDA(cudaMalloc(&data, 4096));
    CUDA(cudaMemset(data, 0, 4096));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    tiny<<<1, 32, 0, stream>>>(data);
    spin<<<1, 1, 0, stream>>>(1000);
    CUDA(cudaStreamSynchronize(stream));
}
static cudaGraphExec_t capture(int nodes, int phase) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) tiny<<<phase, 32, 0, stream>>>(data);
    CUDA(cudaStreamEndCapture(stream, &graph));
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CUDA(cudaGraphUpload(exec, stream));
    CUDA(cudaStreamSynchronize(stream));
    return exec;
}
static void launch(int kernels_count, int phase) {
    for (int i = 0; i < kernels_count; i++) tiny<<<phase, 32, 0, stream>>>(data);
}
static double step_us(cudaGraphExec_t exec, int steps) {
    std::vector<double> times;
    for (int i = 0; i < steps; i++) {
        uint64_t begin = now_ns();
        CUDA(cudaGraphLaunch(exec, stream));
        CUDA(cudaStreamSynchronize(stream));
        times.push_back((now_ns() - begin) / 1e3);
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

// ---- q1: are the ids of our own driver calls one counter with those of launches on other threads?
static void marks() {
    setup();
    cudaGraphExec_t exec = capture(20, 7);
    attach();
    marks_on();
    for (int session = 1; session <= 3; session++) {
        forget();
        const int base = session * 100;
        // Runs across the enable: launched before the window.
        spin<<<base + 1, 1, 0, stream>>>(4000000);
        uint32_t before = mark();
        kernels_on();
        uint32_t opened = mark();
        uint32_t after_eager = 0, after_graph = 0;
        std::thread([&] { launch(10, base + 2); }).join();
        after_eager = mark();
        std::thread([&] { for (int i = 0; i < 3; i++) CUDA(cudaGraphLaunch(exec, stream)); }).join();
        after_graph = mark();
        // Still runs at the stop: launched before it.
        std::thread([&] { for (int i = 0; i < 5; i++) spin<<<base + 3, 1, 0, stream>>>(4000000); CUDA(cudaGraphLaunch(exec, stream)); }).join();
        uint32_t closing = mark();
        uint64_t begin = now_ns();
        kernels_off();
        double disable_us = (now_ns() - begin) / 1e3;
        bool running = cudaStreamQuery(stream) == cudaErrorNotReady;
        uint32_t closed = mark();
        launch(10, base + 4);
        CUDA(cudaGraphLaunch(exec, stream));
        CUDA(cudaStreamSynchronize(stream));
        uint32_t end = mark();
        flush();
        print("{\"q\":\"q1\",\"session\":%d,\"marks\":{\"before\":%u,\"opened\":%u,\"after_eager\":%u,\"after_graph\":%u,"
              "\"closing\":%u,\"closed\":%u,\"end\":%u},\"disable_us\":%.1f,\"running_at_stop\":%s,\"callbacks\":%u}",
              session, before, opened, after_eager, after_graph, closing, closed, end, disable_us, running ? "true" : "false",
              mark_callbacks.load());
        std::lock_guard<std::mutex> hold(records_lock);
        std::map<std::string, std::vector<uint32_t>> groups;
        std::map<uint32_t, unsigned> launches;
        unsigned untimed = 0;
        for (auto &k : kernels) {
            groups[k.graph ? "graph" : "phase_" + std::to_string(k.phase % 100)].push_back(k.correlation);
            if (k.graph) launches[k.correlation]++;
            untimed += !k.start || k.end < k.start;
        }
        for (auto &g : groups) {
            auto low_high = std::minmax_element(g.second.begin(), g.second.end());
            print("{\"q\":\"q1\",\"session\":%d,\"group\":\"%s\",\"records\":%zu,\"distinct\":%zu,\"min\":%u,\"max\":%u}", session,
                  g.first.c_str(), g.second.size(), std::set<uint32_t>(g.second.begin(), g.second.end()).size(), *low_high.first, *low_high.second);
        }
        // Expected: 3 launches between after_eager and after_graph, 1 before closing; 1 after `closed` only if it leaks.
        std::string text;
        for (auto &l : launches) text += (text.empty() ? "" : ",") + std::to_string(l.first) + ":" + std::to_string(l.second);
        print("{\"q\":\"q1\",\"session\":%d,\"graph_launches\":\"%s\",\"untimed\":%u}", session, text.c_str(), untimed);
    }
    // Marks taken while 4 threads launch: as many ids lie below a mark as launches had returned.
    forget();
    kernels_on();
    std::atomic<unsigned> returned{0};
    std::vector<std::thread> workers;
    struct Taken { unsigned before, after; uint32_t id; };
    std::vector<Taken> taken;
    for (int t = 0; t < 4; t++) workers.emplace_back([&] { for (int i = 0; i < 2000; i++) { launch(1, 9); returned++; } });
    while (returned < 8000) {
        unsigned low = returned;
        uint32_t id = mark();
        taken.push_back({low, returned + 4, id});
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    for (auto &w : workers) w.join();
    CUDA(cudaStreamSynchronize(stream));
    kernels_off();
    flush();
    std::vector<uint32_t> ids;
    { std::lock_guard<std::mutex> hold(records_lock); for (auto &k : kernels) ids.push_back(k.correlation); }
    std::sort(ids.begin(), ids.end());
    unsigned misplaced = 0, collided = 0;
    for (auto &m : taken) {
        unsigned below = (unsigned)(std::lower_bound(ids.begin(), ids.end(), m.id) - ids.begin());
        misplaced += below < m.before || below > m.after;
        collided += std::binary_search(ids.begin(), ids.end(), m.id);
    }
    print("{\"q\":\"q1\",\"threads\":4,\"kernels\":%zu,\"distinct\":%zu,\"marks\":%zu,\"misplaced\":%u,\"collided\":%u}", ids.size(),
          std::set<uint32_t>(ids.begin(), ids.end()).size(), taken.size(), misplaced, collided);
    uint64_t begin = now_ns();
    for (int i = 0; i < 1000; i++) mark();
    print("{\"q\":\"q1\",\"mark_cost_ns\":%.0f}", (now_ns() - begin) / 1e3);
}

// ---- H8: do graph kernels carry the id of their launching call, in each session?
static void h8() {
    setup();
    cudaGraphExec_t exec = capture(20, 7);
    attach();
    for (int session = 1; session <= 4; session++) {
        forget();
        kernels_on();
        CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_RUNTIME));
        for (int i = 0; i < 5; i++) CUDA(cudaGraphLaunch(exec, stream));
        CUDA(cudaStreamSynchronize(stream));
        kernels_off();
        CUPTI(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_RUNTIME));
        flush();
        std::lock_guard<std::mutex> hold(records_lock);
        std::set<uint32_t> of_calls, of_kernels;
        for (auto &c : calls) if (c.cbid == CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_v10000) of_calls.insert(c.correlation);
        for (auto &k : kernels) of_kernels.insert(k.correlation);
        print("{\"q\":\"h8\",\"session\":%d,\"kernels\":%zu,\"graph_launch_calls\":%zu,\"ids_of_kernels\":%zu,\"equal\":%s,"
              "\"first_call\":%u,\"first_kernel\":%u}", session, kernels.size(), of_calls.size(), of_kernels.size(),
              of_calls == of_kernels ? "true" : "false", of_calls.empty() ? 0 : *of_calls.begin(), of_kernels.empty() ? 0 : *of_kernels.begin());
    }
}

// ---- q2: one driver call traced as a canary
static void canary() {
    setup();
    cudaGraphExec_t exec = capture(336, 7);
    attach();
    kernels_on();
    step_us(exec, 200);
    for (int round = 0; round < 4; round++) {
        double without = step_us(exec, 300);
        CUPTI(cuptiActivityEnableDriverApi(CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion, 1));
        double with = step_us(exec, 300);
        forget();
        mark(), mark();
        CUDA(cudaGraphLaunch(exec, stream));
        mark();
        CUDA(cudaStreamSynchronize(stream));
        flush();
        CUPTI(cuptiActivityEnableDriverApi(CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion, 0));
        std::lock_guard<std::mutex> hold(records_lock);
        std::string ids;
        for (auto &c : calls) ids += (ids.empty() ? "" : ",") + std::to_string(c.correlation);
        print("{\"q\":\"q2\",\"round\":%d,\"step_us_without\":%.1f,\"step_us_with\":%.1f,\"calls_made\":3,\"records\":%zu,\"ids\":\"%s\","
              "\"kernels\":%zu,\"kernel_id\":%u}", round, without, with, calls.size(), ids.c_str(), kernels.size(),
              kernels.empty() ? 0 : kernels.back().correlation);
    }
    kernels_off();
    // Does the first call of each kind of enabling count, after everything was off?
    forget();
    CUPTI(cuptiActivityEnableDriverApi(CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion, 1));
    mark();
    flush();
    print("{\"q\":\"q2\",\"canary_alone_records\":%zu}", calls.size());
}

// ---- q3: kinds that describe, enabled when their objects exist already
static void late_kinds() {
    setup();
    cudaStream_t other[3];
    for (auto &s : other) CUDA(cudaStreamCreate(&s));
    attach();
    for (int session = 1; session <= 3; session++) {
        forget();
        CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_DEVICE));
        CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONTEXT));
        CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_STREAM));
        kernels_on();
        launch(3, 1);
        CUDA(cudaStreamSynchronize(stream));
        flush();
        unsigned device = kinds[CUPTI_ACTIVITY_KIND_DEVICE], context = kinds[CUPTI_ACTIVITY_KIND_CONTEXT], streams = kinds[CUPTI_ACTIVITY_KIND_STREAM];
        cudaStream_t late;
        CUDA(cudaStreamCreate(&late));
        flush();
        kernels_off();
        CUPTI(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_DEVICE));
        CUPTI(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONTEXT));
        CUPTI(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_STREAM));
        flush();
        print("{\"q\":\"q3\",\"session\":%d,\"device\":%u,\"context\":%u,\"stream\":%u,\"streams_existing\":4,\"stream_after_create\":%u,\"kernels\":%zu}",
              session, device, context, streams, kinds[CUPTI_ACTIVITY_KIND_STREAM], kernels.size());
    }
}

// ---- q5: does the first disable stop the records of a graph?
static void first_disable(const char *order) {
    bool early = !strcmp(order, "early"), paired = !strcmp(order, "paired");
    if (early || paired) {
        attach();
        kernels_on();
        if (paired) kernels_off();
    }
    setup();
    cudaGraphExec_t exec = capture(336, 7);
    if (!early && !paired) attach();
    if (!early) kernels_on();
    for (int session = 1; session <= 3; session++) {
        forget();
        if (session > 1) kernels_on();
        step_us(exec, 100);
        flush();
        unsigned inside = count(7);
        kernels_off();
        forget();
        double after_us = step_us(exec, 100);
        launch(10, 8);
        CUDA(cudaStreamSynchronize(stream));
        flush();
        print("{\"q\":\"q5\",\"order\":\"%s\",\"session\":%d,\"inside\":%u,\"expected\":33600,\"graph_after_disable\":%u,"
              "\"eager_after_disable\":%u,\"step_us_after\":%.1f}", order, session, inside, count(7), count(8), after_us);
    }
}

// ---- q6: what does flushing from another thread cost the host?
static void flushing() {
    setup();
    cudaGraphExec_t exec = capture(336, 7);
    attach();
    kernels_on();
    step_us(exec, 200);
    const int periods[] = {0, 1000, 250, 50, 10, 1};
    for (int round = 0; round < 3; round++) {
        for (int period : periods) {
            std::atomic<bool> stop{false};
            std::vector<double> took;
            unsigned buffers = completed;
            std::thread flusher([&] {
                while (period && !stop) {
                    for (int slept = 0; slept < period && !stop; slept++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                    uint64_t begin = now_ns();
                    cuptiActivityFlushAll(0);
                    took.push_back((now_ns() - begin) / 1e3);
                }
            });
            uint64_t begin = now_ns();
            double median = step_us(exec, 500);
            double mean = (now_ns() - begin) / 1e3 / 500;
            stop = true;
            flusher.join();
            std::sort(took.begin(), took.end());
            print("{\"q\":\"q6\",\"round\":%d,\"flush_ms\":%d,\"step_us\":%.1f,\"mean_us\":%.1f,\"flushes\":%zu,\"flush_us_median\":%.1f,"
                  "\"flush_us_max\":%.1f,\"buffers\":%u}", round, period, median, mean, took.size(), took.empty() ? 0 : took[took.size() / 2],
                  took.empty() ? 0 : took.back(), completed - buffers);
            forget();
        }
    }
    kernels_off();
    flush();
    print("{\"q\":\"q6\",\"requested\":%u,\"completed\":%u,\"complete_threads\":%zu}", requested.load(), completed.load(), complete_threads.size());
}

// ---- q9: what do the calls cost, and what does each kind cost a step?
static void costs() {
    setup();
    cudaGraphExec_t exec = capture(336, 7);
    print("{\"q\":\"q9\",\"state\":\"no_call\",\"step_us\":%.1f}", step_us(exec, 400));
    uint64_t t0 = now_ns();
    CUPTI(cuptiSubscribe(&subscriber, on_call, nullptr));
    uint64_t t1 = now_ns();
    CUPTI(cuptiActivityRegisterCallbacks(request, complete));
    uint64_t t2 = now_ns();
    print("{\"q\":\"q9\",\"state\":\"attached\",\"subscribe_us\":%.1f,\"register_us\":%.1f,\"step_us\":%.1f}", (t1 - t0) / 1e3, (t2 - t1) / 1e3, step_us(exec, 400));
    for (int pair = 0; pair < 12; pair++) {
        uint64_t a = now_ns();
        kernels_on();
        uint64_t b = now_ns();
        double inside = pair < 2 ? step_us(exec, 200) : 0;
        uint64_t c = now_ns();
        kernels_off();
        uint64_t d = now_ns();
        flush();
        uint64_t e = now_ns();
        if (pair < 3 || pair == 11) print("{\"q\":\"q9\",\"pair\":%d,\"enable_us\":%.1f,\"step_us\":%.1f,\"disable_us\":%.1f,\"flush_us\":%.1f}", pair, (b - a) / 1e3, inside, (d - c) / 1e3, (e - d) / 1e3);
        forget();
    }
    print("{\"q\":\"q9\",\"state\":\"after_disable\",\"step_us\":%.1f}", step_us(exec, 400));
    struct Set { const char *name; std::vector<CUpti_ActivityKind> kinds; };
    const auto KERNEL = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
    const Set sets[] = {
        {"kernel", {KERNEL}},
        {"kernel,memcpy,memcpy2,memset", {KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMCPY2, CUPTI_ACTIVITY_KIND_MEMSET}},
        {"kernel,sync", {KERNEL, CUPTI_ACTIVITY_KIND_SYNCHRONIZATION}},
        {"kernel,overhead", {KERNEL, CUPTI_ACTIVITY_KIND_OVERHEAD}},
        {"kernel,device,context,stream", {KERNEL, CUPTI_ACTIVITY_KIND_DEVICE, CUPTI_ACTIVITY_KIND_CONTEXT, CUPTI_ACTIVITY_KIND_STREAM}},
        {"all", {KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMCPY2, CUPTI_ACTIVITY_KIND_MEMSET, CUPTI_ACTIVITY_KIND_SYNCHRONIZATION,
                 CUPTI_ACTIVITY_KIND_OVERHEAD, CUPTI_ACTIVITY_KIND_DEVICE, CUPTI_ACTIVITY_KIND_CONTEXT, CUPTI_ACTIVITY_KIND_STREAM}},
    };
    for (int round = 0; round < 3; round++) {
        for (auto &set : sets) {
            for (auto kind : set.kinds) CUPTI(cuptiActivityEnable(kind));
            double us = step_us(exec, 300);
            for (auto kind : set.kinds) CUPTI(cuptiActivityDisable(kind));
            flush();
            print("{\"q\":\"q9\",\"round\":%d,\"kinds\":\"%s\",\"step_us\":%.1f,\"kernels\":%zu,\"overheads\":%u,\"syncs\":%u}", round, set.name, us,
                  kernels.size(), kinds[CUPTI_ACTIVITY_KIND_OVERHEAD], kinds[CUPTI_ACTIVITY_KIND_SYNCHRONIZATION]);
            forget();
        }
    }
}

// ---- q4: work for an injected client to count (bare_client with BARE_ATTACH=inject)
static void workload() {
    setup();
    cudaGraphExec_t exec = capture(336, 7);
    for (int i = 0; i < 100; i++) CUDA(cudaGraphLaunch(exec, stream));
    launch(1000, 2);
    CUDA(cudaMemcpyAsync(data, data + 512, 1024, cudaMemcpyDeviceToDevice, stream));
    CUDA(cudaStreamSynchronize(stream));
    print("{\"q\":\"q4\",\"kernels\":%d,\"memsets\":1,\"memcpys\":1}", 2 + 100 * 336 + 1000);
}

int main(int argc, char **argv) {
    std::string mode = argc > 1 ? argv[1] : "";
    uint32_t version = 0;
    if (mode != "workload" && cuptiGetVersion(&version) == CUPTI_SUCCESS) print("{\"mode\":\"%s\",\"cupti\":%u}", mode.c_str(), version);
    if (mode == "marks") marks();
    else if (mode == "h8") h8();
    else if (mode == "canary") canary();
    else if (mode == "late_kinds") late_kinds();
    else if (mode == "first_disable") first_disable(argc > 2 ? argv[2] : "late");
    else if (mode == "flush") flushing();
    else if (mode == "costs") costs();
    else if (mode == "workload") workload();
    else return fprintf(stderr, "usage: probe marks|h8|canary|late_kinds|first_disable ORDER|flush|costs|workload\n"), 2;
    return 0;
}
