"""EngineCore: the scheduler, the executor, and the process around them (v1/engine/core.py)."""

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from typing import Any

import vllm.envs as envs
from vllm.config import VllmConfig
from vllm.plugins import load_general_plugins
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.executor import Executor
from vllm.v1.serial_utils import decode, encode

logger = logging.getLogger(__name__)

# A new token: request, token, and why the request ended, if it did.
Output = tuple[str, int, str | None]


@dataclass
class _Request:
    prompt_token_ids: list[int]
    max_tokens: int
    tokens: int = 0


class EngineCore:
    def __init__(self, config: VllmConfig, executor_class: type[Executor]) -> None:
        load_general_plugins()
        self.vllm_config = config
        self.model_executor = executor_class(config)
        self.model_executor.collective_rpc("compile_or_warm_up_model")
        self._waiting: dict[str, _Request] = {}
        self._running: dict[str, _Request] = {}
        envs.enable_envs_cache()

    def add_request(self, request_id: str, prompt_token_ids: list[int], max_tokens: int) -> None:
        self._waiting[request_id] = _Request(prompt_token_ids, max_tokens)

    def abort_requests(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._waiting.pop(request_id, None)
            self._running.pop(request_id, None)

    def abort_all(self) -> list[str]:
        ids = [*self._waiting, *self._running]
        self.abort_requests(ids)
        return ids

    def has_requests(self) -> bool:
        return bool(self._waiting or self._running)

    def step(self) -> list[Output]:
        """Continuous batching: requests join as long as there is room, their prompts in the same step as the next
        tokens of the running ones."""
        if not self.has_requests():
            return []
        running = {key: request.tokens for key, request in self._running.items()}
        new = []
        while self._waiting and len(self._running) < self.vllm_config.scheduler_config.max_num_seqs:
            request_id = next(iter(self._waiting))
            self._running[request_id] = request = self._waiting.pop(request_id)
            new.append(NewRequestData(request_id, request.prompt_token_ids))
        tokens = dict.fromkeys(running, 1) | {request.req_id: len(request.prompt_token_ids) for request in new}
        cached = CachedRequestData(list(running), num_output_tokens=list(running.values()))
        scheduled = SchedulerOutput(new, cached, tokens, sum(tokens.values()))
        sampled = self.model_executor.execute_model(scheduled)
        if sampled is None:
            sampled = self.model_executor.sample_tokens(None)
        return [self._take(request_id, token) for request_id, token in sampled]

    def _take(self, request_id: str, token: int) -> Output:
        request = self._running[request_id]
        request.tokens += 1
        if request.tokens < request.max_tokens:
            return request_id, token, None
        del self._running[request_id]
        return request_id, token, "length"

    def get_supported_tasks(self) -> list[str]:
        return ["generate"]

    def profile(self, is_start: bool = True, profile_prefix: str | None = None) -> None:
        self.model_executor.profile(is_start, profile_prefix)

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        return self.model_executor.collective_rpc(method, timeout, args, kwargs)

    def shutdown(self) -> None:
        self.model_executor.shutdown()


class _ShutdownState(Enum):
    RUNNING = auto()
    REQUESTED = auto()
    SHUTTING_DOWN = auto()


class EngineCoreProc(EngineCore):
    """An EngineCore that takes messages and sends outputs: `[kind, payload]`, see `core_client`.

    The real one has a socket each way and a thread for each. An RPC runs between two steps, as there.
    """

    def __init__(
        self, config: VllmConfig, executor_class: type[Executor], messages: Connection, outputs: Connection
    ) -> None:
        super().__init__(config, executor_class)
        self._outputs = outputs
        # A SimpleQueue may be filled from a signal handler; the real one needs a thread for that.
        self._inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._state = _ShutdownState.RUNNING
        threading.Thread(target=self._receive, args=(messages,), daemon=True).start()

    @staticmethod
    def run_engine_core(
        config: VllmConfig, executor_class: type[Executor], messages: Connection, outputs: Connection, parent: list[int]
    ) -> None:
        """The process. A forked one leaves by `os._exit` afterwards, a spawned one by `sys.exit`: multiprocessing's
        own doing. `parent` are the parent's ends of the pipes, which a forked child has inherited."""
        for descriptor in parent:
            os.close(descriptor)
        core: EngineCoreProc | None = None
        try:
            core = EngineCoreProc(config, executor_class, messages, outputs)
            # Only now: SIGTERM during start-up kills at once.
            signal.signal(signal.SIGTERM, core._request_shutdown)
            signal.signal(signal.SIGINT, core._request_shutdown)
            core._send("ready", None)
            core.run_busy_loop()
        except Exception:
            if core is not None:
                logger.exception("EngineCore encountered a fatal error.")
                core._send("dead", None)
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if core is not None:
                core.shutdown()

    def _request_shutdown(self, _signal: int, _frame: Any) -> None:
        self._state = _ShutdownState.REQUESTED
        self._inbox.put(("wakeup", None))

    def _receive(self, messages: Connection) -> None:
        try:
            while True:
                kind, payload = decode(messages.recv_bytes())
                self._inbox.put((kind, payload))
        except EOFError:
            # The caller was killed. The real EngineCore would stay behind for ever; CI wants it gone.
            os.kill(os.getpid(), signal.SIGTERM)

    def _send(self, kind: str, payload: Any) -> None:
        # If the caller is gone nobody listens; as with a socket that isn't an error.
        with contextlib.suppress(BrokenPipeError):
            self._outputs.send_bytes(encode([kind, payload]))

    def run_busy_loop(self) -> None:
        while self._goes_on():
            self._process_inbox()
            outputs = self.step()
            if outputs:
                self._send("outputs", outputs)
        raise SystemExit

    def _goes_on(self) -> bool:
        if self._state is _ShutdownState.RUNNING:
            return True
        if self._state is _ShutdownState.REQUESTED:
            if self.vllm_config.shutdown_timeout == 0:
                # Told as aborted, each with a token that means nothing.
                self._send("outputs", [(request_id, 0, "abort") for request_id in self.abort_all()])
            self._state = _ShutdownState.SHUTTING_DOWN
        return self.has_requests()

    def _process_inbox(self) -> None:
        """Waits for something to do if there is nothing; then takes all that came meanwhile."""
        while not self.has_requests() and self._state is _ShutdownState.RUNNING:
            self._handle(*self._inbox.get())
        while not self._inbox.empty():
            self._handle(*self._inbox.get())

    def _handle(self, kind: str, payload: Any) -> None:
        if kind == "add":
            if self._state is _ShutdownState.RUNNING:
                self.add_request(*payload)
            else:
                self._send("outputs", [(payload[0], 0, "abort")])
        elif kind == "abort":
            self.abort_requests(payload)
        elif kind == "utility":
            self._call(*payload)

    def _call(self, call_id: int, method: str, args: list[Any]) -> None:
        if self._state is not _ShutdownState.RUNNING:
            self._send("utility", (call_id, f"Call to {method} method failed: EngineCore is shutting down", None))
            return
        result, failure = None, None
        try:
            result = getattr(self, method)(*args)
        except Exception as error:
            failure = f"Call to {method} method failed: {error}"
        self._send("utility", (call_id, failure, result))
