"""What callers get back (outputs.py, v1/engine/output_processor.py)."""

from dataclasses import dataclass, field
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: Any = None
    metrics: Any = None


@dataclass
class _Request:
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    with_text: bool
    tokens: list[int] = field(default_factory=list)


class OutputProcessor:
    """From the engine's tokens to `RequestOutput`s; lives in the caller's process."""

    def __init__(self, with_text: bool) -> None:
        self._with_text = with_text
        self._requests: dict[str, _Request] = {}

    def add_request(self, request_id: str, prompt: Any, prompt_token_ids: list[int], params: SamplingParams) -> None:
        if request_id in self._requests:
            raise ValueError(f"Request id {request_id} already running.")
        text = prompt if isinstance(prompt, str) else None
        with_text = self._with_text and params.detokenize
        self._requests[request_id] = _Request(text, prompt_token_ids, params, with_text)

    def abort(self, request_id: str) -> None:
        self._requests.pop(request_id, None)

    def has_unfinished_requests(self) -> bool:
        return bool(self._requests)

    def process(self, outputs: list[tuple[str, int, str | None]]) -> list[RequestOutput]:
        """`outputs` are new tokens: request, token, and why the request ended, if it did."""
        done = [self._process(*output) for output in outputs]
        return [output for output in done if output is not None]

    def _process(self, request_id: str, token: int, finish_reason: str | None) -> RequestOutput | None:
        request = self._requests.get(request_id)
        if request is None:
            # Aborted here; the engine had not heard of it yet.
            return None
        request.tokens.append(token)
        kind = request.params.output_kind
        if finish_reason is not None:
            del self._requests[request_id]
        elif kind is RequestOutputKind.FINAL_ONLY:
            return None
        tokens = [token] if kind is RequestOutputKind.DELTA else list(request.tokens)
        text = "".join(f" {token}" for token in tokens) if request.with_text else ""
        completion = CompletionOutput(0, text, tokens, finish_reason=finish_reason)
        finished = finish_reason is not None
        return RequestOutput(request_id, request.prompt, request.prompt_token_ids, [completion], finished)
