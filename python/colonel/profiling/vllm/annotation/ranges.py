"""NVTX ranges around functions and modules, put there for a while and taken away again."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from colonel.errors import CaptureWarning

Name = str | Callable[..., str | None]
"""Name of a range, or what makes it of the call's arguments; none, no range."""
OURS = "_colonel_range"
"""Attribute of a function that was put into vLLM."""


class Ranges:
    """Pushes and pops in NVTX's default domain: by torch, as vLLM's own.

    Raises:
        Exception: there are none in this torch.
    """

    def __init__(self) -> None:
        import torch

        nvtx = torch.cuda.nvtx
        self.push: Callable[[str], Any] = nvtx.range_push
        self.pop: Callable[[], Any] = nvtx.range_pop
        # A torch without NVTX has these functions, too, and raises when they are called: now, and not in a step.
        self.push("colonel")
        self.pop()

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[None]:
        """A range around a block."""
        self.push(name)
        try:
            yield
        finally:
            self.pop()

    def around(self, function: Callable[..., Any], name: Name) -> Callable[..., Any]:
        """The function, in a range."""

        @functools.wraps(function)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            text = name if isinstance(name, str) else _name_of(name, args, kwargs)
            if text is None:
                return function(*args, **kwargs)
            self.push(text)
            try:
                return function(*args, **kwargs)
            finally:
                self.pop()

        return ranged


def _name_of(name: Callable[..., str | None], args: Any, kwargs: Any) -> str | None:
    try:
        return name(*args, **kwargs)
    except Exception as error:
        tell(f"no name for a range: {type(error).__name__}: {error}")
        return None


class Placed:
    """What was put into vLLM, to be taken away again."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def __bool__(self) -> bool:
        return bool(self._undo)

    def replace(self, owner: Any, attribute: str, change: Callable[[Any], Any]) -> None:
        """Puts `change(old)`, a function, in an attribute's place. What is ours already stays as it is.

        Raises:
            AttributeError: it is not there.
        """
        old = getattr(owner, attribute)
        if hasattr(old, OURS):
            return
        own = attribute in vars(owner)
        new = change(old)
        setattr(new, OURS, True)
        setattr(owner, attribute, new)

        def undo() -> None:
            # Unless somebody has replaced it again.
            if vars(owner).get(attribute) is new:
                if own:
                    setattr(owner, attribute, old)
                else:
                    delattr(owner, attribute)

        self._undo.append(undo)

    def hook(self, module: Any, name: str, ranges: Ranges) -> None:
        """A range around each call of a module, by torch's public hooks."""
        hooks = _ModuleRange(name, ranges)
        self._undo.append(module.register_forward_pre_hook(hooks.before).remove)
        # The last to be called, and also where the module raises.
        self._undo.append(module.register_forward_hook(hooks.after, always_call=True).remove)

    def take_away(self) -> None:
        """Undoes it all, the last first. Never raises."""
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as error:
                tell(f"one can't be taken away: {type(error).__name__}: {error}")


class _ModuleRange:
    """The hooks of one module: what is popped was pushed."""

    def __init__(self, name: str, ranges: Ranges) -> None:
        self._name = name
        self._ranges = ranges
        self._open = 0

    # A hook that gives anything but None changes arguments or result.
    def before(self, _module: Any, _args: Any) -> None:
        self._ranges.push(self._name)
        self._open += 1

    def after(self, _module: Any, _args: Any, _output: Any) -> None:
        if self._open:
            self._open -= 1
            self._ranges.pop()


_told: set[str] = set()


def tell(what: str) -> None:
    """Says what is missing, once. Never raises, also where warnings are errors."""
    if what not in _told:
        _told.add(what)
        with contextlib.suppress(Exception):
            warnings.warn(f"colonel: ranges in vLLM: {what}", CaptureWarning, stacklevel=2)
