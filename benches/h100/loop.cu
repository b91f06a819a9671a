// The host-bound loop without Python: 336 small kernels a step, eager or as one CUDA graph, waited for each step.
//
//   loop --plan idle:graph:4x300,window:graph:8x300 [--kernels 336] [--json FILE]
//
// The plan and the JSON line are loop.py's. Build it with -cudart shared or static: cudaProfilerStart differs in how it
// can be seen from outside.
#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

// cuda_profiler_api.h comes in a package of its own, which is not everywhere.
extern "C" cudaError_t cudaProfilerStart(void);
extern "C" cudaError_t cudaProfilerStop(void);

#define CUDA(call) do { cudaError_t e_ = (call); if (e_ != cudaSuccess) { \
    fprintf(stderr, "loop: %s: %s\n", #call, cudaGetErrorString(e_)); exit(1); } } while (0)

__global__ void add_one(float *data) { data[threadIdx.x] += 1.0f; }
template <typename T> __global__ void scale(T *data, T factor) { data[threadIdx.x] *= factor; }

static float *data;
static cudaStream_t stream;
static cudaGraphExec_t exec;
static int kernels = 336;

static double now_us() {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static void eager() {
    for (int i = 0; i < kernels; i++) {
        if (i % 2) scale<float><<<2, 64, 0, stream>>>(data, 0.5f);
        else add_one<<<1, 32, 0, stream>>>(data);
    }
}

static void step(bool graph) {
    if (graph) CUDA(cudaGraphLaunch(exec, stream));
    else eager();
    CUDA(cudaStreamSynchronize(stream));
}

int main(int argc, char **argv) {
    std::string plan, json;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--plan")) plan = argv[i + 1];
        else if (!strcmp(argv[i], "--kernels")) kernels = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--json")) json = argv[i + 1];
        else return fprintf(stderr, "loop: unknown option `%s`\n", argv[i]), 2;
    }
    CUDA(cudaMalloc(&data, 4096));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMemsetAsync(data, 0, 4096, stream));
    step(false);
    cudaGraph_t graph;
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    eager();
    CUDA(cudaStreamEndCapture(stream, &graph));
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 50; i++) step(true);
    long long launched = 51LL * kernels, in_windows = 0;

    std::string phases;
    for (size_t at = 0; at < plan.size();) {
        size_t end = std::min(plan.find(',', at), plan.size());
        char kind[16], mode[16];
        int rounds, steps;
        if (sscanf(plan.substr(at, end - at).c_str(), "%15[^:]:%15[^:]:%dx%d", kind, mode, &rounds, &steps) != 4) {
            return fprintf(stderr, "loop: bad plan `%s`\n", plan.c_str()), 2;
        }
        at = end + 1;
        bool window = !strcmp(kind, "window"), graphed = !strcmp(mode, "graph");
        double begin = now_us();
        if (window) CUDA(cudaProfilerStart());
        double start_us = now_us() - begin;
        std::string medians;
        std::vector<double> times((size_t)steps);
        for (int r = 0; r < rounds; r++) {
            for (auto &time : times) {
                double before = now_us();
                step(graphed);
                time = now_us() - before;
            }
            std::nth_element(times.begin(), times.begin() + steps / 2, times.end());
            char text[32];
            snprintf(text, sizeof text, "%s%.3f", r ? "," : "", times[steps / 2]);
            medians += text;
        }
        begin = now_us();
        if (window) CUDA(cudaProfilerStop());
        double stop_us = now_us() - begin;
        long long count = (long long)rounds * steps * kernels;
        launched += count;
        in_windows += window ? count : 0;
        char text[256];
        snprintf(text, sizeof text, "%s{\"kind\":\"%s\",\"mode\":\"%s\",\"steps\":%d,\"kernels\":%lld,\"start_us\":%.1f,\"stop_us\":%.1f,\"rounds_us\":[",
                 phases.empty() ? "" : ",", kind, mode, rounds * steps, count, start_us, stop_us);
        phases += text + medians + "]}";
    }
    CUDA(cudaDeviceSynchronize());
    std::string line = "{\"pid\":" + std::to_string(getpid()) + ",\"per_step\":" + std::to_string(kernels) + ",\"phases\":[" + phases +
                       "],\"kernels\":" + std::to_string(launched) + ",\"kernels_in_windows\":" + std::to_string(in_windows) + "}";
    if (!json.empty()) {
        FILE *file = fopen(json.c_str(), "w");
        if (!file || fprintf(file, "%s\n", line.c_str()) < 0 || fclose(file)) return fprintf(stderr, "loop: cannot write `%s`\n", json.c_str()), 1;
    }
    puts(line.c_str());
    return 0;
}
