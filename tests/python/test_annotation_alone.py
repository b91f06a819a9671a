"""Colonel's ranges in vLLM without vLLM: they are balanced, and what has moved or raises is told, never raised."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from colonel.errors import CaptureWarning
from colonel.profiling.vllm.annotation import ranges as ranges_module
from colonel.profiling.vllm.annotation.parts import Capture, Parts
from colonel.profiling.vllm.annotation.ranges import Placed, Ranges
from colonel.profiling.vllm.annotation.worker import Steps, annotate


class Nvtx(SimpleNamespace):
    """torch.cuda.nvtx: the paths that were opened, and what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        self.open: list[str] = []

    def range_push(self, name: str) -> None:
        self.open.append(name)
        self.paths.append("/".join(self.open))

    def range_pop(self) -> None:
        self.open.pop()


@pytest.fixture
def nvtx(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvtx]:
    nvtx = Nvtx()
    torch = SimpleNamespace(cuda=SimpleNamespace(nvtx=nvtx), nn=SimpleNamespace(ModuleList=list))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(ranges_module, "_told", set())
    yield nvtx
    Parts.take_away()
    assert nvtx.open == []


@pytest.fixture
def ranges(nvtx: Nvtx) -> Ranges:
    ranges = Ranges()
    nvtx.paths.clear()
    return ranges


def scheduled(tokens: int = 1) -> SimpleNamespace:
    """A step of decode."""
    known = SimpleNamespace(num_output_tokens=[5], resumed_req_ids=set())
    return SimpleNamespace(
        scheduled_new_reqs=[],
        scheduled_cached_reqs=known,
        num_scheduled_tokens={"a": tokens},
        total_num_scheduled_tokens=tokens,
    )


def steps_of(ranges: Ranges, is_heard: Callable[[], bool] = lambda: True) -> Steps:
    """Of a worker whose parts have all moved."""
    return Steps(SimpleNamespace(), ranges, is_heard)


@contextlib.contextmanager
def telling() -> Iterator[list[str]]:
    """What is told within the block, there after it."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
    told += [str(warning.message) for warning in caught]


def quiet(function: Callable[..., Any], *args: Any) -> Any:
    with telling():
        return function(*args)


def fails(*_: Any) -> None:
    raise ValueError("vLLM's own")


def test_a_torch_without_nvtx_has_no_ranges(nvtx: Nvtx) -> None:
    def raises(_name: str) -> None:
        raise RuntimeError("NVTX functions not installed. Are you sure you have a CUDA build?")

    nvtx.range_push = raises
    worker = SimpleNamespace(execute_model=fails, model_runner=SimpleNamespace())
    with pytest.warns(CaptureWarning, match="there are none: torch has no NVTX: RuntimeError: NVTX functions not"):
        annotate(SimpleNamespace(worker=worker))
    assert worker.execute_model is fails


def test_a_wrapper_without_a_worker_is_told(nvtx: Nvtx) -> None:
    with pytest.warns(CaptureWarning, match="there are none: vLLM has moved: AttributeError"):
        annotate(SimpleNamespace())


def test_rays_way_past_the_worker_is_told(nvtx: Nvtx) -> None:
    class RayWorkerWrapper:
        worker = SimpleNamespace(model_runner=SimpleNamespace())

        def execute_model_ray(self) -> None: ...

    with telling() as told:
        annotate(RayWorkerWrapper())
    assert "none in steps: Ray's compiled graph calls the model runner past" in told[-1]


def test_a_step_is_one_range_until_it_is_sampled(nvtx: Nvtx, ranges: Ranges) -> None:
    steps = steps_of(ranges)
    execute, sample = steps.around_execute_model(lambda _: None), steps.around_sample_tokens(lambda _: "tokens")
    quiet(execute, scheduled())
    assert nvtx.open == ["decode batch=1 tokens=1"]
    assert sample(None) == "tokens"
    assert nvtx.open == []
    assert nvtx.paths == ["decode batch=1 tokens=1", "decode batch=1 tokens=1/sampling"]
    assert sample(None) == "tokens"
    assert len(nvtx.paths) == 2, "sampling without a step"


def test_a_step_with_nothing_to_sample_ends_at_once(nvtx: Nvtx, ranges: Ranges) -> None:
    execute = steps_of(ranges).around_execute_model(lambda _: "pooled")
    assert quiet(execute, scheduled()) == "pooled"
    assert (nvtx.open, len(nvtx.paths)) == ([], 1)


def test_a_step_that_raises_ends(nvtx: Nvtx, ranges: Ranges) -> None:
    steps = steps_of(ranges)
    with pytest.raises(ValueError, match="vLLM's own"):
        quiet(steps.around_execute_model(fails), scheduled())
    assert (nvtx.open, len(nvtx.paths)) == ([], 1)
    quiet(steps.around_execute_model(lambda _: None), scheduled())
    with pytest.raises(ValueError, match="vLLM's own"):
        steps.around_sample_tokens(fails)(None)
    assert nvtx.open == []


@pytest.mark.parametrize("around", ["execute_model", "execute_dummy_batch", "shutdown"])
def test_a_step_that_is_never_sampled_ends_before_what_comes_next(nvtx: Nvtx, ranges: Ranges, around: str) -> None:
    steps = steps_of(ranges)
    quiet(steps.around_execute_model(lambda _: None), scheduled(1))
    quiet(getattr(steps, f"around_{around}")(lambda *_: "output"), scheduled(2))
    assert nvtx.open == []
    assert "/" not in "".join(nvtx.paths)


def test_a_step_whose_window_closes_before_it_is_sampled_ends(nvtx: Nvtx, ranges: Ranges) -> None:
    heard = [True]
    steps = steps_of(ranges, lambda: heard[0])
    quiet(steps.around_execute_model(lambda _: None), scheduled())
    heard[0] = False
    steps.around_sample_tokens(lambda _: None)(None)
    assert nvtx.open == []
    steps.around_execute_model(lambda _: None)(scheduled())
    assert len(nvtx.paths) == 2


def test_a_dummy_batch_that_raises_leaves_nothing_open(nvtx: Nvtx, ranges: Ranges) -> None:
    with pytest.raises(ValueError, match="vLLM's own"):
        quiet(steps_of(ranges).around_execute_dummy_batch(fails))
    assert nvtx.paths == ["dummy"]
    assert nvtx.open == []


def test_a_failing_capture_raises_its_own_error(ranges: Ranges) -> None:
    capture = steps_of(ranges).around_capture_model(fails)
    with telling() as told, pytest.raises(ValueError, match="vLLM's own"):
        capture()
    assert any("`capture` is missing, vLLM has moved: AttributeError" in line for line in told)


class CudaGraphManager:
    """V2's."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def capture(self, create_forward_fn: Callable[..., Callable[[Any], None]], desc: Any = None) -> None:
        create_forward_fn(desc)(self.ran)


@pytest.mark.parametrize(
    ("given", "desc", "path", "tells"),
    [
        ("positional", SimpleNamespace(num_tokens=8, num_reqs=4), ["capture batch=4"], ""),
        ("positional", "a size", [], "no name for a range: AttributeError"),
        ("keyword", SimpleNamespace(num_tokens=8), [], "CudaGraphManager was given no function to capture"),
    ],
)
def test_a_capture_that_has_moved_goes_on(
    nvtx: Nvtx, ranges: Ranges, given: str, desc: Any, path: list[str], tells: str
) -> None:
    manager = CudaGraphManager()
    capture = Capture(SimpleNamespace(model_runner=SimpleNamespace(cudagraph_manager=manager)), ranges)

    def create(desc: Any) -> Callable[[list[Any]], None]:
        return lambda ran: ran.append(desc)

    with telling() as told:
        capture.put()
        if given == "keyword":
            manager.capture(create_forward_fn=create, desc=desc)
        else:
            manager.capture(create, desc)
        capture.take_away()
        manager.capture(create, desc)
    assert manager.ran == [desc, desc]
    assert nvtx.paths == path
    assert len(told) == bool(tells)
    assert tells in "".join(told)


def test_parts_that_have_moved_are_told_each(ranges: Ranges) -> None:
    hooked: list[Any] = []
    model = SimpleNamespace(named_modules=lambda: hooked.append(model) or [])
    runner = SimpleNamespace(get_model=lambda: model)
    worker = SimpleNamespace(model_runner=runner, vllm_config=SimpleNamespace(compilation_config=SimpleNamespace()))
    parts = Parts(worker, ranges)
    with telling() as told:
        parts.put()
        parts.put()
    missing = ["forward", "forward of graphs", "logits", "layers"]
    assert [line.split("`")[1] for line in told] == missing
    assert hooked == [], "a model of which nobody says whether it is compiled"


def test_what_is_there_is_put_once_and_taken_away_whatever_raises(ranges: Ranges) -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.call = lambda: "as before"

        def __setattr__(self, name: str, value: Any) -> None:
            if name in vars(self) and hasattr(vars(self)[name], ranges_module.OURS):
                raise TypeError("no")
            super().__setattr__(name, value)

    first, second = SimpleNamespace(call=lambda: "as before"), Stubborn()
    before = first.call
    placed = Placed()
    for owner in (first, first, second):
        placed.replace(owner, "call", lambda old: ranges.around(old, "call"))
    with pytest.warns(CaptureWarning, match="one can't be taken away: TypeError: no"):
        placed.take_away()
    assert first.call is before
    assert not placed
