"""The caller's side of EngineCore (v1/engine/core_client.py, v1/engine/utils.py, v1/utils.py).

Messages: `add [id, token ids, max tokens]`, `abort [ids]`, `utility [call id, method, args]`; outputs: `ready`,
`outputs [[id, token, finish reason]]`, `utility [call id, failure, result]`, `dead` (ENGINE_CORE_DEAD).
"""

import logging

# Before the first `weakref.finalize`: at exit, last come is first served, and multiprocessing's own handler joins
# EngineCore, which is no daemon and would never end.
import multiprocessing.util  # noqa: F401
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import vllm.envs as envs
from vllm.config import VllmConfig
from vllm.utils import get_mp_context, kill_process_tree
from vllm.v1.engine.core import EngineCore, EngineCoreProc, Output
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor import Executor
from vllm.v1.serial_utils import decode, encode

logger = logging.getLogger(__name__)


def shutdown(processes: list[BaseProcess], timeout: float | None = None) -> None:
    """SIGTERM, 5 seconds, then SIGKILL for the whole tree."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    deadline = time.monotonic() + (5.0 if timeout is None else timeout)
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
    for process in processes:
        if process.is_alive() and process.pid is not None:
            logger.warning("[shutdown] Process manager: force killing remaining processes")
            kill_process_tree(process.pid)


class CoreEngineProcManager:
    """Starts and stops the process of EngineCore."""

    def __init__(self, config: VllmConfig, executor_class: type[Executor]) -> None:
        context = get_mp_context()
        messages, self.messages = context.Pipe(duplex=False)
        self.outputs, outputs = context.Pipe(duplex=False)
        forked = context.get_start_method() == "fork"
        parent = [self.messages.fileno(), self.outputs.fileno()] if forked else []
        # No daemon, since it may have children of its own.
        process = context.Process(
            target=EngineCoreProc.run_engine_core,
            args=(config, executor_class, messages, outputs, parent),
            name="EngineCore",
        )
        self.processes: list[BaseProcess] = [process]
        self._finalizer = weakref.finalize(self, shutdown, self.processes)
        process.start()
        messages.close()
        outputs.close()

    def shutdown(self, timeout: float | None = None) -> None:
        if self._finalizer.detach() is not None:
            shutdown(self.processes, timeout)


class BackgroundResources:
    """What outlives the client; called once it is collected or the program ends."""

    engine_manager: CoreEngineProcManager | None = None
    engine_dead = False

    def __call__(self) -> None:
        self.engine_dead = True
        if self.engine_manager is not None:
            self.engine_manager.shutdown(envs.VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS)


class InprocClient:
    """EngineCore in the caller's own process (VLLM_ENABLE_V1_MULTIPROCESSING=0): no `resources`, no busy loop."""

    def __init__(self, config: VllmConfig, executor_class: type[Executor]) -> None:
        self.engine_core = EngineCore(config, executor_class)

    def get_output(self) -> list[Output]:
        return self.engine_core.step()

    def add_request(self, request_id: str, token_ids: list[int], max_tokens: int) -> None:
        self.engine_core.add_request(request_id, token_ids, max_tokens)

    def call_utility(self, method: str, *args: Any) -> Any:
        return getattr(self.engine_core, method)(*args)

    def shutdown(self, timeout: float | None = None) -> None:
        self.engine_core.shutdown()


class MPClient:
    """EngineCore in a process of its own. `deliver` gets outputs, or an error, on a thread."""

    # Does `deliver` hear of an EngineCore that ended without a word (killed, or told to by SIGTERM)?
    tells_of_a_silent_end = False

    def __init__(
        self,
        config: VllmConfig,
        executor_class: type[Executor],
        deliver: Callable[[list[Output] | Exception], None],
    ) -> None:
        self.resources = BackgroundResources()
        self._finalizer = weakref.finalize(self, self.resources)
        self._calls: dict[int, Future[Any]] = {}
        manager = self.resources.engine_manager = CoreEngineProcManager(config, executor_class)
        self._messages = manager.messages
        self._wait_until_ready(manager)
        # Nothing that it is given leads back to the client, which could else never be collected.
        arguments = (manager.outputs, self._calls, deliver, self.resources, self.tells_of_a_silent_end)
        threading.Thread(target=_receive, args=arguments, name="EngineCoreOutputQueueThread", daemon=True).start()

    def _wait_until_ready(self, manager: CoreEngineProcManager) -> None:
        try:
            manager.outputs.recv_bytes()
        except EOFError:
            for process in manager.processes:
                process.join()
            failed = {process.name: process.exitcode for process in manager.processes}
            self._finalizer()
            raise RuntimeError(
                f"Engine core initialization failed. See root cause above. Failed core proc(s): {failed}"
            ) from None

    def _send(self, kind: str, payload: Any) -> None:
        if self.resources.engine_dead:
            raise EngineDeadError
        self._messages.send_bytes(encode([kind, payload]))

    def add_request(self, request_id: str, token_ids: list[int], max_tokens: int) -> None:
        self._send("add", (request_id, token_ids, max_tokens))

    def abort_requests(self, request_ids: list[str]) -> None:
        if request_ids and not self.resources.engine_dead:
            self._send("abort", request_ids)

    def utility_future(self, method: str, args: tuple[Any, ...]) -> "Future[Any]":
        """As in the real one, nobody answers a call that is under way when EngineCore dies."""
        call_id = uuid.uuid1().int >> 64
        future: Future[Any] = Future()
        self._calls[call_id] = future
        self._send("utility", (call_id, method, args))
        return future

    def call_utility(self, method: str, *args: Any) -> Any:
        return self.utility_future(method, args).result()

    def shutdown(self, timeout: float | None = None) -> None:
        if self._finalizer.detach() is not None:
            if self.resources.engine_manager is not None:
                self.resources.engine_manager.shutdown(timeout)
            self.resources()


def _receive(
    outputs: Connection,
    calls: "dict[int, Future[Any]]",
    deliver: Callable[[list[Output] | Exception], None],
    resources: BackgroundResources,
    tell_of_a_silent_end: bool,
) -> None:
    try:
        while True:
            kind, payload = decode(outputs.recv_bytes())
            if kind == "dead":
                resources.engine_dead = True
                deliver(EngineDeadError())
                return
            if kind == "outputs":
                deliver([(request_id, token, reason) for request_id, token, reason in payload])
                continue
            call_id, failure, result = payload
            future = calls.pop(call_id)
            if failure is not None:
                future.set_exception(Exception(failure))
            else:
                future.set_result(result)
    except (EOFError, OSError):
        resources.engine_dead = True
        if tell_of_a_silent_end:
            deliver(EngineDeadError())
