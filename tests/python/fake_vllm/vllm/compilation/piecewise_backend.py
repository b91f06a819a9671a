"""A compiled piece of the model (compilation/piecewise_backend.py)."""

from collections.abc import Callable


class PiecewiseBackend:
    def __init__(self, run: Callable[[int], None], piecewise_compile_index: int) -> None:
        self._run = run
        self.piecewise_compile_index = piecewise_compile_index

    def __call__(self, tokens: int) -> int:
        self._run(tokens)
        return tokens
