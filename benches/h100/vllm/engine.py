"""A vLLM engine for the measurements: the demos' own engine and prompts, driven by what a stage asks.

    engine.py [demo arguments] --torch-profile DIR [--rounds N]   no colonel: vLLM's torch profiler around each round
    engine.py [demo arguments] --serve HOW                        one timed round for each line on stdin
    engine.py [demo arguments] --record                           one round in a region of colonel's

HOW says what surrounds a round: `plain` nothing, `region` colonel's profile_region, `cuda` and `torch` vLLM's own
profiler calls. Only `generate` is timed. Each answer is a line of JSON.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import names

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "demos" / "vllm"))
from common import Options, engine, generate, parser, prompts, sampling

HOW = ("plain", "region", "cuda", "torch")


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def torch_config(folder: Path) -> dict[str, Any]:
    """Small traces, quickly written."""
    return {
        "profiler": "torch",
        "torch_profiler_dir": str(folder),
        "torch_profiler_with_stack": False,
        "torch_profiler_dump_cuda_time_total": False,
    }


@contextlib.contextmanager
def vllm_profiler(llm: Any) -> Iterator[None]:
    llm.start_profile()
    try:
        yield
    finally:
        llm.stop_profile()


def surrounded(how: str, llm: Any) -> contextlib.AbstractContextManager:
    if how == "region":
        from colonel.profiling.vllm import profile_region

        return profile_region(llm, name="round")
    return contextlib.nullcontext() if how == "plain" else vllm_profiler(llm)


def torch_profile(options: argparse.Namespace) -> None:
    """One trace a round, in the order of the rounds; what it holds is counted here, since traces are large."""
    folder: Path = options.torch_profile
    llm = engine(options, profiler_config=torch_config(folder))
    wanted, how = prompts(options), sampling(options)
    generate(llm, wanted, how)
    rounds = []
    seen: set[Path] = set()
    for _ in range(options.rounds):
        with vllm_profiler(llm):
            did = generate(llm, wanted, how)
        fresh = [path for path in names.trace_files(folder) if path not in seen]
        seen.update(fresh)
        by_name, by_shape = names.trace_kernels(fresh[-1])
        rounds.append(
            {"tokens": did.tokens, "names": by_name, "shapes": [[list(key), n] for key, n in by_shape.items()]}
        )
    say(rounds=rounds)


def timed_steps(llm: Any) -> list[float]:
    """When each step of the engine came back to `generate`, in seconds: filled as it runs."""
    step, came = llm.llm_engine.step, []

    def timed() -> Any:
        outputs = step()
        came.append(time.perf_counter())
        return outputs

    llm.llm_engine.step = timed
    return came


def serve(options: argparse.Namespace) -> None:
    how: str = options.serve
    more = {"cuda": {"profiler": "cuda"}, "torch": torch_config(options.traces)}
    llm = engine(options, **({"profiler_config": more[how]} if how in more else {}))
    wanted, sampled = prompts(options), sampling(options)
    for _ in range(3):
        generate(llm, wanted, sampled)
    came = timed_steps(llm)
    say(ready=True)
    for line in sys.stdin:
        plain = line.strip() == "plain"
        came.clear()
        begin = time.perf_counter()
        with surrounded("plain" if plain else how, llm):
            did = generate(llm, wanted, sampled)
        whole = time.perf_counter() - begin
        median_step = statistics.median(after - before for before, after in itertools.pairwise(came))
        say(
            seconds=did.seconds,
            around_seconds=whole - did.seconds,
            steps=did.steps,
            tokens=did.tokens,
            median_step_seconds=median_step,
        )
        for trace in names.trace_files(options.traces) if how == "torch" else ():
            trace.unlink()
    say(ended=True)


def record(options: argparse.Namespace) -> None:
    more = {"compilation_config": options.compilation_config} if options.compilation_config else {}
    llm = engine(options, **more)
    wanted, sampled = prompts(options), sampling(options)
    generate(llm, wanted, sampled)
    with surrounded("region", llm):
        did = generate(llm, wanted, sampled)
    say(steps=did.steps, tokens=did.tokens)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument("--torch-profile", type=Path, help="folder for the traces")
    what.add_argument("--serve", choices=HOW)
    what.add_argument("--record", action="store_true")
    arguments.add_argument("--compilation-config", type=json.loads, help="vLLM's, as JSON, for --record")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--traces", type=Path, default=Path("traces"), help="folder for the traces of --serve torch")
    options = arguments.parse_args(namespace=Options())
    if options.serve:
        serve(options)
    elif options.record:
        record(options)
    else:
        torch_profile(options)


if __name__ == "__main__":
    main()
