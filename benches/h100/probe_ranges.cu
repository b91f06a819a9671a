// How a kernel can be told the range it was launched or captured in, and what that costs. One JSON object a line.
//
//   probe_ranges node_ids|captured|launched
//
// node_ids: what graph_node_id says of a node, for execs made twice, updated, of child graphs and clones, with CUPTI
//           attached only after the capture. captured: the cost of asking a capture how far it is. launched: the cost a
//           step of each way to know a kernel's range while records are on.
#include <cuda.h>
#include <cuda_runtime.h>
#include <cupti.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#define CUDA(call) do { cudaError_t e_ = (call); if (e_ != cudaSuccess) { \
    printf("{\"error\":\"%s: %s\",\"line\":%d}\n", #call, cudaGetErrorString(e_), __LINE__); fflush(stdout); _Exit(1); } } while (0)
#define CUPTI(call) do { CUptiResult r_ = (call); if (r_ != CUPTI_SUCCESS) \
    printf("{\"refused\":\"%s\",\"code\":%d}\n", #call, (int)r_); } while (0)

struct Kernel { uint32_t correlation, phase, graph; uint64_t node; };
static std::mutex records_lock;
static std::vector<Kernel> kernels;
static std::vector<CUpti_ActivityExternalCorrelation> externals;
static uint64_t api_records, callbacks;

static void CUPTIAPI request(uint8_t **buffer, size_t *size, size_t *max_records) {
    *buffer = (uint8_t *)calloc(1, 1 << 20), *size = 1 << 20, *max_records = 0;
}
static void CUPTIAPI complete(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    std::lock_guard<std::mutex> hold(records_lock);
    CUpti_Activity *record = nullptr;
    while (valid && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            auto *k = (CUpti_ActivityKernel10 *)record;
            kernels.push_back({k->correlationId, (uint32_t)k->gridX, k->graphId, k->graphNodeId});
        } else if (record->kind == CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION) {
            externals.push_back(*(CUpti_ActivityExternalCorrelation *)record);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_DRIVER || record->kind == CUPTI_ACTIVITY_KIND_RUNTIME) {
            api_records++;
        }
    }
    free(buffer);
}
static void CUPTIAPI on_call(void *, CUpti_CallbackDomain, CUpti_CallbackId, const void *) { callbacks++; }

static CUpti_SubscriberHandle subscriber;
static void attach() {
    CUPTI(cuptiSubscribe(&subscriber, on_call, nullptr));
    CUPTI(cuptiActivityRegisterCallbacks(request, complete));
    CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL));
}
static std::vector<Kernel> taken() {
    CUDA(cudaDeviceSynchronize());
    CUPTI(cuptiActivityFlushAll(0));
    std::lock_guard<std::mutex> hold(records_lock);
    return std::exchange(kernels, {});
}

__global__ void tiny(float *data) { data[threadIdx.x] += 1.0f; }
static float *data;
static cudaStream_t stream;
static void setup() {
    CUDA(cudaMalloc(&data, 4096));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    tiny<<<1, 32, 0, stream>>>(data);
    CUDA(cudaStreamSynchronize(stream));
}
static double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
static double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

// ---- node_ids
static cudaGraph_t capture(int nodes, int first_phase) {
    cudaGraph_t graph;
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) {
        // Other nodes in between: their numbers must not shift the kernels'.
        if (i % 4 == 2) CUDA(cudaMemsetAsync(data, 0, 4096, stream));
        tiny<<<first_phase + i, 32, 0, stream>>>(data);
    }
    CUDA(cudaStreamEndCapture(stream, &graph));
    return graph;
}
static cudaGraphExec_t instantiate(cudaGraph_t graph) {
    cudaGraphExec_t exec;
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    return exec;
}
static void show_nodes(const char *what, cudaGraph_t graph) {
    size_t count = 0;
    CUDA(cudaGraphGetNodes(graph, nullptr, &count));
    std::vector<cudaGraphNode_t> nodes(count);
    CUDA(cudaGraphGetNodes(graph, nodes.data(), &count));
    printf("{\"q\":\"node_ids\",\"source\":\"%s\",\"nodes\":[", what);
    for (size_t i = 0; i < count; i++) {
        uint64_t id = 0;
        CUptiResult result = cuptiGetGraphNodeId((CUgraphNode)nodes[i], &id);
        cudaGraphNodeType type;
        CUDA(cudaGraphNodeGetType(nodes[i], &type));
        cudaKernelNodeParams params{};
        if (type == cudaGraphNodeTypeKernel) CUDA(cudaGraphKernelNodeGetParams(nodes[i], &params));
        printf("%s{\"at\":%zu,\"type\":%d,\"phase\":%u,\"id\":%llu,\"upper\":%llu,\"lower\":%llu,\"code\":%d}", i ? "," : "", i,
               (int)type, params.gridDim.x, (unsigned long long)id, (unsigned long long)(id >> 32),
               (unsigned long long)(id & 0xffffffff), (int)result);
    }
    printf("]}\n");
}
static void show_replay(const char *what, cudaGraphExec_t exec) {
    uint32_t exec_id = 0;
    CUPTI(cuptiGetGraphExecId((CUgraphExec)exec, &exec_id));
    taken();
    CUDA(cudaGraphLaunch(exec, stream));
    auto replay = taken();
    std::sort(replay.begin(), replay.end(), [](const Kernel &a, const Kernel &b) { return a.phase < b.phase; });
    printf("{\"q\":\"node_ids\",\"replay\":\"%s\",\"exec_id\":%u,\"kernels\":[", what, exec_id);
    for (size_t i = 0; i < replay.size(); i++)
        printf("%s{\"phase\":%u,\"graph_id\":%u,\"upper\":%llu,\"lower\":%llu}", i ? "," : "", replay[i].phase, replay[i].graph,
               (unsigned long long)(replay[i].node >> 32), (unsigned long long)(replay[i].node & 0xffffffff));
    printf("]}\n");
    fflush(stdout);
}
static void node_ids() {
    setup();
    cudaGraph_t one = capture(8, 10), two = capture(8, 30);
    cudaGraphExec_t first = instantiate(one), second = instantiate(one), other = instantiate(two);
    cudaGraph_t kept = capture(8, 50);
    cudaGraphExec_t of_destroyed = instantiate(kept);
    CUDA(cudaGraphDestroy(kept));  // as torch does once it has the exec
    attach();
    show_nodes("one", one);
    show_nodes("two", two);
    show_replay("first of one", first);
    show_replay("second of one", second);
    show_replay("of two", other);
    show_replay("source destroyed", of_destroyed);

    cudaGraph_t changed = capture(8, 70);
    cudaGraphExecUpdateResultInfo info{};
    printf("{\"q\":\"node_ids\",\"update\":%d}\n", (int)cudaGraphExecUpdate(first, changed, &info));
    show_nodes("changed", changed);
    show_replay("first, updated by changed", first);

    cudaGraph_t clone;
    CUDA(cudaGraphClone(&clone, two));
    show_nodes("clone of two", clone);
    show_replay("of the clone", instantiate(clone));

    cudaGraph_t parent;
    cudaGraphNode_t child_one, child_two;
    CUDA(cudaGraphCreate(&parent, 0));
    CUDA(cudaGraphAddChildGraphNode(&child_one, parent, nullptr, 0, one));
    CUDA(cudaGraphAddChildGraphNode(&child_two, parent, &child_one, 1, two));
    show_nodes("parent of one and two", parent);
    show_replay("of the parent", instantiate(parent));

    // A child with a child of its own before another: whose nodes come first? The phases tell, and an update keeps them.
    auto nested = [&](int phase) {
        cudaGraph_t outer = capture(4, phase), inner = capture(2, phase + 10), last = capture(3, phase + 20), top;
        cudaGraphNode_t inner_node, outer_node, last_node;
        CUDA(cudaGraphAddChildGraphNode(&inner_node, outer, nullptr, 0, inner));
        CUDA(cudaGraphCreate(&top, 0));
        CUDA(cudaGraphAddChildGraphNode(&outer_node, top, nullptr, 0, outer));
        CUDA(cudaGraphAddChildGraphNode(&last_node, top, &outer_node, 1, last));
        return top;
    };
    cudaGraph_t top = nested(100);
    cudaGraphExec_t of_top = instantiate(top);
    show_nodes("top of a nested child and another", top);
    show_replay("nested", of_top);
    cudaGraphExecUpdateResultInfo nested_update;
    printf("{\"q\":\"node_ids\",\"nested_update\":%d}\n", (int)cudaGraphExecUpdate(of_top, nested(200), &nested_update));
    show_replay("nested, updated", of_top);
    cudaGraph_t nested_clone;
    CUDA(cudaGraphClone(&nested_clone, top));
    show_replay("clone of nested", instantiate(nested_clone));

    // A graph launched within a capture becomes a child graph between the other nodes.
    cudaGraph_t launching;
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    tiny<<<300, 32, 0, stream>>>(data);
    cudaError_t launched_within = cudaGraphLaunch(second, stream);
    tiny<<<301, 32, 0, stream>>>(data);
    cudaError_t ended = cudaStreamEndCapture(stream, &launching);
    printf("{\"q\":\"node_ids\",\"launched_within\":%d,\"ended\":%d}\n", (int)launched_within, (int)ended);
    if (ended == cudaSuccess) {
        show_nodes("launching another", launching);
        show_replay("launching another", instantiate(launching));
    }

    // The driver's own id of an executable, from 13.1 on: is it the one in the records?
    auto *exec_id = (CUresult (*)(CUgraphExec, unsigned *))dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuGraphExecGetId");
    unsigned by_driver = 0;
    uint32_t by_cupti = 0;
    int asked = exec_id ? (int)exec_id((CUgraphExec)of_top, &by_driver) : -1;
    CUPTI(cuptiGetGraphExecId((CUgraphExec)of_top, &by_cupti));
    printf("{\"q\":\"node_ids\",\"cuGraphExecGetId\":%d,\"by_driver\":%u,\"by_cupti\":%u}\n", asked, by_driver, by_cupti);

    cudaGraph_t after = capture(8, 90);  // captured while attached
    show_nodes("captured while attached", after);
    show_replay("captured while attached", instantiate(after));
}

// ---- captured
static void captured() {
    setup();
    // v2, which drivers since 11.3 have; the headers of 13 only declare v3.
    using CaptureInfo = CUresult (*)(CUstream, CUstreamCaptureStatus *, cuuint64_t *, CUgraph *, const CUgraphNode **, size_t *);
    auto *capture_info = (CaptureInfo)dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuStreamGetCaptureInfo_v2");
    auto *graph_nodes = (decltype(&cuGraphGetNodes))dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuGraphGetNodes");
    struct Way { const char *name; int every; bool count; };
    for (Way way : {Way{"plain", 0, false}, Way{"info", 5, false}, Way{"info and count", 5, true}, Way{"plain", 0, false}}) {
        std::vector<double> whole, each;
        size_t last_count = 0, last_depends = 0;
        for (int round = 0; round < 15; round++) {
            cudaGraph_t graph;
            double begin = now_us(), asked = 0;
            CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
            for (int i = 0; i < 2500; i++) {
                tiny<<<1, 32, 0, stream>>>(data);
                if (way.every && i % way.every == 0) {
                    double from = now_us();
                    CUstreamCaptureStatus status;
                    cuuint64_t id;
                    CUgraph of = nullptr;
                    const CUgraphNode *depends;
                    capture_info(stream, &status, &id, &of, &depends, &last_depends);
                    if (way.count) graph_nodes(of, nullptr, &last_count);
                    asked += now_us() - from;
                }
            }
            CUDA(cudaStreamEndCapture(stream, &graph));
            whole.push_back(now_us() - begin);
            if (way.every) each.push_back(1e3 * asked / (2500 / way.every));
            CUDA(cudaGraphDestroy(graph));
        }
        printf("{\"q\":\"captured\",\"way\":\"%s\",\"nodes\":2500,\"asked_every\":%d,\"capture_us\":%.1f,\"ask_ns\":%.1f,"
               "\"last_count\":%zu,\"last_depends\":%zu}\n", way.name, way.every, median(whole), each.empty() ? 0 : median(each),
               last_count, last_depends);
        fflush(stdout);
    }
}

// ---- launched
static void launched() {
    setup();
    auto *version = (CUresult (*)(int *))dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuDriverGetVersion");
    auto mark = [&] { int ignored; version(&ignored); };
    auto nothing = [] {};
    attach();
    const int launches = 336, a_range = 12, steps = 60;
    struct Way { const char *name; std::function<void()> on, off, push, pop; };
    auto external = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;
    uint64_t next = 1;
    auto driver = [](CUpti_driver_api_trace_cbid id, uint8_t on) { CUPTI(cuptiActivityEnableDriverApi(id, on)); };
    auto runtime = [](CUpti_runtime_api_trace_cbid id, uint8_t on) { CUPTI(cuptiActivityEnableRuntimeApi(id, on)); };
    auto callback = [&](uint32_t on) {
        CUPTI(cuptiEnableCallback(on, subscriber, CUPTI_CB_DOMAIN_RUNTIME_API, CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000));
    };
    std::vector<Way> ways = {
        {"no ranges", nothing, nothing, nothing, nothing},
        {"marks", [&] { CUPTI(cuptiEnableCallback(1, subscriber, CUPTI_CB_DOMAIN_DRIVER_API, CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion)); },
         [&] { CUPTI(cuptiEnableCallback(0, subscriber, CUPTI_CB_DOMAIN_DRIVER_API, CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion)); }, mark, mark},
        {"external correlation", [] { CUPTI(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION)); },
         [] { CUPTI(cuptiActivityDisable(CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION)); },
         [&] { cuptiActivityPushExternalCorrelationId(external, next++); },
         [&] { uint64_t last; cuptiActivityPopExternalCorrelationId(external, &last); }},
        {"callback a launch", [&] { callback(1); }, [&] { callback(0); }, nothing, nothing},
        // Last: RUNTIME and DRIVER records can't be turned off again without harm (hazard H2).
        {"runtime record a launch", [&] { runtime(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, 1); },
         [&] { runtime(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, 0); }, nothing, nothing},
        {"driver record a launch", [&] { driver(CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel, 1); },
         [&] { driver(CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel, 0); }, nothing, nothing},
    };
    std::vector<std::vector<double>> times(ways.size());
    std::vector<uint64_t> rows(ways.size());
    std::vector<std::string> notes(ways.size());
    for (int block = 0; block < 12; block++) {
        for (size_t at = 0; at < ways.size(); at++) {
            size_t which = block % 2 ? ways.size() - 1 - at : at;
            Way &way = ways[which];
            // The two that leave something behind have blocks of their own, the last ones.
            if ((which >= 4) != (block >= 8)) continue;
            taken();
            { std::lock_guard<std::mutex> hold(records_lock); externals.clear(), api_records = 0, callbacks = 0; }
            way.on();
            for (int step = 0; step < steps; step++) {
                double begin = now_us();
                for (int i = 0; i < launches; i++) {
                    if (i % a_range == 0) way.push();
                    tiny<<<1 + i / a_range, 32, 0, stream>>>(data);
                    if (i % a_range == a_range - 1) way.pop();
                }
                CUDA(cudaStreamSynchronize(stream));
                times[which].push_back(now_us() - begin);
            }
            way.off();
            auto records = taken();
            std::lock_guard<std::mutex> hold(records_lock);
            // Does each kernel find its range? External ids count ranges, the grid says which one it was.
            size_t right = 0;
            for (const Kernel &k : records)
                for (const auto &e : externals)
                    if (e.correlationId == k.correlation) { right += (e.externalId - 1) % (launches / a_range) == k.phase - 1; break; }
            rows[which] = records.size();
            char note[160];
            snprintf(note, sizeof note, "\"externals\":%zu,\"right\":%zu,\"api_records\":%llu,\"callbacks\":%llu", externals.size(), right,
                     (unsigned long long)api_records, (unsigned long long)callbacks);
            notes[which] = note;
            if (which == 2) next = 1;
        }
    }
    for (size_t which = 0; which < ways.size(); which++)
        if (!times[which].empty())
            printf("{\"q\":\"launched\",\"way\":\"%s\",\"step_us\":%.1f,\"steps\":%zu,\"kernels_last_turn\":%llu,%s}\n", ways[which].name,
                   median(times[which]), times[which].size(), (unsigned long long)rows[which], notes[which].c_str());
}

int main(int argc, char **argv) {
    std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "node_ids") node_ids();
    else if (mode == "captured") captured();
    else if (mode == "launched") launched();
    else return fprintf(stderr, "usage: probe_ranges node_ids|captured|launched\n"), 2;
    fflush(stdout);
    _Exit(0);
}
