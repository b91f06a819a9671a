"""Of PyTorch, what colonel touches in the fake vLLM: modules with forward hooks, NVTX, the profiler API."""

from torch import cuda, nn

__all__ = ["cuda", "nn"]
