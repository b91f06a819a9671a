"""Who uses the GPU (v1/worker/gpu_worker.py, profiler/wrapper.py)."""

import logging
from typing import Any

from vllm import gpu
from vllm.config import ProfilerConfig, VllmConfig
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.worker.worker_base import WorkerBase

logger = logging.getLogger(__name__)


class Worker(WorkerBase):
    def __init__(self, vllm_config: VllmConfig, local_rank: int, rank: int) -> None:
        self.vllm_config = vllm_config
        self.profiler_config = vllm_config.profiler_config
        self.local_rank = local_rank
        self.rank = rank
        self.profiler: CudaProfilerWrapper | None = None
        # `from vllm.v1.worker.gpu_worker import Worker` touches no GPU, nor does the constructor: `init_device` does.
        self._gpu: gpu.Gpu | None = None
        self.model_runner: Any = None

    def init_device(self) -> None:
        self._gpu = gpu.Gpu(self.local_rank)
        if self.vllm_config.use_v2_model_runner:
            from vllm.v1.worker.gpu.model_runner import GPUModelRunner as GPUModelRunnerV2

            self.model_runner = GPUModelRunnerV2(self.vllm_config, self._gpu)
        else:
            from vllm.v1.worker.gpu_model_runner import GPUModelRunner as GPUModelRunnerV1

            self.model_runner = GPUModelRunnerV1(self.vllm_config, self._gpu)

    def load_model(self) -> None:
        self.model_runner.load_model()

    def compile_or_warm_up_model(self) -> None:
        if not self.vllm_config.model_config.enforce_eager:
            self.model_runner.capture_model()

    def execute_model(self, scheduler_output: SchedulerOutput) -> list[tuple[str, int]] | None:
        """None: `sample_tokens` has the tokens."""
        if self.profiler is not None:
            self.profiler.step()
        return self.model_runner.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: None) -> list[tuple[str, int]]:
        return self.model_runner.sample_tokens(grammar_output)

    def execute_dummy_batch(self) -> None:
        """EngineCore of a data-parallel rank without requests calls it: all ranks run the model when one does."""
        self.model_runner._dummy_run(1, uniform_decode=True)

    def profile(self, is_start: bool = True, profile_prefix: str | None = None) -> None:
        """cudaProfilerStart or Stop, with nothing waited for in between."""
        if self.profiler_config.profiler is None:
            raise RuntimeError(
                "Profiling is not enabled. Please set --profiler-config to enable profiling. Example: "
                "'--profiler-config.profiler=torch --profiler-config.torch_profiler_dir"
                "=YOUR_DIR_PATH_TO_DUMP_TRACE'"
            )
        if not is_start and self.profiler is None:
            logger.warning("Profiler was not started, nothing to stop.")
            return
        if self.profiler is None:
            if self.profiler_config.profiler == "torch":
                raise NotImplementedError("the fake has no torch profiler; expected profiler 'cuda'")
            self.profiler = CudaProfilerWrapper(self.profiler_config)
        if is_start:
            self.profiler.start()
        else:
            self.profiler.stop()

    def launched(self) -> int:
        """Kernels that this worker launched so far, warm-up included. The real one has no such method."""
        assert self._gpu is not None, "init_device comes first"
        return self._gpu.launched

    def shutdown(self) -> None:
        if self.profiler is not None:
            self.profiler.shutdown()


class CudaProfilerWrapper:
    """Delays and limits count steps. After `max_iterations` it stays active: a start is ignored until a stop came."""

    def __init__(self, config: ProfilerConfig) -> None:
        self._delay = config.delay_iterations
        self._max = config.max_iterations
        self._active = False
        self._running = False
        self._active_steps = 0
        self._profiled_steps = 0

    def start(self) -> None:
        if self._active:
            return
        self._active = True
        if self._delay == 0:
            self._call_start()

    def step(self) -> None:
        if not self._active:
            return
        self._active_steps += 1
        if not self._running and self._delay > 0 and self._active_steps == self._delay:
            self._call_start()
        if self._running:
            self._profiled_steps += 1
            if 0 < self._max < self._profiled_steps:
                self._call_stop()

    def stop(self) -> None:
        if not self._active:
            return
        self._active = False
        self._active_steps = self._profiled_steps = 0
        if self._running:
            self._call_stop()

    def shutdown(self) -> None:
        if self._running:
            self.stop()

    def _call_start(self) -> None:
        try:
            gpu.profiler_start()
            self._running = True
        except Exception as error:
            # Not raised: start_profile succeeds all the same.
            logger.warning("Failed to start profiler: %s", error)

    def _call_stop(self) -> None:
        try:
            gpu.profiler_stop()
        except Exception as error:
            logger.warning("Failed to stop profiler: %s", error)
        self._running = False
