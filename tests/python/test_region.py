"""`profile_region` on the fake vLLM under gpu-sim: windows of the engine's own processes, counted by the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import colonel
import pytest
from recorded import Run, environment, plugin_in

ColonelRun = Callable[..., Run]

ENGINE = """
import json, os, sys, warnings
from vllm import LLM, SamplingParams, TokensPrompt
from colonel.profiling.vllm import profile_region

def main():
    llm = LLM(model="fake", enforce_eager={eager}, tensor_parallel_size={tp}, **{more})
    prompts = [TokensPrompt(prompt_token_ids=[1, 2, 3 + i]) for i in range(4)]
    def generate(tokens=5):
        how = SamplingParams(max_tokens=tokens, ignore_eos=True)
        return llm.generate(prompts, how, use_tqdm=False)
    def launched():
        return sum(llm.collective_rpc("launched"))
    counts = {{}}
    generate()
{body}
    print(json.dumps(counts))

if __name__ == "__main__":
    main()
"""


def script(body: str, *, eager: bool = False, tp: int = 1, more: str = "{}") -> str:
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    return ENGINE.format(body=lines, eager=eager, tp=tp, more=more)


REGIONS = """
with profile_region(llm, name="first"):
    before = launched()
    generate(12)
    counts["first"] = launched() - before
generate()
try:
    with profile_region(llm, name="second") as region:
        before = launched()
        generate(3)
        counts["second"] = launched() - before
        raise KeyError("out of the block")
except KeyError:
    pass
counts["workers"] = sorted(region.windows)
generate()
"""


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({}, {}),
        ({}, {"eager": True}),
        ({"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, {}),
        ({}, {"tp": 2}),
        ({"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, {"tp": 2}),
        ({"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, {}),
    ],
    ids=["fork", "fork-eager", "spawn", "fork-tp2", "spawn-tp2", "in-process"],
)
def test_each_region_has_what_the_engine_launched_in_it(
    colonel_run: ColonelRun, variables: dict[str, str], options: dict
) -> None:
    run = colonel_run(script(REGIONS, **options), "--flavor", "vllm", **variables)
    counts = run.told
    session = colonel.open(run.session)
    assert counts["first"] > counts["second"] > 0
    for name in ("first", "second"):
        assert session.kernels(["name"], window=name).num_rows == counts[name]
    assert session.kernels(["name"]).num_rows == counts["first"] + counts["second"]
    assert run.summary["lost"] == 0
    assert len(counts["workers"]) == options.get("tp", 1)
    assert sorted(process["pid"] for process in run.summary["processes"]) == counts["workers"]
    assert {window.trigger for window in session.windows} == {"region"}


def test_nested_regions_and_the_sessions_own_reader(colonel_run: ColonelRun) -> None:
    body = """
with profile_region(llm, name="outer") as outer:
    before = launched()
    generate(2)
    for size in (3, 4, 5):
        with profile_region(llm, name=f"tokens{size}") as inner:
            start = launched()
            generate(size)
            counts[f"tokens{size}"] = launched() - start
    generate(2)
    counts["outer"] = launched() - before
counts["read"] = outer.session.kernels(["name"], window="outer").num_rows
counts["alone"] = sum(outer.session.kernels(["name"], window=n, pid=p).num_rows for p, n in inner.windows.items())
"""
    run = colonel_run(script(body), "--flavor", "vllm")
    counts = run.told
    session = colonel.open(run.session)
    for name in ("tokens3", "tokens4", "tokens5", "outer"):
        assert session.kernels(["name"], window=name).num_rows == counts[name]
    assert session.kernels(["name"]).num_rows == counts["outer"]
    assert counts["read"] == counts["outer"], "what a region recorded is on disk when its block has ended"
    assert counts["alone"] == counts["tokens5"]


def test_regions_repeat(colonel_run: ColonelRun) -> None:
    body = """
for i in range(30):
    before = launched()
    with profile_region(llm, name=f"round{i}"):
        generate(1)
    counts[f"round{i}"] = launched() - before
    generate(1)
"""
    run = colonel_run(script(body), "--flavor", "vllm")
    session = colonel.open(run.session)
    for name, launched in run.told.items():
        assert session.kernels(["name"], window=name).num_rows == launched


ASYNC = """
import asyncio, json
from vllm import SamplingParams, TokensPrompt
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM
from colonel.profiling.vllm import profile_region

async def main():
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model="fake"))
    async def generate(name, tokens):
        how = SamplingParams(max_tokens=tokens, ignore_eos=True)
        async for _ in llm.generate(TokensPrompt(prompt_token_ids=[1, 2, 3]), how, name):
            pass
    async def launched():
        return sum(await llm.collective_rpc("launched"))
    await generate("warm", 2)
    before = await launched()
    first, second = profile_region(llm, name="first"), profile_region(llm, name="second")
    await first.__aenter__()
    await generate("a", 3)
    await second.__aenter__()
    in_both = await launched()
    await asyncio.gather(generate("b", 4), generate("c", 4))
    # The one opened first ends first: neither lies inside the other.
    await first.__aexit__(None, None, None)
    await generate("d", 5)
    after = await launched()
    await second.__aexit__(None, None, None)
    await generate("e", 2)
    async def cancelled():
        async with profile_region(llm, name="cancelled"):
            await asyncio.sleep(60)
    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await generate("f", 2)
    # Given up, twice, while the worker can't answer.
    import os, signal
    worker = llm.engine_core.resources.engine_manager.processes[0].pid
    os.kill(worker, signal.SIGSTOP)
    opening = asyncio.create_task(profile_region(llm, name="given up").__aenter__())
    for _ in range(2):
        await asyncio.sleep(0.2)
        opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    os.kill(worker, signal.SIGCONT)
    await asyncio.sleep(1)
    await generate("g", 2)
    try:
        with profile_region(llm):
            pass
    except TypeError as error:
        refusal = str(error)
    llm.shutdown()
    print(json.dumps({"first": in_both - before, "second": after - in_both, "refusal": refusal}))

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_async_regions_overlap_and_are_cancelled(colonel_run: ColonelRun) -> None:
    run = colonel_run(ASYNC, "--flavor", "vllm")
    counts = run.told
    session = colonel.open(run.session)
    rows = {window.name: session.table("kernels", ["name"]).num_rows for window in session.windows}
    assert set(rows) == {"first", "second", "cancelled", "given up"}
    assert session.kernels(["name"]).num_rows == counts["first"] + counts["second"], "none outside of the blocks"
    assert session.kernels(["name"], window="first").num_rows == counts["first"]
    assert session.kernels(["name"], window="second").num_rows == counts["second"]
    assert session.kernels(["name"], window="cancelled").num_rows == 0
    assert all(window.end_ns is not None for window in session.windows)
    assert "async with profile_region(llm)" in counts["refusal"]


def alone(text: str, tmp_path: Path, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Runs a script without colonel."""
    file = tmp_path / "script.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, str(file)], env=environment(**variables), capture_output=True, text=True, timeout=60
    )


NO_GPU = """
import json, os
from colonel.profiling.vllm import profile_region

class Engine:
    def collective_rpc(self, method): raise AssertionError("asked for nothing")

with profile_region({llm}, name="decode") as region:
    print("in the block", region.active, region.windows)
"""


def test_switched_off_the_block_just_runs(tmp_path: Path) -> None:
    done = alone(NO_GPU.format(llm="Engine()"), tmp_path, COLONEL_DISABLE_PROFILE_REGION="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in the block False {}\n", "")


def test_without_a_session_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = alone(NO_GPU.format(llm="Engine()"), tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "colonel.errors.NoSessionError: this process is in no session: run it as `colonel run --flavor vllm -- python "
        "SCRIPT`, or set COLONEL_DISABLE_PROFILE_REGION=1 to run it unprofiled"
    )


def test_what_is_no_engine_is_refused(tmp_path: Path) -> None:
    done = alone(NO_GPU.format(llm="'llm'"), tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "TypeError: profile_region takes a vLLM LLM, LLMEngine or AsyncLLM, not str"
    )


def test_an_engine_out_of_reach(colonel_run: ColonelRun) -> None:
    body = """
from types import SimpleNamespace as Namespace
other = Namespace(pid=os.getppid())
foreign = Namespace(collective_rpc=print, engine_core=Namespace(resources=Namespace(engine_manager=Namespace(
    processes=[Namespace(pid=999999999)]))))
try:
    with profile_region(foreign):
        pass
except Exception as error:
    counts["error"] = f"{type(error).__name__}: {error}"
"""
    run = colonel_run(script(body), "--flavor", "vllm")
    error = run.told["error"]
    assert error.startswith("NoWorkerError: no process of this engine is captured (engine: 999999999; captured: ")


def test_a_vllm_that_moved_its_processes_is_told_and_worked_around(colonel_run: ColonelRun) -> None:
    body = """
from types import SimpleNamespace as Namespace
moved = Namespace(collective_rpc=print)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with profile_region(moved, name="all"):
        before = launched()
        generate()
        counts["all"] = launched() - before
counts["warnings"] = [str(warning.message) for warning in caught]
"""
    run = colonel_run(script(body), "--flavor", "vllm")
    counts = run.told
    (warning,) = counts["warnings"]
    assert "does not say which processes are its engine's" in warning
    assert colonel.open(run.session).kernels(["name"], window="all").num_rows == counts["all"]


def test_a_capture_that_is_refused_leaves_the_block_alone(colonel_run: ColonelRun) -> None:
    body = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with profile_region(llm) as region:
        generate()
counts["warnings"] = [str(warning.message) for warning in caught]
counts["windows"] = region.windows
"""
    run = colonel_run(script(body), "--flavor", "vllm", COLONEL_SIM_FAULT="subscribe=39")
    counts = run.told
    (warning,) = counts["warnings"]
    assert "did not open its window" in warning
    assert counts["windows"] == {}
    assert run.summary["why_no_kernels"]


def test_an_engine_that_dies_in_its_region(colonel_run: ColonelRun) -> None:
    body = """
import signal, time
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        with profile_region(llm, name="last") as region:
            before = launched()
            generate()
            counts["last"] = launched() - before
            time.sleep(2.5)
            (pid,) = region.windows
            os.kill(pid, signal.SIGKILL)
            # vLLM's own `generate` would wait for ever if it was called before the client has noticed.
            while not llm.llm_engine.engine_core.resources.engine_dead:
                time.sleep(0.01)
            generate()
    except Exception as error:
        counts["error"] = type(error).__name__
counts["warnings"] = [str(warning.message) for warning in caught]
"""
    run = colonel_run(script(body), "--flavor", "vllm")
    counts = run.told
    assert counts["error"] == "EngineDeadError"
    assert any("it has ended" in warning for warning in counts["warnings"])
    # It lay two seconds before the kill: sealed, and not lost with the process.
    assert colonel.open(run.session).kernels(["name"], window="last").num_rows == counts["last"]


def test_a_stopped_worker_is_not_waited_for_for_ever(colonel_run: ColonelRun) -> None:
    body = """
import signal, time
from colonel.profiling.vllm import windows
windows.OPEN_TIMEOUT = 0.5
(worker,) = {process.pid for process in llm.llm_engine.engine_core.resources.engine_manager.processes}
os.kill(worker, signal.SIGSTOP)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with profile_region(llm, name="given up"):
        os.kill(worker, signal.SIGCONT)
        launched()
time.sleep(0.5)
generate()
with profile_region(llm, name="next"):
    before = launched()
    generate()
    counts["next"] = launched() - before
counts["warnings"] = [str(warning.message) for warning in caught]
"""
    run = colonel_run(script(body), "--flavor", "vllm")
    (warning,) = run.told["warnings"]
    assert "is the process stopped?" in warning
    # The worker opened it when it went on, found nobody to tell, and closed it again.
    session = colonel.open(run.session)
    assert [window.end_ns is not None for window in session.windows] == [True, True]
    assert session.kernels(["name"]).num_rows == run.told["next"]


PROFILER_CALLS = """
os.environ["COLONEL_EVALUATOR"] = "nsys"
with profile_region(llm):
    before = launched()
    generate()
    with profile_region(llm):
        generate()
    generate()
    counts["outer"] = launched() - before
generate()
"""


def test_under_other_profilers_the_workers_call_cuda_profiler_start(colonel_run: ColonelRun) -> None:
    run = colonel_run(script(PROFILER_CALLS, more="{'profiler_config': {'profiler': 'cuda'}}"), "--flavor", "vllm")
    session = colonel.open(run.session)
    assert session.kernels(["name"]).num_rows == run.told["outer"]
    assert [window.trigger for window in session.windows] == ["profiler"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_plugin_gives_the_workers_the_calls(colonel_run: ColonelRun, tmp_path: Path, method: str) -> None:
    path = os.pathsep.join([environment()["PYTHONPATH"], str(plugin_in(tmp_path))])
    text = 'import os; os.environ["COLONEL_EVALUATOR"] = "nsys"\n' + script(PROFILER_CALLS)
    run = colonel_run(text, "--flavor", "vllm", PYTHONPATH=path, VLLM_WORKER_MULTIPROC_METHOD=method)
    assert colonel.open(run.session).kernels(["name"]).num_rows == run.told["outer"]


def test_workers_without_the_calls_are_told_what_to_add(colonel_run: ColonelRun) -> None:
    run = colonel_run(script(PROFILER_CALLS), "--flavor", "vllm", check=False)
    assert run.code == 1
    assert 'profiler_config={"profiler": "cuda"}' in run.stderr
