"""The engine of `LLM` (v1/engine/llm_engine.py)."""

import queue
from collections.abc import Callable
from typing import Any

import vllm.envs as envs
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import PromptType, token_ids
from vllm.outputs import OutputProcessor, RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.core import Output
from vllm.v1.engine.core_client import InprocClient, MPClient
from vllm.v1.executor import Executor


class SyncMPClient(MPClient):
    def __init__(self, config: VllmConfig, executor_class: type[Executor]) -> None:
        self._outputs: queue.SimpleQueue[list[Output] | Exception] = queue.SimpleQueue()
        super().__init__(config, executor_class, self._outputs.put)

    def get_output(self) -> list[Output]:
        """Waits for ever if EngineCore is killed meanwhile: `process_outputs_socket` leaves its loop and puts nothing
        into the queue. What is called after the client has noticed raises (`ensure_alive`)."""
        outputs = self._outputs.get()
        if isinstance(outputs, Exception):
            raise outputs
        return outputs


class LLMEngine:
    def __init__(self, vllm_config: VllmConfig, executor_class: type[Executor], multiprocess_mode: bool) -> None:
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.observability_config = vllm_config.observability_config
        self.output_processor = OutputProcessor(with_text=not self.model_config.skip_tokenizer_init)
        client = SyncMPClient if multiprocess_mode else InprocClient
        self.engine_core: SyncMPClient | InprocClient = client(vllm_config, executor_class)
        if isinstance(self.engine_core, InprocClient):
            self.model_executor = self.engine_core.engine_core.model_executor

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> "LLMEngine":
        config = engine_args.create_engine_config()
        return cls(config, Executor.get_class(config), envs.VLLM_ENABLE_V1_MULTIPROCESSING)

    def add_request(self, request_id: str, prompt: PromptType, params: SamplingParams) -> str:
        ids = token_ids(prompt, self.model_config)
        max_tokens = most_tokens(params, len(ids), self.model_config.max_model_len)
        self.output_processor.add_request(request_id, prompt, ids, params)
        self.engine_core.add_request(request_id, ids, max_tokens)
        return request_id

    def has_unfinished_requests(self) -> bool:
        return self.output_processor.has_unfinished_requests()

    def step(self) -> list[RequestOutput]:
        return self.output_processor.process(self.engine_core.get_output())

    def start_profile(self, profile_prefix: str | None = None) -> None:
        self.engine_core.call_utility("profile", True, profile_prefix)

    def stop_profile(self) -> None:
        self.engine_core.call_utility("profile", False)

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        answers: list[Any] = self.engine_core.call_utility("collective_rpc", method, timeout, args, kwargs)
        return answers


def most_tokens(params: SamplingParams, prompt: int, max_model_len: int) -> int:
    """New tokens that a request may have: what it asks for, as far as the model's length allows; one at least."""
    left = max(max_model_len - prompt, 1)
    return left if params.max_tokens is None else min(params.max_tokens, left)
