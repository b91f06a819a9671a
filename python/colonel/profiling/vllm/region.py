"""`profile_region`: records what an engine's workers launch while a block runs."""

from __future__ import annotations

import asyncio
import inspect
import os
from types import TracebackType
from typing import Any, Protocol

from colonel.profiling.vllm.profiler_calls import ProfilerCalls
from colonel.profiling.vllm.switches import is_on
from colonel.profiling.vllm.windows import ControlledWindows
from colonel.sessions import Session, own_session

DISABLE = "COLONEL_DISABLE_PROFILE_REGION"
EVALUATOR = "COLONEL_EVALUATOR"


class Recording(Protocol):
    """How a region is recorded, which depends on the profiler of the session."""

    windows: dict[int, int]

    def open(self) -> None:
        """Starts recording in every worker."""

    def close(self) -> None:
        """Stops it; every worker has done so when this returns."""

    async def open_async(self) -> None:
        """`open` beside a running event loop."""

    async def close_async(self) -> None:
        """`close` beside a running event loop."""


class ProfileRegion:
    """A block that is recorded, see `profile_region`. Each one is entered once."""

    def __init__(self, llm: Any, name: str | None) -> None:
        if not callable(getattr(llm, "collective_rpc", None)):
            raise TypeError(f"profile_region takes a vLLM LLM, LLMEngine or AsyncLLM, not {type(llm).__name__}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a region is a str, not {type(name).__name__}")
        self.name = name
        self.active = not is_disabled()
        """False where `COLONEL_DISABLE_PROFILE_REGION` turns regions off: nothing happens then."""
        self.session: Session | None = None
        """The session that is recorded: readable when the block has ended and no other window is open."""
        self._llm = llm
        self._recording: Recording | None = None

    @property
    def windows(self) -> dict[int, int]:
        """Number of the window in each worker, by pid; empty where the profiler is not colonel's own."""
        return {} if self._recording is None else dict(self._recording.windows)

    def __enter__(self) -> ProfileRegion:
        if self.active and is_async(self._llm):
            raise TypeError(f"{type(self._llm).__name__} is asynchronous: write `async with profile_region(llm):`")
        recording = self._prepare()
        if recording is not None:
            recording.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._recording is not None:
            self._recording.close()

    async def __aenter__(self) -> ProfileRegion:
        recording = self._prepare()
        if recording is not None:
            await recording.open_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._recording is not None:
            # A cancelled block closes its window all the same.
            await asyncio.shield(self._recording.close_async())

    def _prepare(self) -> Recording | None:
        if not self.active:
            return None
        if self._recording is not None:
            raise RuntimeError("this region was entered before: call profile_region(llm) for each block")
        self.session = own_session()
        if os.environ.get(EVALUATOR, "cupti") == "cupti":
            self._recording = ControlledWindows(self._llm, self.session, self.name)
        else:
            self._recording = ProfilerCalls.of(self._llm)
        return self._recording


def profile_region(llm: Any, *, name: str | None = None) -> ProfileRegion:
    """Records what the workers of `llm` launch while the block runs.

        with profile_region(llm, name="decode"):
            llm.generate(prompts)

    With an `AsyncLLM` it is `async with`. Regions nest, repeat and overlap; a kernel belongs to the one opened last
    of those around its launch. When the block has ended, however it ended, every worker has closed its window, and
    what was recorded is on disk unless another window is still open.

    Under colonel's own profiler (the default) each worker is asked through its guest's control socket: no vLLM RPC, no
    pickled code, so VLLM_ALLOW_INSECURE_SERIALIZATION is not needed, nor any argument of `LLM`. Under nsys and ncu the
    workers call cudaProfilerStart and cudaProfilerStop.

    With COLONEL_DISABLE_PROFILE_REGION=1 nothing happens, so that the same script runs in production. What can't be
    recorded is told by a `colonel.CaptureWarning`, and the block runs.

    Args:
        llm: `vllm.LLM`, `LLMEngine` or `AsyncLLM`.
        name: Name of the windows, for `colonel show --window NAME`.

    Raises:
        colonel.NoSessionError: on entering, outside `colonel run`.
        colonel.NoWorkerError: on entering, where no process of the engine is captured.
    """
    return ProfileRegion(llm, name)


def is_disabled() -> bool:
    """True where the environment turns regions off."""
    return is_on(DISABLE, stacklevel=4)


def is_async(llm: Any) -> bool:
    """True for an `AsyncLLM`."""
    return inspect.iscoroutinefunction(getattr(llm, "collective_rpc", None))
