// The host-bound loop without Python: 336 small kernels a step, eager or as one CUDA graph, waited for each step.
//
//   loop --plan idle:graph:4x300,window:graph:8x300 | --serve [--kernels 336]
//
// The plan, --serve and the JSON lines are loop.py's. Build it with -cudart shared or static: cudaProfilerStart differs in how it
// can be seen from outside.
#include <cuda_runtime.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
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

struct Totals { long long launched = 0, in_windows = 0; };

// Runs one KIND:MODE:ROUNDSxSTEPS and describes it in JSON; empty where it can't be read.
static std::string run_phase(const std::string &phase, Totals &totals) {
    char kind[16], mode[16], text[256];
    int rounds, steps;
    if (sscanf(phase.c_str(), "%15[^:]:%15[^:]:%dx%d", kind, mode, &rounds, &steps) != 4 || steps < 1) return "";
    bool window = !strcmp(kind, "window"), graphed = !strcmp(mode, "graph");
    double begin = now_us();
    if (window) CUDA(cudaProfilerStart());
    double start_us = now_us() - begin;
    std::string medians;
    double before_rounds = now_us();
    std::vector<double> times((size_t)steps);
    for (int r = 0; r < rounds; r++) {
        for (auto &time : times) {
            double before = now_us();
            step(graphed);
            time = now_us() - before;
        }
        std::nth_element(times.begin(), times.begin() + steps / 2, times.end());
        snprintf(text, sizeof text, "%s%.3f", r ? "," : "", times[steps / 2]);
        medians += text;
    }
    double mean_us = (now_us() - before_rounds) / rounds / steps;
    begin = now_us();
    if (window) CUDA(cudaProfilerStop());
    double stop_us = now_us() - begin;
    long long count = (long long)rounds * steps * kernels;
    totals.launched += count;
    totals.in_windows += window ? count : 0;
    snprintf(text, sizeof text,
             "{\"kind\":\"%s\",\"mode\":\"%s\",\"steps\":%d,\"kernels\":%lld,\"start_us\":%.1f,\"stop_us\":%.1f,\"mean_us\":%.3f,"
             "\"rounds_us\":[",
             kind, mode, rounds * steps, count, start_us, stop_us, mean_us);
    return text + medians + "]}";
}

static void prepare(Totals &totals) {
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
    totals.launched = 51LL * kernels;
}

int main(int argc, char **argv) {
    std::string plan;
    bool serve = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--serve")) serve = true;
        else if (!strcmp(argv[i], "--plan") && i + 1 < argc) plan = argv[++i];
        else if (!strcmp(argv[i], "--kernels") && i + 1 < argc) kernels = atoi(argv[++i]);
        else return fprintf(stderr, "loop: unknown option `%s`\n", argv[i]), 2;
    }
    Totals totals;
    prepare(totals);
    if (serve) puts("{\"ready\":true}"), fflush(stdout);

    std::string phases, phase;
    std::istringstream planned(plan);
    while (serve ? (bool)std::getline(std::cin, phase) : (bool)std::getline(planned, phase, ',')) {
        std::string line = run_phase(phase, totals);
        if (line.empty()) return fprintf(stderr, "loop: bad phase `%s`, expected KIND:MODE:ROUNDSxSTEPS\n", phase.c_str()), 2;
        if (serve) puts(line.c_str()), fflush(stdout);
        else phases += (phases.empty() ? "" : ",") + line;
    }
    CUDA(cudaDeviceSynchronize());
    printf("{\"pid\":%d,\"per_step\":%d,\"phases\":[%s],\"kernels\":%lld,\"kernels_in_windows\":%lld}\n", (int)getpid(), kernels,
           phases.c_str(), totals.launched, totals.in_windows);
    return 0;
}
