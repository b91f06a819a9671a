"""Offline inference (entrypoints/llm.py)."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import PromptType
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.llm_engine import LLMEngine


class LLM:
    def __init__(self, model: str, **kwargs: Any) -> None:
        kwargs.setdefault("disable_log_stats", True)
        for config in ("compilation_config", "profiler_config", "hf_overrides"):
            if kwargs.get(config) is None:
                kwargs.pop(config, None)
        self.llm_engine = LLMEngine.from_engine_args(EngineArgs(model=model, **kwargs))
        self.model_config = self.llm_engine.model_config
        self._request_counter = itertools.count()
        # The first message that EngineCore answers.
        self.supported_tasks = self.llm_engine.engine_core.call_utility("get_supported_tasks")

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts."""
        prompts = _as_list(prompts)
        if not isinstance(sampling_params, Sequence):
            sampling_params = [sampling_params or SamplingParams()] * len(prompts)
        if len(prompts) != len(sampling_params):
            raise ValueError("The lengths of prompts and params must be the same.")
        for prompt, params in zip(prompts, sampling_params, strict=True):
            self.llm_engine.add_request(str(next(self._request_counter)), prompt, params)
        done: list[RequestOutput] = []
        while self.llm_engine.has_unfinished_requests():
            done += [output for output in self.llm_engine.step() if output.finished]
        return sorted(done, key=lambda output: int(output.request_id))

    def start_profile(self, profile_prefix: str | None = None) -> None:
        self.llm_engine.start_profile(profile_prefix)

    def stop_profile(self) -> None:
        self.llm_engine.stop_profile()

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        return self.llm_engine.collective_rpc(method, timeout, args, kwargs)


def _as_list(prompts: PromptType | Sequence[PromptType]) -> list[PromptType]:
    """One prompt or several; numbers alone are one."""
    if isinstance(prompts, (str, dict)):
        return [prompts]
    numbers = [item for item in prompts if isinstance(item, int)]
    return [numbers] if numbers else [item for item in prompts if not isinstance(item, int)]
