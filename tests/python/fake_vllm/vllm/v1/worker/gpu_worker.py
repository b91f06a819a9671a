"""Who uses the GPU (v1/worker/gpu_worker.py, v1/worker/worker_base.py, profiler/wrapper.py)."""

import logging
from typing import Any

from vllm import gpu
from vllm.config import ProfilerConfig, VllmConfig
from vllm.plugins import load_general_plugins
from vllm.utils import resolve_obj_by_qualname
from vllm.v1.worker.model_runner import ModelRunner, Scheduled

logger = logging.getLogger(__name__)


class WorkerBase:
    """There for Python's sake: bases can only be added to a class that has one besides `object`."""


class Worker(WorkerBase):
    def __init__(self, vllm_config: VllmConfig, local_rank: int, rank: int) -> None:
        self.vllm_config = vllm_config
        self.profiler_config = vllm_config.profiler_config
        self.local_rank = local_rank
        self.rank = rank
        self.profiler: CudaProfilerWrapper | None = None
        # `from vllm.v1.worker.gpu_worker import Worker` touches no GPU, nor does the constructor: `init_device` does.
        self._gpu: gpu.Gpu | None = None
        self.model_runner: ModelRunner | None = None

    def init_device(self) -> None:
        self._gpu = gpu.Gpu(self.local_rank)
        self.model_runner = ModelRunner(self.vllm_config, self._gpu)

    def compile_or_warm_up_model(self) -> None:
        if not self.vllm_config.model_config.enforce_eager:
            self._runner.capture_model()

    @property
    def _runner(self) -> ModelRunner:
        assert self.model_runner is not None, "init_device comes first"
        return self.model_runner

    def execute_model(self, scheduled: Scheduled) -> list[tuple[str, int]]:
        if self.profiler is not None:
            self.profiler.step()
        return self._runner.execute(scheduled)

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


class WorkerWrapperBase:
    """Makes the worker inside the process that is to use the GPU; RPCs find the worker's methods through it."""

    worker: Worker

    def init_worker(self, vllm_config: VllmConfig, local_rank: int, rank: int) -> None:
        load_general_plugins()
        parallel = vllm_config.parallel_config
        worker_class = resolve_obj_by_qualname(parallel.worker_cls)
        if parallel.worker_extension_cls:
            _extend(worker_class, resolve_obj_by_qualname(parallel.worker_extension_cls))
        self.worker = worker_class(vllm_config=vllm_config, local_rank=local_rank, rank=rank)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.worker, name)


def _extend(worker_class: type, extension: type) -> None:
    """Appends the extension to the bases of the worker's class, so that its methods become RPCs."""
    if extension in worker_class.__bases__:
        return
    for name in dir(extension):
        if not name.startswith("__"):
            assert not hasattr(worker_class, name), (
                f"Worker class {worker_class} already has an attribute {name}, which conflicts with the worker"
                f" extension class {extension}."
            )
    worker_class.__bases__ = (*worker_class.__bases__, extension)
