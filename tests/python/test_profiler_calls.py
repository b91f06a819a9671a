"""Regions under nsys and ncu, on engines that only note what they are asked."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace as Namespace
from typing import Any

import colonel
import pytest
from colonel.profiling.vllm.profiler_calls import WORKER_EXTENSION, ProfilerCalls

START, STOP = "colonel_profiler_start", "colonel_profiler_stop"


class Engine:
    def __init__(self, **profiler: Any) -> None:
        extension = "" if profiler else WORKER_EXTENSION
        self.vllm_config = Namespace(
            parallel_config=Namespace(worker_extension_cls=extension), profiler_config=Namespace(**profiler)
        )
        self.asked: list[str] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[None]:
        self.asked.append(method)
        return [None]


class AsyncEngine(Engine):
    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[None]:  # type: ignore[override]
        self.asked.append(method)
        await asyncio.sleep(0.05)
        self.asked.append(f"{method} done")
        return [None]


def test_an_llm_and_its_engine_are_one() -> None:
    engine = Engine()
    llm = Namespace(llm_engine=engine, collective_rpc=engine.collective_rpc)
    outer, inner = ProfilerCalls.of(llm), ProfilerCalls.of(engine)
    outer.open()
    inner.open()
    inner.close()
    assert engine.asked == [START]
    outer.close()
    assert engine.asked == [START, STOP]


def test_a_start_that_fails_opens_nothing() -> None:
    engine = Engine()
    engine.collective_rpc = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    region = ProfilerCalls.of(engine)
    with pytest.raises(ZeroDivisionError):
        region.open()
    del engine.collective_rpc
    region.open()
    assert engine.asked == [START]


def test_a_second_region_waits_until_the_first_has_started() -> None:
    engine = AsyncEngine()

    async def region(name: str) -> None:
        calls = ProfilerCalls.of(engine)
        await calls.open_async()
        engine.asked.append(name)
        await asyncio.sleep(0.1)
        await calls.close_async()

    async def both() -> None:
        await asyncio.gather(region("a"), region("b"))

    asyncio.run(both())
    assert engine.asked == [START, f"{START} done", "a", "b", STOP, f"{STOP} done"]


def test_a_start_that_is_cancelled_is_undone() -> None:
    engine = AsyncEngine()

    async def cancelled_twice() -> None:
        opening = asyncio.create_task(ProfilerCalls.of(engine).open_async())
        await asyncio.sleep(0.01)
        opening.cancel()
        await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        await asyncio.sleep(0.2)

    asyncio.run(cancelled_twice())
    assert engine.asked == [START, f"{START} done", STOP, f"{STOP} done"]


def test_an_engine_that_is_not_async_may_be_used_beside_a_loop() -> None:
    engine = Engine()

    async def region() -> None:
        calls = ProfilerCalls.of(engine)
        await calls.open_async()
        await calls.close_async()

    asyncio.run(region())
    assert engine.asked == [START, STOP]


def test_limits_of_vllms_own_profiler_are_told() -> None:
    with pytest.warns(colonel.CaptureWarning, match="max_iterations starts or stops recording by itself"):
        ProfilerCalls.of(Engine(profiler="cuda", delay_iterations=0, max_iterations=3)).open()
