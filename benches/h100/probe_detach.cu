// What a graph launch costs after a capture, and what brings it back. Prints one JSON object a line.
//
//   probe_detach residual LIBCUPTI              a launch and a step, stage by stage, of graphs made before and after
//   probe_detach bursts LIBCUPTI COUNT WAY      COUNT windows of 20 ms, 80 ms between them; WAY: disable|finalize
//   probe_detach beside LIBCUPTI COUNT WAY      the same by a thread of its own, while two threads launch and launch
//
// The load: one graph of 336 small kernels, launched and waited for each step, as LLM decode does. CUPTI is loaded by
// path, so that one program asks several versions.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#define CUDA(call) do { cudaError_t e_ = (call); if (e_ != cudaSuccess) { \
    printf("{\"error\":\"%s: %s\",\"line\":%d}\n", #call, cudaGetErrorString(e_), __LINE__); fflush(stdout); exit(1); } } while (0)

static const int NODES = 336, CONCURRENT_KERNEL = 10;

static double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ---- CUPTI, by name
static int (*version)(uint32_t *), (*subscribe)(void **, void *, void *), (*unsubscribe)(void *), (*finalize_)(),
    (*enable)(int), (*disable)(int), (*flush)(uint32_t), (*register_callbacks)(void *, void *),
    (*next_record)(uint8_t *, size_t, int **), (*enable_domain)(uint32_t, void *, int);

template <class T> static void find(void *library, T &function, const char *name) {
    function = (T)dlsym(library, name);
    if (!function) { printf("{\"error\":\"no %s\"}\n", name); exit(1); }
}

static void say(const char *call, int status) {
    if (status) printf("{\"refused\":\"%s\",\"code\":%d}\n", call, status);
}
#define CUPTI(call) say(#call, call)

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) { printf("{\"error\":\"%s\"}\n", dlerror()); exit(1); }
    find(library, version, "cuptiGetVersion"), find(library, subscribe, "cuptiSubscribe");
    find(library, unsubscribe, "cuptiUnsubscribe"), find(library, finalize_, "cuptiFinalize");
    find(library, enable, "cuptiActivityEnable"), find(library, disable, "cuptiActivityDisable");
    find(library, flush, "cuptiActivityFlushAll"), find(library, next_record, "cuptiActivityGetNextRecord");
    find(library, register_callbacks, "cuptiActivityRegisterCallbacks"), find(library, enable_domain, "cuptiEnableDomain");
}

static std::atomic<uint64_t> recorded{0};
static void request(uint8_t **buffer, size_t *size, size_t *records) {
    *buffer = (uint8_t *)calloc(1, *size = 1 << 20), *records = 0;
}
static void complete(void *, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    for (int *record = nullptr; valid && !next_record(buffer, valid, &record);) recorded += *record == CONCURRENT_KERNEL;
    free(buffer);
}
static void callback(void *, uint32_t, uint32_t, const void *) {}

static void *subscriber;
static void attach() {
    CUPTI(subscribe(&subscriber, (void *)callback, nullptr));
    CUPTI(register_callbacks((void *)request, (void *)complete));
    CUPTI(enable(CONCURRENT_KERNEL));
}

// ---- the load
__global__ void tiny(float *data) { data[threadIdx.x] += 1.0f; }
static float *data;
static cudaStream_t stream;

static cudaGraph_t record() {
    cudaGraph_t graph;
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < NODES; i++) tiny<<<1, 32, 0, stream>>>(data);
    CUDA(cudaStreamEndCapture(stream, &graph));
    return graph;
}
static cudaGraphExec_t instantiate(cudaGraph_t graph) {
    cudaGraphExec_t exec;
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    return exec;
}

struct Cost { double launch, step; };
static Cost step(cudaGraphExec_t exec) {
    double start = now_us();
    CUDA(cudaGraphLaunch(exec, stream));
    double launched = now_us();
    CUDA(cudaStreamSynchronize(stream));
    return {launched - start, now_us() - start};
}
static double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}
static void say_cost(const char *stage, const char *graph, cudaGraphExec_t exec, int steps = 600) {
    std::vector<double> launch, whole;
    for (int i = 0; i < 50; i++) step(exec);
    for (int i = 0; i < steps; i++) {
        Cost cost = step(exec);
        launch.push_back(cost.launch), whole.push_back(cost.step);
    }
    printf("{\"stage\":\"%s\",\"graph\":\"%s\",\"launch_us\":%.2f,\"step_us\":%.2f}\n", stage, graph, median(launch), median(whole));
    fflush(stdout);
}

static void residual() {
    cudaGraph_t graph = record();
    cudaGraphExec_t exec = instantiate(graph);
    say_cost("unprofiled", "before", exec), say_cost("unprofiled", "before", exec);
    attach();
    say_cost("recording", "before", exec);
    cudaGraphExec_t within = instantiate(record());
    say_cost("recording", "made while recording", within);
    CUPTI(disable(CONCURRENT_KERNEL)), CUPTI(flush(0));
    auto all = [&](const char *stage) {
        say_cost(stage, "before", exec), say_cost(stage, "made while recording", within);
        cudaGraphExec_t again = instantiate(graph), fresh = instantiate(record());
        say_cost(stage, "the same, instantiated now", again), say_cost(stage, "captured now", fresh);
        cudaGraphExecUpdateResultInfo info;
        CUDA(cudaGraphExecUpdate(exec, graph, &info));
        say_cost(stage, "before, updated now", exec);
        CUDA(cudaGraphExecDestroy(again));
        CUDA(cudaGraphExecDestroy(fresh));
    };
    all("disabled");
    for (int kind = 1; kind < 64; kind++) disable(kind);
    for (int domain = 1; domain <= 4; domain++) enable_domain(0, subscriber, domain);
    say_cost("all kinds and domains off", "before", exec);
    CUPTI(unsubscribe(subscriber));
    all("unsubscribed");
    std::this_thread::sleep_for(std::chrono::seconds(1));
    say_cost("unsubscribed, a second later", "before", exec);
    CUPTI(finalize_());
    all("finalized");
}

// Exactly the kernels of each window, and what the steps between them cost.
static void bursts(int count, bool finalizes) {
    cudaGraphExec_t exec = instantiate(record());
    say_cost("unprofiled", "before", exec);
    uint64_t launched = 0, wrong = 0, before = 0;
    std::vector<double> inside, between, first, on, off;
    bool attached = false;
    for (int window = 0; window < count; window++) {
        double start = now_us();
        if (!attached) attach(), attached = true;
        else CUPTI(enable(CONCURRENT_KERNEL));
        on.push_back(now_us() - start);
        uint64_t steps = 0;
        for (double end = now_us() + 20e3; now_us() < end; steps++) inside.push_back(step(exec).step);
        start = now_us();
        CUPTI(disable(CONCURRENT_KERNEL)), CUPTI(flush(0));
        if (finalizes) CUPTI(unsubscribe(subscriber)), CUPTI(finalize_()), attached = false;
        off.push_back(now_us() - start);
        uint64_t seen = recorded;
        launched += steps * NODES, wrong += seen - before != steps * NODES, before = seen;
        for (double end = now_us() + 80e3, is_first = 1; now_us() < end; is_first = 0)
            (is_first ? first : between).push_back(step(exec).step);
    }
    if (!finalizes) CUPTI(flush(1));
    printf("{\"windows\":%d,\"finalizes\":%d,\"launched\":%llu,\"recorded\":%llu,\"windows_wrong\":%llu,\"inside_us\":%.2f,"
           "\"between_us\":%.2f,\"first_after_us\":%.2f,\"on_us\":%.1f,\"off_us\":%.1f}\n",
           count, finalizes, (unsigned long long)launched, (unsigned long long)recorded.load(), (unsigned long long)wrong,
           median(inside), median(between), median(first), median(on), median(off));
}

// Nobody stops launching for it: what an injected library does. Exact counts can't be told then.
static void beside(int count, bool finalizes) {
    cudaGraphExec_t exec = instantiate(record());
    say_cost("unprofiled", "before", exec);
    std::atomic<bool> ended{false}, is_open{false};
    std::atomic<uint64_t> other{0};
    std::vector<double> inside, between, slow;
    std::thread second([&] {
        cudaStream_t own;
        CUDA(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
        for (; !ended; other++) {
            for (int i = 0; i < 20; i++) tiny<<<1, 32, 0, own>>>(data);
            CUDA(cudaStreamSynchronize(own));
        }
    });
    std::thread launcher([&] {
        while (!ended) {
            bool was_open = is_open;
            double cost = step(exec).step;
            (was_open ? inside : between).push_back(cost);
            if (cost > 2000) slow.push_back(cost);
        }
    });
    std::vector<double> on, off;
    bool attached = false;
    auto sleep = [](int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); };
    for (int window = 0; window < count; window++) {
        double start = now_us();
        is_open = true;
        if (!attached) attach(), attached = true;
        else CUPTI(enable(CONCURRENT_KERNEL));
        on.push_back(now_us() - start);
        sleep(20);
        start = now_us();
        CUPTI(disable(CONCURRENT_KERNEL)), CUPTI(flush(0));
        sleep(5);
        CUPTI(flush(0));
        if (finalizes) CUPTI(unsubscribe(subscriber)), CUPTI(finalize_()), attached = false;
        off.push_back(now_us() - start);
        is_open = false;
        sleep(80);
    }
    ended = true;
    launcher.join(), second.join();
    if (!finalizes) CUPTI(flush(1));
    printf("{\"windows\":%d,\"finalizes\":%d,\"recorded\":%llu,\"steps_inside\":%zu,\"steps_between\":%zu,\"other_steps\":%llu,"
           "\"inside_us\":%.2f,\"between_us\":%.2f,\"longer_than_2ms\":%zu,\"longest_us\":%.0f,\"on_us\":%.1f,\"off_us\":%.1f}\n",
           count, finalizes, (unsigned long long)recorded.load(), inside.size(), between.size(),
           (unsigned long long)other.load(), median(inside), median(between), slow.size(),
           slow.empty() ? 0 : *std::max_element(slow.begin(), slow.end()), median(on), median(off));
}

int main(int count, char **words) {
    if (count < 3) { fprintf(stderr, "usage: probe_detach residual|bursts|beside LIBCUPTI [COUNT disable|finalize]\n"); return 2; }
    load(words[2]);
    uint32_t api = 0;
    version(&api);
    printf("{\"libcupti\":\"%s\",\"api\":%u}\n", strrchr(words[2], '/') + 1, api);
    CUDA(cudaMalloc(&data, 4096));
    CUDA(cudaMemset(data, 0, 4096));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (!strcmp(words[1], "residual")) residual();
    else (strcmp(words[1], "beside") ? bursts : beside)(count > 3 ? atoi(words[3]) : 20, count > 4 && !strcmp(words[4], "finalize"));
    CUDA(cudaDeviceSynchronize());
    printf("{\"ended\":\"well\"}\n");
    return 0;
}
