// Kernels whose use of the hardware is known: a copy at DRAM speed, reads that stay in L2, tensor cores, FMA, and a tiny one.
//
//   known [--seconds 2 | --rounds N] [--graph] [--short] [--only copy,tensor]
//
// Runs them round after round, in one graph a round with --graph, and prints one line of JSON: rounds, and of each kernel
// the bytes that it must move, its FLOP, and its time alone by events. With --short each takes some microseconds, as in LLM
// decode, and a round has 16 of each: the copies walk through more memory than the L2 cache holds.
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define CUDA(call) do { cudaError_t e_ = (call); if (e_ != cudaSuccess) { \
    fprintf(stderr, "known: %s: %s\n", #call, cudaGetErrorString(e_)); exit(1); } } while (0)

static const size_t COPY_BYTES = 512ull << 20, PART_BYTES = 64ull << 20, L2_BYTES = 8ull << 20;
static const int SHORT_TIMES = 16, BLOCKS = 132 * 8, THREADS = 256;

__global__ void known_copy(const float4 *from, float4 *to, size_t count) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) to[i] = from[i];
}

__global__ void known_l2(const float4 *from, float *to, size_t count, int rounds) {
    float sum = 0;
    for (int round = 0; round < rounds; round++)
        for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
            float4 v = __ldcg(&from[i]);
            sum += v.x + v.y + v.z + v.w;
        }
    if (sum == 12345.f) to[0] = sum;
}

__global__ void known_fma(float *to, int rounds) {
    float a = threadIdx.x, b = 1.0001f, c = 0.5f, d = a + 1, e = a + 2, f = a + 3;
    for (int i = 0; i < rounds; i++) {
        a = a * b + c; d = d * b + c; e = e * b + c; f = f * b + c;
    }
    if (a + d + e + f == 12345.f) to[0] = a;
}

__global__ void known_tensor(float *to, int rounds) {
    using namespace nvcuda;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> c, d;
    wmma::fill_fragment(a, __float2half(0.5f));
    wmma::fill_fragment(b, __float2half(0.25f));
    wmma::fill_fragment(c, 0.f);
    wmma::fill_fragment(d, 0.f);
    for (int i = 0; i < rounds; i++) {
        wmma::mma_sync(c, a, b, c);
        wmma::mma_sync(d, a, b, d);
    }
    if (c.x[0] + d.x[0] == 12345.f) to[0] = c.x[0];
}

__global__ void known_tiny(float *to) { to[threadIdx.x] += 1.f; }

int main(int argc, char **argv) {
    double seconds = 2;
    long most = -1;
    bool graphed = false, shortly = false;
    std::string only;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seconds") && i + 1 < argc) seconds = atof(argv[++i]);
        else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) most = atol(argv[++i]);
        else if (!strcmp(argv[i], "--graph")) graphed = true;
        else if (!strcmp(argv[i], "--short")) shortly = true;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc) only = std::string(",") + argv[++i] + ",";
        else { fprintf(stderr, "known: unknown argument `%s`\n", argv[i]); return 2; }
    }
    char *from, *to;
    CUDA(cudaMalloc(&from, COPY_BYTES));
    CUDA(cudaMalloc(&to, COPY_BYTES));
    CUDA(cudaMemset(from, 1, COPY_BYTES));
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    struct Kernel { const char *name; double read, written, flop; };
    const int times = shortly ? SHORT_TIMES : 1, l2_rounds = shortly ? 1 : 16;
    const int fma_rounds = shortly ? 256 : 4096, mma_rounds = shortly ? 128 : 4096;
    const size_t copied = shortly ? PART_BYTES / 8 : COPY_BYTES;
    std::vector<Kernel> kernels = {
        {"copy", double(copied), double(copied), 0},
        {"part", double(PART_BYTES), double(PART_BYTES), 0},
        {"l2", 0, 0, 0},
        {"fma", 0, 0, 8.0 * fma_rounds * BLOCKS * THREADS},
        {"tensor", 0, 0, 2.0 * 16 * 16 * 16 * 2 * mma_rounds * BLOCKS * (THREADS / 32)},
        {"tiny", 0, 0, 0},
    };
    auto wanted = [&](const char *name) {
        if (shortly && !strcmp(name, "part")) return false;
        return only.empty() || only.find(std::string(",") + name + ",") != std::string::npos;
    };
    auto launch = [&](const std::string &name, int turn) {
        auto f4 = (const float4 *)(from + turn * copied);
        auto t4 = (float4 *)(to + turn * copied);
        if (name == "copy") known_copy<<<BLOCKS, THREADS, 0, stream>>>(f4, t4, copied / 16);
        if (name == "part") known_copy<<<BLOCKS, THREADS, 0, stream>>>(f4, t4, PART_BYTES / 16);
        if (name == "l2") known_l2<<<BLOCKS, THREADS, 0, stream>>>((const float4 *)from, (float *)to, L2_BYTES / 16, l2_rounds);
        if (name == "fma") known_fma<<<BLOCKS, THREADS, 0, stream>>>((float *)to, fma_rounds);
        if (name == "tensor") known_tensor<<<BLOCKS, THREADS, 0, stream>>>((float *)to, mma_rounds);
        if (name == "tiny") known_tiny<<<1, 32, 0, stream>>>((float *)to);
    };
    auto round = [&] {
        for (int turn = 0; turn < times; turn++)
            for (auto &kernel : kernels) if (wanted(kernel.name)) launch(kernel.name, turn);
    };
    cudaGraphExec_t exec = nullptr;
    if (graphed) {
        cudaGraph_t graph;
        CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        round();
        CUDA(cudaStreamEndCapture(stream, &graph));
        CUDA(cudaGraphInstantiate(&exec, graph, 0));
    }
    auto begin = std::chrono::steady_clock::now();
    auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
    long rounds = 0;
    for (; most < 0 ? elapsed() < seconds : rounds < most; rounds++) {
        if (graphed) CUDA(cudaGraphLaunch(exec, stream)); else round();
        CUDA(cudaStreamSynchronize(stream));
    }
    double took = elapsed();
    printf("{\"rounds\": %ld, \"times\": %d, \"seconds\": %.3f, \"round_us\": %.2f, \"kernels\": {", rounds, times, took,
           took / rounds * 1e6);
    bool first = true;
    for (auto &kernel : kernels) {
        if (!wanted(kernel.name)) continue;
        cudaEvent_t start, end;
        CUDA(cudaEventCreate(&start));
        CUDA(cudaEventCreate(&end));
        launch(kernel.name, 0);
        CUDA(cudaEventRecord(start, stream));
        for (int i = 0; i < 20; i++) launch(kernel.name, i % times);
        CUDA(cudaEventRecord(end, stream));
        CUDA(cudaEventSynchronize(end));
        float ms;
        CUDA(cudaEventElapsedTime(&ms, start, end));
        printf("%s\"%s\": {\"us\": %.3f, \"read\": %.0f, \"written\": %.0f, \"flop\": %.0f}", first ? "" : ", ", kernel.name,
               ms * 50, kernel.read, kernel.written, kernel.flop);
        first = false;
    }
    printf("}}\n");
    return 0;
}
