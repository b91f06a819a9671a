"""A worker's steps, and when the ranges within them come and go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from colonel.profiling.vllm.annotation.listeners import listener
from colonel.profiling.vllm.annotation.parts import Capture, Parts
from colonel.profiling.vllm.annotation.ranges import Placed, Ranges, tell


def annotate(wrapper: Any) -> None:
    """Gives a wrapper's worker its ranges, once it has its model runner. Never raises."""
    try:
        ranges = Ranges()
    except Exception as error:
        tell(f"there are none: torch has no NVTX: {type(error).__name__}: {error}")
        return
    try:
        _annotate(wrapper.worker, ranges)
    except Exception as error:
        tell(f"there are none: vLLM has moved: {type(error).__name__}: {error}")
    if hasattr(type(wrapper), "execute_model_ray"):
        tell("there are none in steps: Ray's compiled graph calls the model runner past the worker's `execute_model`")


def _annotate(worker: Any, ranges: Ranges) -> None:
    steps = Steps(worker, ranges, listener())
    for owner, attribute, change in (
        (worker, "execute_model", steps.around_execute_model),
        (worker, "sample_tokens", steps.around_sample_tokens),
        (worker, "execute_dummy_batch", steps.around_execute_dummy_batch),
        (worker, "shutdown", steps.around_shutdown),
        (worker.model_runner, "capture_model", steps.around_capture_model),
    ):
        try:
            Placed().replace(owner, attribute, change)
        except Exception as error:
            tell(f"those of `{attribute}` are missing, vLLM has moved: {type(error).__name__}: {error}")


class Steps:
    """The steps of one worker: `prefill batch=4 tokens=96`, from `execute_model` to the end of `sample_tokens`."""

    def __init__(self, worker: Any, ranges: Ranges, is_heard: Callable[[], bool]) -> None:
        self._worker = worker
        self._ranges = ranges
        self._is_heard = is_heard
        self._parts = Parts(worker, ranges)
        self._is_open = False
        """Whether the range of a step is."""

    def around_execute_model(self, execute_model: Callable[..., Any]) -> Callable[..., Any]:
        """Begins a step's range while somebody listens, and ends it if the step is over."""

        @functools.wraps(execute_model)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            self._end()  # Of a step that nobody has sampled.
            if self._look():
                self._begin(args, kwargs)
            is_to_sample = False
            try:
                output = execute_model(*args, **kwargs)
                # As in vLLM's engine: None says that `sample_tokens` has the output.
                is_to_sample = output is None
                return output
            finally:
                if not is_to_sample:
                    self._end()

        return ranged

    def around_sample_tokens(self, sample_tokens: Callable[..., Any]) -> Callable[..., Any]:
        """With `sampling` in the step's range, and the end of that."""

        @functools.wraps(sample_tokens)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            if not self._is_open:
                return sample_tokens(*args, **kwargs)
            try:
                with self._ranges.open("sampling"):
                    return sample_tokens(*args, **kwargs)
            finally:
                self._end()

        return ranged

    def around_execute_dummy_batch(self, execute_dummy_batch: Callable[..., Any]) -> Callable[..., Any]:
        """With the range `dummy`: what a data-parallel rank runs while others have requests and it has none."""

        @functools.wraps(execute_dummy_batch)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            self._end()
            if not self._look():
                return execute_dummy_batch(*args, **kwargs)
            with self._ranges.open("dummy"):
                return execute_dummy_batch(*args, **kwargs)

        return ranged

    def around_capture_model(self, capture_model: Callable[..., Any]) -> Callable[..., Any]:
        """With all ranges: what is captured now is replayed in a window later."""

        @functools.wraps(capture_model)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            capture = Capture(self._worker, self._ranges)
            self._parts.put()
            capture.put()
            try:
                return capture_model(*args, **kwargs)
            finally:
                capture.take_away()
                Parts.take_away()

        return ranged

    def around_shutdown(self, shutdown: Callable[..., Any]) -> Callable[..., Any]:
        """Leaves nothing behind in a process that goes on. Another worker's next step puts its own there again."""

        @functools.wraps(shutdown)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            self._end()
            Parts.take_away()
            return shutdown(*args, **kwargs)

        return ranged

    def _look(self) -> bool:
        """Whether somebody listens. Where nobody does, nothing of ours is left in a step."""
        is_heard = self._is_heard()
        if is_heard:
            self._parts.put()
        else:
            Parts.take_away()
        return is_heard

    def _begin(self, args: Any, kwargs: Any) -> None:
        try:
            step = step_name(args[0] if args else kwargs["scheduler_output"])
        except Exception as error:
            tell(f"steps have no names, vLLM has moved: {type(error).__name__}: {error}")
            return
        if step is not None:
            self._ranges.push(step)
            self._is_open = True

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._ranges.pop()


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
