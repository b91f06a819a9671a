"""Ranges within a step, and around the capture of graphs, for Model Runner V1 and V2."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

from colonel.profiling.vllm.annotation.layers import put_hooks, put_on_attention, put_on_pieces
from colonel.profiling.vllm.annotation.ranges import Placed, Ranges, tell


class Parts:
    """The ranges within the steps of one worker."""

    def __init__(self, worker: Any, ranges: Ranges) -> None:
        self.there = False
        self._worker = worker
        self._ranges = ranges
        self._placed = Placed()

    def put(self) -> None:
        """Puts them there. What this vLLM has no place for is told, once."""
        self.there = True
        runner = self._worker.model_runner
        self._try("forward", self._put_forward, runner)
        self._try("logits", self._put_logits, runner)
        if is_compiled(self._worker.vllm_config):
            self._try("attention", self._put_attention)
            self._try("pieces", self._put_pieces)
        else:
            self._try("layers", lambda: put_hooks(runner.get_model(), self._placed, self._ranges))

    def take_away(self) -> None:
        """Takes them away."""
        self.there = False
        self._placed.take_away()

    def _try(self, what: str, put: Callable[..., None], *args: Any) -> None:
        try:
            put(*args)
        except Exception as error:
            tell(f"`{what}` is missing, vLLM has moved: {type(error).__name__}: {error}")

    def _put_forward(self, runner: Any) -> None:
        """The model's call, or the replay of its graph."""
        # V1 does both within this context, V2 replays without it.
        self._placed.replace(_module_with(runner, "set_forward_context"), "set_forward_context", self._within_context)
        manager = getattr(runner, "cudagraph_manager", None)
        if manager is not None:
            self._placed.replace(manager, "run_fullgraph", lambda old: self._ranges.around(old, "forward"))

    def _within_context(self, set_forward_context: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        @functools.wraps(set_forward_context)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            with set_forward_context(*args, **kwargs) as context, self._ranges.open("forward"):
                yield context

        return ranged

    def _put_logits(self, runner: Any) -> None:
        """What follows the last norm, and in it the product with lm_head, which is called without its module."""
        model = runner.get_model()
        if not hasattr(model, "compute_logits"):
            return  # A pooling model.
        self._placed.replace(model, "compute_logits", lambda old: self._ranges.around(old, "logits"))
        method = getattr(getattr(model, "lm_head", None), "quant_method", None)
        if hasattr(method, "apply"):
            self._placed.replace(method, "apply", lambda old: self._ranges.around(old, "lm_head"))

    def _put_attention(self) -> None:
        context = self._worker.vllm_config.compilation_config.static_forward_context
        put_on_attention(context, self._placed, self._ranges)

    def _put_pieces(self) -> None:
        compilation = self._worker.vllm_config.compilation_config
        if compilation.mode.name == "VLLM_COMPILE":
            in_graphs = compilation.cudagraph_mode.has_piecewise_cudagraphs()
            by_inductor = getattr(compilation, "use_inductor_graph_partition", False)
            put_on_pieces(in_graphs and not by_inductor, self._placed, self._ranges)


class Capture:
    """Ranges around the capture of each graph: `capture batch=8`."""

    def __init__(self, runner: Any, ranges: Ranges) -> None:
        self._runner = runner
        self._ranges = ranges
        self._placed = Placed()

    def put(self) -> None:
        """Puts them there."""
        runner = self._runner
        try:
            if hasattr(runner, "_warmup_and_capture"):
                self._placed.replace(runner, "_warmup_and_capture", lambda old: self._ranges.around(old, _named))
            else:
                # The base class's: it gets what makes the functions that are captured, of the model or of a drafter.
                manager = _class_with(runner.cudagraph_manager, "CudaGraphManager")
                self._placed.replace(manager, "capture", self._each_function)
        except Exception as error:
            tell(f"`capture` is missing, vLLM has moved: {type(error).__name__}: {error}")

    def take_away(self) -> None:
        """Takes them away."""
        self._placed.take_away()

    def _each_function(self, capture: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(capture)
        def ranged(manager: Any, create_forward_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            @functools.wraps(create_forward_fn)
            def create(size: Any, *more: Any, **named: Any) -> Any:
                return self._ranges.around(create_forward_fn(size, *more, **named), _named(size))

            return capture(manager, create, *args, **kwargs)

        return ranged


def _named(size: Any, *_: Any, **__: Any) -> str:
    """Of a graph's descriptor. One that is only a piece of a step is for any number of requests with so many tokens."""
    return f"capture batch={getattr(size, 'num_reqs', None) or size.num_tokens}"


def is_compiled(config: Any) -> bool:
    """Whether the model is run by torch.compile."""
    mode = getattr(getattr(config, "compilation_config", None), "mode", None)
    return getattr(mode, "name", "NONE") != "NONE"


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
