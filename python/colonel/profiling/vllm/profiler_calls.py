"""Regions under nsys and ncu: each worker calls cudaProfilerStart and cudaProfilerStop, asked by a method's name."""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from colonel.errors import CaptureWarning, ColonelError

WORKER_EXTENSION = "colonel.profiling.vllm.worker.ProfilerWorker"
"""For `LLM(..., worker_extension_cls=WORKER_EXTENSION)`; colonel's vLLM plugin sets it."""

Call = tuple[str, tuple[Any, ...]]


@dataclass
class _Regions:
    """The open regions of one engine. cudaProfilerStart does not nest: the outermost one calls, the others wait."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    async_lock: asyncio.Lock = field(default_factory=asyncio.Lock)


# By engine: an LLM and its LLMEngine are one.
_regions: WeakKeyDictionary[Any, _Regions] = WeakKeyDictionary()


class ProfilerCalls:
    """One region of an engine."""

    def __init__(self, llm: Any, start: Call, stop: Call) -> None:
        self.windows: dict[int, int] = {}
        self._llm = llm
        self._start = start
        self._stop = stop
        self._regions = _regions.setdefault(_engine(llm), _Regions())

    @classmethod
    def of(cls, llm: Any) -> ProfilerCalls:
        """By the methods that this engine's workers have: colonel's own, else vLLM's `profile`.

        Raises:
            ColonelError: they have neither.
        """
        config = getattr(_engine(llm), "vllm_config", None)
        extension = getattr(getattr(config, "parallel_config", None), "worker_extension_cls", None)
        if extension == WORKER_EXTENSION:
            return cls(llm, ("colonel_profiler_start", ()), ("colonel_profiler_stop", ()))
        profiler = getattr(config, "profiler_config", None)
        if getattr(profiler, "profiler", None) == "cuda":
            for setting in ("delay_iterations", "max_iterations"):
                if getattr(profiler, setting, 0):
                    warnings.warn(
                        f"profiler_config's {setting} starts or stops recording by itself inside of regions",
                        CaptureWarning,
                        stacklevel=4,
                    )
            return cls(llm, ("profile", (True,)), ("profile", (False,)))
        raise ColonelError(
            "the engine's workers have no method that calls cudaProfilerStart: make the engine with "
            f'LLM(..., worker_extension_cls="{WORKER_EXTENSION}") or LLM(..., profiler_config={{"profiler": "cuda"}}). '
            "With colonel installed beside vLLM its plugin does so, unless VLLM_PLUGINS leaves it out or a "
            "worker_extension_cls is given"
        )

    def open(self) -> None:
        """Calls cudaProfilerStart, unless a region of this engine is open."""
        with self._regions.lock:
            if self._regions.count == 0:
                self._call(self._start)
            self._regions.count += 1

    def close(self) -> None:
        """Calls cudaProfilerStop, unless another region of this engine is open."""
        with self._regions.lock:
            self._regions.count -= 1
            if self._regions.count == 0:
                self._call(self._stop)

    async def open_async(self) -> None:
        """`open` of an `AsyncLLM`; of another engine beside a running event loop."""
        if not inspect.iscoroutinefunction(self._llm.collective_rpc):
            return self.open()
        async with self._regions.async_lock:
            if self._regions.count == 0:
                await self._start_or_undo()
            self._regions.count += 1

    async def close_async(self) -> None:
        """`close` of an `AsyncLLM`; of another engine beside a running event loop."""
        if not inspect.iscoroutinefunction(self._llm.collective_rpc):
            return self.close()
        async with self._regions.async_lock:
            self._regions.count -= 1
            if self._regions.count == 0:
                await self._call(self._stop)

    async def _start_or_undo(self) -> None:
        """Starts; if cancelled meanwhile, stops again, since what was sent can't be taken back."""
        starting = asyncio.ensure_future(self._call(self._start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._stop_after)
            raise

    def _stop_after(self, starting: asyncio.Future[Any]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            stopping = asyncio.ensure_future(self._call(self._stop))
            _undoing.add(stopping)
            stopping.add_done_callback(_undoing.discard)

    def _call(self, call: Call) -> Any:
        method, arguments = call
        return self._llm.collective_rpc(method, args=arguments)


# Tasks that nobody awaits live as long as somebody refers to them.
_undoing: set[asyncio.Future[Any]] = set()


def _engine(llm: Any) -> Any:
    return getattr(llm, "llm_engine", llm)
