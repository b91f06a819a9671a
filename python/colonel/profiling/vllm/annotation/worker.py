"""A worker's steps, and when the ranges within them come and go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from colonel.profiling.vllm.annotation.listeners import listener
from colonel.profiling.vllm.annotation.parts import Capture, Parts
from colonel.profiling.vllm.annotation.ranges import Placed, Ranges, tell


def annotate(worker: Any) -> None:
    """Gives a worker its ranges, once it has its model runner. Never raises."""
    try:
        ranges = Ranges()
    except Exception as error:
        tell(f"there are none: torch has no NVTX: {type(error).__name__}: {error}")
        return
    steps = Steps(worker, ranges, listener())
    for owner, attribute, change in (
        (worker, "execute_model", steps.around_execute_model),
        (worker, "sample_tokens", steps.around_sample_tokens),
        (getattr(worker, "model_runner", None), "capture_model", steps.around_capture_model),
    ):
        try:
            Placed().replace(owner, attribute, change)
        except Exception as error:
            tell(f"those of `{attribute}` are missing, vLLM has moved: {type(error).__name__}: {error}")


class Steps:
    """The steps of one worker: `prefill batch=4 tokens=96` around `execute_model`, and around `sample_tokens` again."""

    def __init__(self, worker: Any, ranges: Ranges, is_heard: Callable[[], bool]) -> None:
        self._worker = worker
        self._ranges = ranges
        self._is_heard = is_heard
        self._parts = Parts(worker, ranges)
        self._step: str | None = None
        """Of the step between its two calls."""

    def around_execute_model(self, execute_model: Callable[..., Any]) -> Callable[..., Any]:
        """With a range for the step while somebody listens."""

        @functools.wraps(execute_model)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            step = self._step = self._begin(args, kwargs)
            if step is None:
                return execute_model(*args, **kwargs)
            with self._ranges.open(step):
                return execute_model(*args, **kwargs)

        return ranged

    def around_sample_tokens(self, sample_tokens: Callable[..., Any]) -> Callable[..., Any]:
        """With the step's range and `sampling` in it."""

        @functools.wraps(sample_tokens)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            step, self._step = self._step, None
            if step is None:
                return sample_tokens(*args, **kwargs)
            with self._ranges.open(step), self._ranges.open("sampling"):
                return sample_tokens(*args, **kwargs)

        return ranged

    def around_capture_model(self, capture_model: Callable[..., Any]) -> Callable[..., Any]:
        """With all ranges: what is captured now is replayed in a window later."""

        @functools.wraps(capture_model)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            capture = Capture(self._worker.model_runner, self._ranges)
            self._put(True)
            capture.put()
            try:
                return capture_model(*args, **kwargs)
            finally:
                capture.take_away()
                self._put(False)

        return ranged

    def _begin(self, args: Any, kwargs: Any) -> str | None:
        """The name of a step that somebody listens to, its parts' ranges in place."""
        is_heard = self._is_heard()
        if is_heard is not self._parts.there:
            self._put(is_heard)
        if not is_heard:
            return None
        try:
            return step_name(args[0] if args else kwargs["scheduler_output"])
        except Exception as error:
            tell(f"steps have no names, vLLM has moved: {type(error).__name__}: {error}")
            return None

    def _put(self, there: bool) -> None:
        try:
            if there:
                self._parts.put()
            else:
                self._parts.take_away()
        except Exception as error:
            tell(f"{type(error).__name__}: {error}")


def step_name(scheduled: Any) -> str | None:
    """Of vLLM's `SchedulerOutput`. A step in which any request is still at its prompt is one of prefill."""
    tokens = scheduled.total_num_scheduled_tokens
    if not tokens:
        return None
    running = scheduled.scheduled_cached_reqs
    # As vLLM's own annotation: a request without an output token is at its prompt, and so is one that was preempted.
    is_prefill = scheduled.scheduled_new_reqs or 0 in running.num_output_tokens or running.resumed_req_ids
    phase = "prefill" if is_prefill else "decode"
    return f"{phase} batch={len(scheduled.num_scheduled_tokens)} tokens={tokens}"
