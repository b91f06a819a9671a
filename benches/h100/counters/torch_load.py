"""A decode step as an LLM's, without an LLM, and a large GEMM, in one CUDA graph.

    torch_load.py --seconds 3        between cudaProfilerStart and cudaProfilerStop
    torch_load.py --steps 2

The last line on stdout is JSON: steps, and the time of one.
"""

import argparse
import json
import time

import torch

LAYERS, BATCH, HIDDEN, HEADS, CONTEXT, LARGE = 6, 16, 2048, 16, 512, 4096


class Layer:
    """Normalization, attention over a cache, and a gated MLP: a kernel or two each, all memory-bound at this batch."""

    def __init__(self) -> None:
        def weight(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02

        self.norm = weight(HIDDEN)
        self.qkv, self.out = weight(HIDDEN, 3 * HIDDEN), weight(HIDDEN, HIDDEN)
        self.up, self.down = weight(HIDDEN, 4 * HIDDEN), weight(2 * HIDDEN, HIDDEN)
        self.keys = weight(BATCH * HEADS, HIDDEN // HEADS, CONTEXT)
        self.values = weight(BATCH * HEADS, CONTEXT, HIDDEN // HEADS)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        query = torch.nn.functional.rms_norm(x, (HIDDEN,), self.norm) @ self.qkv
        query = query[:, :HIDDEN].reshape(BATCH * HEADS, 1, HIDDEN // HEADS)
        scores = torch.softmax(torch.bmm(query, self.keys), -1)
        x = x + torch.bmm(scores, self.values).reshape(BATCH, HIDDEN) @ self.out
        gate, up = (x @ self.up).chunk(2, -1)
        return x + (torch.nn.functional.silu(gate) * up) @ self.down


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    layers = [Layer() for _ in range(LAYERS)]
    x = torch.randn(BATCH, HIDDEN, device="cuda", dtype=torch.bfloat16)
    a, b = (torch.randn(LARGE, LARGE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)

    def step() -> None:
        y = x
        for layer in layers:
            y = layer(y)
        torch.mm(a, b, out=c)

    with torch.no_grad():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    for _ in range(20):
        graph.replay()
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStart()
    begin, steps = time.monotonic(), 0
    while steps < arguments.steps if arguments.steps else time.monotonic() - begin < arguments.seconds:
        graph.replay()
        torch.cuda.synchronize()
        steps += 1
    took = time.monotonic() - begin
    torch.cuda.cudart().cudaProfilerStop()
    print(json.dumps({"steps": steps, "step_us": round(took / steps * 1e6, 1)}))


if __name__ == "__main__":
    main()
