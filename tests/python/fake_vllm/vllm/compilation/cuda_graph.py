"""A graph for each size, captured at the first call with it (compilation/cuda_graph.py)."""

from collections.abc import Callable
from typing import Any

from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, get_forward_context
from vllm.gpu import Gpu, Graph


class CUDAGraphWrapper:
    def __init__(self, runnable: Callable[[int], int], gpu: Gpu, runtime_mode: CUDAGraphMode) -> None:
        self.runnable = runnable
        self.runtime_mode = runtime_mode
        self._gpu = gpu
        self._graphs: dict[BatchDescriptor, Graph] = {}

    def __getattr__(self, key: str) -> Any:
        return getattr(self.runnable, key)

    def unwrap(self) -> Callable[[int], int]:
        return self.runnable

    def __call__(self, tokens: int) -> int:
        context = get_forward_context()
        if context.cudagraph_runtime_mode is not self.runtime_mode:
            return self.runnable(tokens)
        size = context.batch_descriptor
        assert size is not None
        if size in self._graphs:
            self._gpu.replay(self._graphs[size])
        else:
            self._gpu.begin_capture()
            self.runnable(tokens)
            self._graphs[size] = self._gpu.end_capture()
        return tokens
