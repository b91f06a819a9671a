"""Model Runner V1 (v1/worker/gpu_model_runner.py)."""

from typing import Any

from vllm import kernels
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.gpu import Gpu
from vllm.model import CausalLM, Launch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.worker.states import Requests


class GPUModelRunner:
    def __init__(self, vllm_config: VllmConfig, gpu: Gpu) -> None:
        self.vllm_config = vllm_config
        self._gpu = gpu
        self._prepare, self._sample_kernels = Launch(gpu, *kernels.PREPARE_V1), Launch(gpu, *kernels.SAMPLE_V1)
        self._requests = Requests(vllm_config.model_config.vocab_size)
        self._captured: set[BatchDescriptor] = set()
        self.execute_model_state: SchedulerOutput | None = None

    def load_model(self) -> None:
        self.model: Any = CausalLM(self._gpu, self.vllm_config)
        # Around the whole model, whose pieces' wrappers are passed through then.
        if self._graph_mode is CUDAGraphMode.FULL:
            self.model = CUDAGraphWrapper(self.model, self._gpu, CUDAGraphMode.FULL)

    def get_model(self) -> CausalLM:
        return self.model.unwrap() if isinstance(self.model, CUDAGraphWrapper) else self.model

    @property
    def _graph_mode(self) -> CUDAGraphMode:
        return self.vllm_config.compilation_config.cudagraph_mode.decode_mode()

    def capture_model(self) -> None:
        """A graph a batch size, largest first, each after one run as a warm-up (cudagraph_num_of_warmups is 1)."""
        for size in reversed(self.vllm_config.cudagraph_capture_sizes):
            self._warmup_and_capture(BatchDescriptor(size, size), self._graph_mode)

    def _warmup_and_capture(self, desc: BatchDescriptor, cudagraph_runtime_mode: CUDAGraphMode) -> None:
        self._dummy_run(desc.num_tokens)
        self._gpu.synchronize()
        self._dummy_run(desc.num_tokens, cudagraph_runtime_mode)
        self._captured.add(desc)

    def _dummy_run(
        self,
        num_tokens: int,
        cudagraph_runtime_mode: CUDAGraphMode = CUDAGraphMode.NONE,
        uniform_decode: bool = False,
    ) -> None:
        with set_forward_context(cudagraph_runtime_mode, BatchDescriptor(num_tokens, num_tokens)):
            self.model(num_tokens)

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        tokens, batch = scheduler_output.total_num_scheduled_tokens, len(scheduler_output.num_scheduled_tokens)
        self._requests.update(scheduler_output)
        self._gpu.copy_in()
        self._prepare(batch)
        # Padded up to the next size that has a graph.
        desc = min((size for size in self._captured if size.num_tokens >= tokens), key=_tokens, default=None)
        if scheduler_output.scheduled_new_reqs or desc is None:
            desc, mode = BatchDescriptor(tokens), CUDAGraphMode.NONE
        else:
            mode = self._graph_mode
        with set_forward_context(mode, desc):
            self.model(desc.num_tokens)
        self.model.compute_logits(batch)
        self.execute_model_state = scheduler_output

    def sample_tokens(self, grammar_output: None) -> list[tuple[str, int]]:
        scheduled, self.execute_model_state = self.execute_model_state, None
        assert scheduled is not None
        self._sample_kernels(len(scheduled.num_scheduled_tokens))
        self._gpu.copy_out()
        self._gpu.synchronize()
        return self._requests.sampled(scheduled)


def _tokens(desc: BatchDescriptor) -> int:
    return desc.num_tokens
