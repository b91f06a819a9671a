"""Where workers live (v1/executor/*.py): in EngineCore itself, or in processes under it."""

import contextlib
import logging
import multiprocessing.connection
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import vllm.envs as envs
from vllm.config import VllmConfig
from vllm.utils import get_mp_context
from vllm.v1.serial_utils import run_method
from vllm.v1.worker.worker_base import WorkerWrapperBase

logger = logging.getLogger(__name__)

Method = str | Callable[..., Any]


class Executor:
    """Runs methods of all workers."""

    def __init__(self, config: VllmConfig) -> None:
        self.vllm_config = config
        self._start()

    @staticmethod
    def get_class(config: VllmConfig) -> "type[Executor]":
        backend = config.parallel_config.distributed_executor_backend
        if backend is None:
            backend = "mp" if config.parallel_config.world_size > 1 else "uni"
        if backend not in ("mp", "uni"):
            raise ValueError(f"the fake has no executor {backend!r}; expected 'mp' or 'uni'")
        return MultiprocExecutor if backend == "mp" else UniProcExecutor

    def _start(self) -> None:
        raise NotImplementedError

    def collective_rpc(
        self, method: Method, timeout: float | None = None, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        raise NotImplementedError

    def execute_model(self, scheduled: Any) -> Any:
        # The answer of rank 0 is the one that counts.
        return self.collective_rpc("execute_model", args=(scheduled,))[0]

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Called at once, where `execute_model` gave None."""
        return self.collective_rpc("sample_tokens", args=(grammar_output,))[0]

    def profile(self, is_start: bool = True, profile_prefix: str | None = None) -> None:
        self.collective_rpc("profile", args=(is_start, profile_prefix))

    def shutdown(self) -> None:
        raise NotImplementedError


class UniProcExecutor(Executor):
    def _start(self) -> None:
        self.driver_worker = WorkerWrapperBase()
        self.driver_worker.init_worker(self.vllm_config, local_rank=0, rank=0)
        self.driver_worker.init_device()
        self.driver_worker.load_model()

    def collective_rpc(
        self, method: Method, timeout: float | None = None, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        return [run_method(self.driver_worker, method, tuple(args), kwargs or {})]

    def shutdown(self) -> None:
        self.driver_worker.shutdown()


class _WorkerHandle:
    """A worker's process and this side's ends of its pipes."""

    def __init__(self, config: VllmConfig, rank: int, earlier: "list[_WorkerHandle]") -> None:
        context = get_mp_context()
        self.calls, calls = context.Pipe()
        death, self.death_writer = context.Pipe(duplex=False)
        inherited: list[int] = []
        if context.get_start_method() == "fork":
            # Else a worker would hold this side's ends, also of its elder siblings, and none would ever see its end.
            ours = [self, *earlier]
            inherited = [end.fileno() for handle in ours for end in (handle.calls, handle.death_writer)]
        # A daemon: killed by multiprocessing if EngineCore ends in an orderly way without having stopped it.
        self.process: BaseProcess = context.Process(
            target=_worker_main,
            args=(config, rank, calls, death, inherited),
            name=f"VllmWorker-{rank}",
            daemon=True,
        )
        self.process.start()
        calls.close()
        death.close()


class MultiprocExecutor(Executor):
    def _start(self) -> None:
        self._workers: list[_WorkerHandle] = []
        for rank in range(self.vllm_config.parallel_config.world_size):
            self._workers.append(_WorkerHandle(self.vllm_config, rank, self._workers))
        try:
            for worker in self._workers:
                worker.calls.recv()
        except EOFError:
            self.shutdown()
            raise RuntimeError(
                "WorkerProc initialization failed due to an exception in a background process. "
                "See stack trace for root cause."
            ) from None

    def collective_rpc(
        self, method: Method, timeout: float | None = None, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        call = pickle.dumps((method, tuple(args), kwargs or {}))
        for worker in self._workers:
            worker.calls.send_bytes(call)
        return [self._answer(worker, method, deadline) for worker in self._workers]

    def _answer(self, worker: _WorkerHandle, method: Method, deadline: float | None) -> Any:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not worker.calls.poll(left):
            raise TimeoutError(f"RPC call to {method} timed out.")
        try:
            succeeded, result = worker.calls.recv()
        except EOFError:
            raise RuntimeError("Executor failed.") from None
        if not succeeded:
            raise RuntimeError(
                f"Worker failed with error '{result}', please check the stack trace above for the root cause"
            )
        return result

    def shutdown(self) -> None:
        """The end of the death pipe, then SIGTERM after some seconds, then SIGKILL."""
        processes = [worker.process for worker in self._workers]
        for worker in self._workers:
            worker.death_writer.close()
        if _wait(processes, envs.VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS):
            return
        for process in processes:
            process.terminate()
        if not _wait(processes, 4):
            for process in processes:
                process.kill()


def _wait(processes: list[BaseProcess], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
    return not any(process.is_alive() for process in processes)


def _worker_main(config: VllmConfig, rank: int, calls: Connection, death: Connection, inherited: list[int]) -> None:
    """A worker's process: `WorkerProc.worker_main`."""
    asked_to_end = threading.Event()

    def end(_signal: int, _frame: Any) -> None:
        # Once only, so that the second signal does not disturb the clean-up.
        if not asked_to_end.is_set():
            asked_to_end.set()
            raise SystemExit

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for descriptor in inherited:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    wrapper = WorkerWrapperBase()
    wrapper.init_worker(config, local_rank=rank, rank=rank)
    wrapper.init_device()
    wrapper.load_model()
    envs.enable_envs_cache()
    calls.send("READY")
    try:
        # The real one watches the death pipe on a thread, which closes its queues.
        while death not in multiprocessing.connection.wait([calls, death]):
            _serve(wrapper, calls)
    finally:
        wrapper.shutdown()


def _serve(wrapper: WorkerWrapperBase, calls: Connection) -> None:
    method, args, kwargs = calls.recv()
    try:
        function = getattr(wrapper, method) if isinstance(method, str) else partial(method, wrapper)
        calls.send((True, function(*args, **kwargs)))
    except Exception as error:
        logger.exception("WorkerProc hit an exception.")
        calls.send((False, str(error)))
