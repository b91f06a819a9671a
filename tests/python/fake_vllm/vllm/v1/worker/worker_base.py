"""How a worker is made (v1/worker/worker_base.py)."""

from typing import Any

from vllm.config import VllmConfig
from vllm.plugins import load_general_plugins
from vllm.utils import resolve_obj_by_qualname


class WorkerBase:
    """There for Python's sake: bases can only be added to a class that has one besides `object`."""


class WorkerWrapperBase:
    """Makes the worker inside the process that is to use the GPU; RPCs find the worker's methods through it."""

    worker: Any

    def init_worker(self, vllm_config: VllmConfig, local_rank: int, rank: int) -> None:
        load_general_plugins()
        parallel = vllm_config.parallel_config
        worker_class = resolve_obj_by_qualname(parallel.worker_cls)
        if parallel.worker_extension_cls:
            _extend(worker_class, resolve_obj_by_qualname(parallel.worker_extension_cls))
        self.worker = worker_class(vllm_config=vllm_config, local_rank=local_rank, rank=rank)

    def init_device(self) -> None:
        self.worker.init_device()

    def execute_model(self, scheduler_output: Any) -> Any:
        return self.worker.execute_model(scheduler_output)

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
