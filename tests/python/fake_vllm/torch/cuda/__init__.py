"""torch.cuda."""

from vllm import gpu

from torch.cuda import nvtx, profiler

__all__ = ["nvtx", "profiler", "synchronize"]


def synchronize() -> None:
    gpu._call("cudaDeviceSynchronize")
