"""Regions under nsys and ncu: each worker calls cudaProfilerStart and cudaProfilerStop, asked by a method's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from colonel.errors import ColonelError

WORKER_EXTENSION = "colonel.profiling.vllm.worker.ProfilerWorker"
"""For `LLM(..., worker_extension_cls=WORKER_EXTENSION)`; colonel's vLLM plugin sets it."""

# cudaProfilerStart does not nest: the outermost region of an engine calls.
_open_regions: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


class ProfilerCalls:
    """One region of an engine."""

    def __init__(self, llm: Any, start: tuple[str, tuple[Any, ...]], stop: tuple[str, tuple[Any, ...]]) -> None:
        self.windows: dict[int, int] = {}
        self._llm = llm
        self._start = start
        self._stop = stop

    @classmethod
    def of(cls, llm: Any) -> ProfilerCalls:
        """By the methods that this engine's workers have: colonel's own, else vLLM's `profile`.

        Raises:
            ColonelError: they have neither.
        """
        config = getattr(getattr(llm, "llm_engine", llm), "vllm_config", None)
        extension = getattr(getattr(config, "parallel_config", None), "worker_extension_cls", None)
        if extension == WORKER_EXTENSION:
            return cls(llm, ("colonel_profiler_start", ()), ("colonel_profiler_stop", ()))
        if getattr(getattr(config, "profiler_config", None), "profiler", None) == "cuda":
            return cls(llm, ("profile", (True,)), ("profile", (False,)))
        raise ColonelError(
            "the engine's workers have no method that calls cudaProfilerStart: make the engine with "
            f'LLM(..., worker_extension_cls="{WORKER_EXTENSION}") or LLM(..., profiler_config={{"profiler": "cuda"}}). '
            "With colonel installed beside vLLM its plugin does so, unless VLLM_PLUGINS leaves it out or a "
            "worker_extension_cls is given"
        )

    def open(self) -> None:
        """Calls cudaProfilerStart, unless a region of this engine is open."""
        with self._entering() as is_first:
            if is_first:
                self._llm.collective_rpc(self._start[0], args=self._start[1])

    def close(self) -> None:
        """Calls cudaProfilerStop, unless another region of this engine is open."""
        if self._leave():
            self._llm.collective_rpc(self._stop[0], args=self._stop[1])

    async def open_async(self) -> None:
        """`open` of an `AsyncLLM`."""
        with self._entering() as is_first:
            if is_first:
                await self._llm.collective_rpc(self._start[0], args=self._start[1])

    async def close_async(self) -> None:
        """`close` of an `AsyncLLM`."""
        if self._leave():
            await self._llm.collective_rpc(self._stop[0], args=self._stop[1])

    @contextmanager
    def _entering(self) -> Iterator[bool]:
        _open_regions[self._llm] = _open_regions.get(self._llm, 0) + 1
        try:
            yield _open_regions[self._llm] == 1
        except BaseException:
            # A block that is not entered is not left either.
            _open_regions[self._llm] -= 1
            raise

    def _leave(self) -> bool:
        _open_regions[self._llm] -= 1
        return _open_regions[self._llm] == 0
