// Two steps of integer arithmetic that depend on their order: a launch lost or doubled changes the result.
namespace demo {
__global__ void lcg_step(unsigned *state, unsigned count) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) state[i] = state[i] * 1664525u + 1013904223u;
}
__global__ void xorshift_step(unsigned *state, unsigned count) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        unsigned x = state[i];
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        state[i] = x;
    }
}
}
