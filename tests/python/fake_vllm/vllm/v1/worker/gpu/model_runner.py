"""Model Runner V2 (v1/worker/gpu/model_runner.py)."""

from vllm import kernels
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.gpu import Gpu
from vllm.model import CausalLM, Launch
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor, ModelCudaGraphManager
from vllm.v1.worker.states import Requests


class GPUModelRunner:
    def __init__(self, vllm_config: VllmConfig, gpu: Gpu) -> None:
        self.vllm_config = vllm_config
        self._gpu = gpu
        self._prepare, self.sampler = Launch(gpu, *kernels.PREPARE_V2), Launch(gpu, *kernels.SAMPLE_V2)
        self._requests = Requests(vllm_config.model_config.vocab_size)
        self.cudagraph_manager: ModelCudaGraphManager | None = None
        self.execute_model_state: SchedulerOutput | None = None

    def load_model(self) -> None:
        self.model = CausalLM(self._gpu, self.vllm_config)
        # The real one makes it with the KV cache.
        self.cudagraph_manager = ModelCudaGraphManager(self.vllm_config, self._gpu)

    def get_model(self) -> CausalLM:
        return self.model

    def capture_model(self) -> None:
        assert self.cudagraph_manager is not None
        self.cudagraph_manager.capture(self.model)

    def _dummy_run(self, num_tokens: int, uniform_decode: bool = False) -> None:
        scheduled = {f"_dummy_req_{number}": 1 for number in range(num_tokens)}
        self.execute_model(SchedulerOutput([], CachedRequestData(), scheduled, num_tokens), dummy_run=True)
        self.execute_model_state = None

    def execute_model(self, scheduler_output: SchedulerOutput, dummy_run: bool = False) -> None:
        assert self.cudagraph_manager is not None
        tokens, batch = scheduler_output.total_num_scheduled_tokens, len(scheduler_output.num_scheduled_tokens)
        self._requests.update(scheduler_output)
        self._gpu.copy_in()
        self._prepare(batch)
        desc = None if scheduler_output.scheduled_new_reqs else self.cudagraph_manager.dispatch(tokens)
        desc = desc or BatchExecutionDescriptor(CUDAGraphMode.NONE, tokens, batch)
        if desc.cg_mode is CUDAGraphMode.FULL:
            self.cudagraph_manager.run_fullgraph(desc)
        else:
            with set_forward_context(desc.cg_mode, BatchDescriptor(desc.num_tokens)):
                self.model(desc.num_tokens)
        self.execute_model_state = scheduler_output

    def sample_tokens(self, grammar_output: None) -> list[tuple[str, int]]:
        scheduled, self.execute_model_state = self.execute_model_state, None
        assert scheduled is not None
        batch = len(scheduled.num_scheduled_tokens)
        self.model.compute_logits(batch)
        self.sampler(batch)
        self._gpu.copy_out()
        self._gpu.synchronize()
        return self._requests.sampled(scheduled)
