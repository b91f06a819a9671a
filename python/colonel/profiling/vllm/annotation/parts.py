"""Ranges within a step, and around the capture of graphs, for Model Runner V1 and V2."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from colonel.profiling.vllm.annotation.layers import put_hooks, put_on_attention, put_on_pieces
from colonel.profiling.vllm.annotation.ranges import Placed, Ranges, tell


class Parts:
    """The ranges within the steps of one worker."""

    _there: ClassVar[weakref.WeakSet[Parts]] = weakref.WeakSet()
    """Of this process's workers, those that have them."""
    _shared: ClassVar[Placed] = Placed()
    """In vLLM's modules and classes: one range, however many workers call them."""

    def __init__(self, worker: Any, ranges: Ranges) -> None:
        self._worker = worker
        self._ranges = ranges
        self._placed = Placed()

    def put(self) -> None:
        """Puts them there, unless they are. Never raises: what this vLLM has no place for is told, once."""
        if self in self._there:
            return
        self._there.add(self)
        self._try("forward", self._put_forward)
        self._try("forward of graphs", self._put_replays)
        self._try("logits", self._put_logits)
        self._try("layers", self._put_layers)

    @classmethod
    def take_away(cls) -> None:
        """Takes away those of all workers: nobody listens to any of them. Never raises."""
        if cls._there or cls._shared:
            for parts in list(cls._there):
                parts._placed.take_away()
            cls._there.clear()
            cls._shared.take_away()

    def _try(self, what: str, put: Callable[[Any], None]) -> None:
        try:
            put(self._worker.model_runner)
        except Exception as error:
            tell(f"`{what}` is missing, vLLM has moved: {type(error).__name__}: {error}")

    def _put_forward(self, runner: Any) -> None:
        """The model's call."""
        self._shared.replace(_module_with(runner, "set_forward_context"), "set_forward_context", self._within_context)

    def _put_replays(self, runner: Any) -> None:
        """The replay of the model's graph: V1's lies within the context of a call, V2's has none."""
        if not is_v1(runner) and runner.cudagraph_manager is not None:
            around = functools.partial(self._ranges.around, name="forward")
            self._placed.replace(runner.cudagraph_manager, "run_fullgraph", around)

    def _within_context(self, set_forward_context: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        @functools.wraps(set_forward_context)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            with set_forward_context(*args, **kwargs) as context, self._ranges.open("forward"):
                yield context

        return ranged

    def _put_logits(self, runner: Any) -> None:
        """What follows the last norm, and in it the product with lm_head, which is called without its module."""
        if getattr(runner, "is_pooling_model", False):
            return
        model = runner.get_model()
        self._placed.replace(model, "compute_logits", functools.partial(self._ranges.around, name="logits"))
        method = getattr(getattr(model, "lm_head", None), "quant_method", None)
        if hasattr(method, "apply"):
            self._placed.replace(method, "apply", functools.partial(self._ranges.around, name="lm_head"))

    def _put_layers(self, runner: Any) -> None:
        """By hooks where Python calls the modules."""
        compilation = self._worker.vllm_config.compilation_config
        # Where that has moved there are none: hooks in compiled code would change it.
        if compilation.mode.name == "NONE":
            put_hooks(runner.get_model(), self._placed, self._ranges)
            return
        self._try("attention", self._put_attention)
        if compilation.mode.name == "VLLM_COMPILE":
            self._try("pieces", self._put_pieces)

    def _put_attention(self, _runner: Any) -> None:
        context = self._worker.vllm_config.compilation_config.static_forward_context
        put_on_attention(context, self._placed, self._ranges)

    def _put_pieces(self, _runner: Any) -> None:
        compilation = self._worker.vllm_config.compilation_config
        in_graphs = compilation.cudagraph_mode.has_piecewise_cudagraphs()
        by_inductor = getattr(compilation, "use_inductor_graph_partition", False)
        put_on_pieces(in_graphs and not by_inductor, self._shared, self._ranges)


class Capture:
    """Ranges around the capture of each graph: `capture batch=8`."""

    def __init__(self, worker: Any, ranges: Ranges) -> None:
        self._worker = worker
        self._ranges = ranges
        self._placed = Placed()

    def put(self) -> None:
        """Puts them there. Never raises."""
        try:
            runner = self._worker.model_runner
            if is_v1(runner):
                self._placed.replace(runner, "_warmup_and_capture", lambda old: self._ranges.around(old, _named))
            else:
                # The base class's: it gets what makes the functions that are captured, of the model or of a drafter.
                manager = _class_with(runner.cudagraph_manager, "CudaGraphManager")
                self._placed.replace(manager, "capture", self._each_function)
        except Exception as error:
            tell(f"`capture` is missing, vLLM has moved: {type(error).__name__}: {error}")

    def take_away(self) -> None:
        """Takes them away. Never raises."""
        self._placed.take_away()

    def _each_function(self, capture: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(capture)
        def ranged(manager: Any, *args: Any, **kwargs: Any) -> Any:
            if args and callable(args[0]):
                args = (self._each_made(args[0]), *args[1:])
            else:
                tell(f"`capture` is missing, vLLM has moved: {type(manager).__name__} was given no function to capture")
            return capture(manager, *args, **kwargs)

        return ranged

    def _each_made(self, create_forward_fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(create_forward_fn)
        def create(*args: Any, **kwargs: Any) -> Any:
            forward_fn = create_forward_fn(*args, **kwargs)
            return self._ranges.around(forward_fn, lambda *_, **__: _named(*args, **kwargs))

        return create


def _named(size: Any, *_: Any, **__: Any) -> str:
    """Of a graph's descriptor. One that is only a piece of a step is for any number of requests with so many tokens."""
    return f"capture batch={getattr(size, 'num_reqs', None) or size.num_tokens}"


def is_v1(runner: Any) -> bool:
    """Whether a runner is V1's. V2's has a manager of graphs, None until there is a cache.

    Raises:
        AttributeError: it is neither.
    """
    if hasattr(runner, "cudagraph_manager"):
        return False
    if hasattr(runner, "_warmup_and_capture"):
        return True
    raise AttributeError(f"{type(runner).__name__} has neither `cudagraph_manager` nor `_warmup_and_capture`")


def _module_with(runner: Any, name: str) -> Any:
    """The module of the runner's class, or of the one that it derives from, which has a global of that name."""
    for cls in type(runner).__mro__:
        module = sys.modules.get(cls.__module__)
        if hasattr(module, name):
            return module
    raise AttributeError(f"the module of {type(runner).__name__} has no `{name}`")


def _class_with(manager: Any, name: str) -> Any:
    for cls in type(manager).__mro__:
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"{type(manager).__name__} is no {name}")
