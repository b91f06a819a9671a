"""Graphs of Model Runner V2 (v1/worker/gpu/cudagraph_utils.py)."""

from collections.abc import Callable
from dataclasses import dataclass

from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.gpu import Gpu, Graph
from vllm.model import CausalLM

ForwardFn = Callable[[CUDAGraphMode], None]


@dataclass(frozen=True)
class BatchExecutionDescriptor:
    cg_mode: CUDAGraphMode
    num_tokens: int
    # None: graphs of pieces, for any number of requests.
    num_reqs: int | None


class CudaGraphManager:
    def __init__(self, vllm_config: VllmConfig, gpu: Gpu) -> None:
        self._config, self._gpu = vllm_config, gpu
        self.graphs: dict[BatchExecutionDescriptor, Graph | None] = {}

    def capture(
        self, create_forward_fn: Callable[..., ForwardFn], progress_bar_desc: str = "Capturing CUDA graphs"
    ) -> None:
        """A graph a batch size, largest first, each after one run as a warm-up."""
        mode = self._config.compilation_config.cudagraph_mode.decode_mode()
        full = mode is CUDAGraphMode.FULL
        for size in reversed(self._config.cudagraph_capture_sizes):
            desc = BatchExecutionDescriptor(mode, size, size if full else None)
            create_forward_fn(desc, warmup=True)(CUDAGraphMode.NONE)
            self._gpu.synchronize()
            forward_fn = create_forward_fn(desc, warmup=False)
            if not full:
                forward_fn(mode)
                self.graphs[desc] = None
                continue
            self._gpu.begin_capture()
            forward_fn(CUDAGraphMode.NONE)
            self.graphs[desc] = self._gpu.end_capture()

    def dispatch(self, num_tokens: int) -> BatchExecutionDescriptor | None:
        """Padded up to the next size that has a graph."""
        fitting = (desc for desc in self.graphs if desc.num_tokens >= num_tokens)
        return min(fitting, key=lambda desc: desc.num_tokens, default=None)

    def run_fullgraph(self, desc: BatchExecutionDescriptor) -> None:
        graph = self.graphs[desc]
        assert graph is not None
        self._gpu.replay(graph)


class ModelCudaGraphManager(CudaGraphManager):
    def capture(  # type: ignore[override]
        self, model: CausalLM, progress_bar_desc: str = "Capturing CUDA graphs"
    ) -> None:
        def create_forward_fn(desc: BatchExecutionDescriptor, warmup: bool) -> ForwardFn:
            def forward_fn(cg_mode: CUDAGraphMode) -> None:
                with set_forward_context(cg_mode, BatchDescriptor(desc.num_tokens)):
                    model(desc.num_tokens)

            return forward_fn

        super().capture(create_forward_fn, progress_bar_desc)

    def run_fullgraph(self, desc: BatchExecutionDescriptor) -> int:  # type: ignore[override]
        super().run_fullgraph(desc)
        return desc.num_tokens
