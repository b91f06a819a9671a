"""The engine of the API server (v1/engine/async_llm.py): many requests at a time on one event loop."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import PromptType, token_ids
from vllm.outputs import OutputProcessor, RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.core import Output
from vllm.v1.engine.core_client import MPClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.llm_engine import most_tokens
from vllm.v1.executor import Executor


class AsyncMPClient(MPClient):
    tells_of_a_silent_end = True  # its task is cancelled, and says so to the requests

    async def call_utility_async(self, method: str, *args: Any) -> Any:
        return await asyncio.wrap_future(self.utility_future(method, args))


class AsyncLLM:
    """EngineCore is always a process of its own: VLLM_ENABLE_V1_MULTIPROCESSING is not looked at."""

    def __init__(self, vllm_config: VllmConfig, executor_class: type[Executor]) -> None:
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.observability_config = vllm_config.observability_config
        self.output_processor = OutputProcessor(with_text=not self.model_config.skip_tokenizer_init)
        # Shared with the client's thread, which must not hold `self`.
        hub = self._hub = _Hub()
        self.engine_core = AsyncMPClient(vllm_config, executor_class, hub.deliver)

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs) -> "AsyncLLM":
        config = engine_args.create_engine_config()
        return cls(config, Executor.get_class(config))

    def __del__(self) -> None:
        self.shutdown()

    def shutdown(self, timeout: float | None = None) -> None:
        if hasattr(self, "engine_core"):
            self.engine_core.shutdown(timeout)

    @property
    def errored(self) -> bool:
        return self.engine_core.resources.engine_dead

    @property
    def is_running(self) -> bool:
        return not self.errored

    async def generate(
        self, prompt: PromptType, sampling_params: SamplingParams, request_id: str
    ) -> AsyncGenerator[RequestOutput, None]:
        if self.errored:
            raise EngineDeadError
        ids = token_ids(prompt, self.model_config)
        max_tokens = most_tokens(sampling_params, len(ids), self.model_config.max_model_len)
        self.output_processor.add_request(request_id, prompt, ids, sampling_params)
        tokens = self._hub.subscribe(request_id)
        finished = False
        try:
            self.engine_core.add_request(request_id, ids, max_tokens)
            while not finished:
                token = await tokens.get()
                if isinstance(token, Exception):
                    raise token
                for output in self.output_processor.process([token]):
                    finished = output.finished
                    yield output
        finally:
            self._hub.unsubscribe(request_id)
            if not finished:
                # Cancelled or left by the caller.
                self.output_processor.abort(request_id)
                self.engine_core.abort_requests([request_id])

    async def abort(self, request_id: str) -> None:
        self.output_processor.abort(request_id)
        self.engine_core.abort_requests([request_id])

    async def start_profile(self, profile_prefix: str | None = None) -> None:
        await self.engine_core.call_utility_async("profile", True, profile_prefix)

    async def stop_profile(self) -> None:
        await self.engine_core.call_utility_async("profile", False)

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        answers: list[Any] = await self.engine_core.call_utility_async("collective_rpc", method, timeout, args, kwargs)
        return answers


class _Hub:
    """From the client's thread to the request's queue, on the loop that waits for it."""

    def __init__(self) -> None:
        self._queues: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Output | Exception]]] = {}

    def subscribe(self, request_id: str) -> "asyncio.Queue[Output | Exception]":
        queue: asyncio.Queue[Output | Exception] = asyncio.Queue()
        self._queues[request_id] = (asyncio.get_running_loop(), queue)
        return queue

    def unsubscribe(self, request_id: str) -> None:
        self._queues.pop(request_id, None)

    def deliver(self, outputs: "list[Output] | Exception") -> None:
        if isinstance(outputs, Exception):
            for loop, queue in list(self._queues.values()):
                loop.call_soon_threadsafe(queue.put_nowait, outputs)
            return
        for output in outputs:
            waiting = self._queues.get(output[0])
            if waiting is not None:
                loop, queue = waiting
                loop.call_soon_threadsafe(queue.put_nowait, output)
