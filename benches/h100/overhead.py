"""What does it cost the host? Measurement (f): step time of the host-bound loop, unprofiled, armed, capturing, after.

Called by run.sh. Five processes live side by side and take turns, some 50 ms each, in an order drawn anew every round,
so that drift of the machine meets all alike; then five new ones, as long as time lasts:

    unprofiled   the loop alone
    armed        under `colonel run --gate profiler`, no window ever opened
    callback     the same with --gate-by callback: the fallback where cudaProfilerStart can't be interposed
    colonel      the same; blocks inside windows, and blocks after them
    bare         bare_client.c in the same way: the cheapest client there can be

A block gives one figure, its median step. Ratios are taken within a round; the geometric mean over all rounds comes
with a 95 % bootstrap interval that draws sets of processes, and rounds within them.

With --only-armed the first two alone take turns, in the native loop: in 100 s many more rounds, so a narrow interval.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import common
from common import HERE, Colonel, Served, gpu_state

# configuration and kind of its blocks
BLOCKS = [
    ("unprofiled", "idle"),
    ("armed", "idle"),
    ("callback", "idle"),
    ("colonel", "window"),
    ("bare", "window"),
    ("colonel", "after"),
    ("bare", "after"),
]
CONFIGS = ["unprofiled", "armed", "callback", "colonel", "bare"]
STEPS = {"graph": 100, "eager": 50}
# name: (numerator, denominator, aim)
RATIOS = {
    "armed / unprofiled": (("armed", "idle"), ("unprofiled", "idle"), 1.005),
    "armed by callback / unprofiled": (("callback", "idle"), ("unprofiled", "idle"), None),
    "capturing / bare client": (("colonel", "window"), ("bare", "window"), 1.02),
    "capturing / unprofiled": (("colonel", "window"), ("unprofiled", "idle"), None),
    "bare client / unprofiled": (("bare", "window"), ("unprofiled", "idle"), None),
    "after a window / unprofiled": (("colonel", "after"), ("unprofiled", "idle"), None),
    "after a window / bare client after": (("colonel", "after"), ("bare", "after"), None),
}


class Set:
    """One process a configuration."""

    def __init__(self, loop: str, arguments: argparse.Namespace, scratch: Path) -> None:
        self.scratch = scratch
        colonel = Colonel(arguments.root, scratch, arguments.libcupti)
        native = [str(arguments.build / "loop_shared"), "--serve"]
        command = native if loop == "native" else [sys.executable, str(HERE / "loop.py"), "--serve"]
        library = str(arguments.build / "libbare_client.so")
        self.sessions: dict[str, Path] = {}
        self.served: dict[str, Served] = {}
        for config in CONFIGS:
            full, environment = command, {}
            if config in ("armed", "callback", "colonel"):
                gate = ["--gate", "profiler", *(["--gate-by", "callback"] if config == "callback" else [])]
                self.sessions[config] = colonel.sessions_dir()
                full = colonel.command(self.sessions[config], gate, command)
                environment = colonel.environment()
            elif config == "bare":
                environment = {
                    "LD_PRELOAD": library,
                    "CUDA_INJECTION64_PATH": library,
                    "BARE_KINDS": arguments.kinds,
                    "BARE_OUT": str(scratch / "bare"),
                }
            self.served[config] = Served([*pin(), *full], environment, scratch / f"{config}.log")

    def __enter__(self) -> "Set":
        for served in self.served.values():
            served.read(90)  # ready
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever still runs ends: a loop whose stdin is closed leaves by itself."""
        for served in self.served.values():
            served.finish()

    def warm_up(self) -> None:
        """One block of each, thrown away: clocks, caches, and the attachment at the first window."""
        for mode in STEPS:
            for config, kind in BLOCKS:
                self.block(config, kind, mode, 20)

    def block(self, config: str, kind: str, mode: str, steps: int) -> dict:
        return self.served[config].ask(f"{'window' if kind == 'window' else 'idle'}:{mode}:1x{steps}")

    def round(self, draw: random.Random) -> list[dict]:
        found = []
        for mode, steps in STEPS.items():
            for config, kind in draw.sample(BLOCKS, len(BLOCKS)):
                answer = self.block(config, kind, mode, steps)
                block = {"config": config, "kind": kind, "mode": mode, "step_us": answer["rounds_us"][0]}
                if kind == "window":
                    block |= {"start_us": answer["start_us"], "stop_us": answer["stop_us"]}
                found.append(block)
        return found

    def finish(self) -> dict:
        """Ends them all; did each record exactly what was launched in its windows?"""
        outcome: dict = {}
        for config, served in self.served.items():
            last, code = served.finish()
            outcome[config] = {"code": code, "launched_in_windows": last.get("kernels_in_windows")}
            if code != 0:
                outcome[config]["stderr"] = served.errors()
            if config in self.sessions:
                session = common.session_in(self.sessions[config])
                rows = session.count("kernels") if session else None
                outcome[config] |= {"rows": rows, "exact": rows == last.get("kernels_in_windows")}
                if session:
                    outcome[config]["losses"] = session.manifest.get("losses")
                    outcome[config]["attached"] = [p.get("attached_ns") is not None for p in session.processes]
        for path in self.scratch.glob("bare.[0-9]*"):
            report = json.loads(path.read_text())
            if report["windows"] and "bare" in outcome:
                outcome["bare"]["client"] = report
        if "bare" not in outcome:
            return outcome
        seen = outcome["bare"].get("client", {}).get("records", {}).get("kernel")
        outcome["bare"] |= {"rows": seen, "exact": seen == outcome["bare"]["launched_in_windows"]}
        return outcome


def pin() -> list[str]:
    """Eight cores for all, where there are enough: the first ones serve interrupts."""
    return ["taskset", "-c", "4-11"] if (os.cpu_count() or 1) >= 12 and shutil.which("taskset") else []


def ratio(
    sets: list[list[list[dict]]], above: tuple[str, str], below: tuple[str, str], mode: str, draws: int
) -> dict | None:
    """Geometric mean of the sets' means, with a bootstrap interval: sets are drawn, and rounds within them."""

    def step(blocks: list[dict], which: tuple[str, str]) -> float | None:
        found = [b["step_us"] for b in blocks if (b["config"], b["kind"], b["mode"]) == (*which, mode)]
        return found[0] if found else None

    logs: list[list[float]] = []
    for rounds in sets:
        pairs = [(step(blocks, above), step(blocks, below)) for blocks in rounds]
        found = [math.log(top / bottom) for top, bottom in pairs if top and bottom]
        if found:
            logs.append(found)
    if not logs:
        return None
    draw = random.Random(1)
    means = sorted(
        statistics.fmean(statistics.fmean(draw.choices(one, k=len(one))) for one in draw.choices(logs, k=len(logs)))
        for _ in range(draws)
    )
    per_set = [statistics.fmean(one) for one in logs]
    return {
        "ratio": round(math.exp(statistics.fmean(per_set)), 5),
        "low": round(math.exp(means[round(0.025 * (draws - 1))]), 5),
        "high": round(math.exp(means[round(0.975 * (draws - 1))]), 5),
        "sets": [round(math.exp(value), 5) for value in per_set],
    }


def columns(sets: list[list[list[dict]]]) -> list[dict]:
    """All blocks' median steps, in short: a list a set, mode, configuration and kind."""
    result = []
    for rounds in sets:
        one: dict[str, list[float]] = {}
        for block in (block for blocks in rounds for block in blocks):
            one.setdefault(f"{block['mode']} {block['config']} {block['kind']}", []).append(block["step_us"])
        result.append(one)
    return result


def summary(sets: list[list[list[dict]]], draws: int) -> dict:
    result: dict = {}
    blocks = [block for rounds in sets for blocks in rounds for block in blocks]
    for mode in STEPS:
        steps: dict[str, list[float]] = {}
        gates: dict[str, list[float]] = {}
        for block in (b for b in blocks if b["mode"] == mode):
            steps.setdefault(f"{block['config']} {block['kind']}", []).append(block["step_us"])
            for key in ("start_us", "stop_us"):
                if key in block:
                    gates.setdefault(f"{block['config']} {key}", []).append(block[key])
        ratios = {}
        for name, (above, below, aim) in RATIOS.items():
            found = ratio(sets, above, below, mode, draws)
            if found:
                ratios[name] = found | ({"aim": aim, "met": found["ratio"] <= aim} if aim else {})
        result[mode] = {
            "step_us": {name: round(statistics.median(values), 2) for name, values in steps.items()},
            "gate_us": {name: round(statistics.median(values), 1) for name, values in gates.items()},
            "ratios": ratios,
        }
    return result


def table(loop: str, found: dict, sets: int, rounds: int) -> None:
    for mode, figures in found.items():
        print(f"-- {loop} loop, {mode}, {sets} sets of processes, {rounds} rounds: median step in us")
        print("   " + "  ".join(f"{name} {value}" for name, value in figures["step_us"].items()))
        print(
            "   cudaProfilerStart/Stop: " + "  ".join(f"{name} {value}" for name, value in figures["gate_us"].items())
        )
        for name, r in figures["ratios"].items():
            aim = f"  aim {r['aim']}: {'met' if r['met'] else 'NOT met'}" if "aim" in r else ""
            print(f"   {name:38} {r['ratio']:.4f} ({r['low']:.4f} to {r['high']:.4f}){aim}", flush=True)


def measure(arguments: argparse.Namespace, results: common.Results, loop: str, seconds: float) -> None:
    """Sets of processes until the time is up."""
    begin = time.monotonic()
    sets: list[list[list[dict]]] = []
    outcomes: list[dict] = []
    clocks = [gpu_state()]
    draw = random.Random(20261124)
    longest = 0.0
    while not outcomes or time.monotonic() - begin + longest < seconds:
        started = time.monotonic()
        rounds: list[list[dict]] = []
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with Set(loop, arguments, Path(scratch)) as together:
                    ready = time.monotonic() - started
                    together.warm_up()
                    until = time.monotonic() + arguments.set_seconds
                    while time.monotonic() < until:
                        rounds.append(together.round(draw))
                    outcome = together.finish()
            except (OSError, RuntimeError, ValueError, KeyError) as problem:
                ready = 0.0
                outcome = {"failed": f"{type(problem).__name__}: {problem}"[:900]}
        longest = max(longest, time.monotonic() - started)
        sets.append(rounds)
        outcomes.append(outcome)
        clocks.append(gpu_state())
        keep(results, loop, sets, outcomes, clocks, 200)
        took = time.monotonic() - started
        print(f"{loop} set {len(sets)}: {took:.1f} s ({ready:.1f} to start), {len(rounds)} rounds", flush=True)
        for config, figures in outcome.items():
            if config == "failed" or figures["code"] != 0 or not figures.get("exact", True):
                print(f"   {config}: {str(figures)[:900]}", flush=True)
        if len(outcomes) == 2 and all("failed" in o for o in outcomes):
            break
    found = keep(results, loop, sets, outcomes, clocks, 2000)
    table(loop, found, len(sets), sum(map(len, sets)))


def keep(results: common.Results, loop: str, sets: list, outcomes: list, clocks: list, draws: int) -> dict:
    """Writes what there is so far."""
    found = summary(sets, draws)
    exact = [o.get(c, {}).get("exact") for o in outcomes for c in CONFIGS[1:]]
    aims = [r["met"] for m in found.values() for r in m["ratios"].values() if "met" in r]
    figures = {
        "ok": bool(aims) and all(aims) and all(exact),
        "block_steps": STEPS,
        "pinned": pin(),
        "clocks": clocks,
        "summary": found,
        "outcomes": outcomes,
        "step_us": columns(sets),
    }
    results.put(loop, figures)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--libcupti", help="for processes that have none mapped")
    parser.add_argument("--kinds", default="all", help="BARE_KINDS of the bare client")
    parser.add_argument("--native-seconds", type=float, default=220)
    parser.add_argument("--torch-seconds", type=float, default=190)
    parser.add_argument(
        "--configs", default=",".join(CONFIGS), help="configurations that take turns, of those named above"
    )
    parser.add_argument("--only-armed", action="store_true", help="100 s of unprofiled and armed in the native loop")
    parser.add_argument("--set-seconds", type=float, default=15, help="how long a set of processes takes turns")
    arguments = parser.parse_args()
    if arguments.only_armed:
        arguments.configs, arguments.native_seconds, arguments.torch_seconds = "unprofiled,armed", 100, 0
    unknown = set(arguments.configs.split(",")) - set(CONFIGS)
    if unknown:
        parser.error(f"unknown configurations {sorted(unknown)}, expected some of {CONFIGS}")
    CONFIGS[:] = [config for config in CONFIGS if config in arguments.configs.split(",")]
    BLOCKS[:] = [block for block in BLOCKS if block[0] in CONFIGS]
    environment = json.loads((arguments.build / "environment.json").read_text())
    budget = arguments.native_seconds + arguments.torch_seconds
    name = "overhead_armed.json" if arguments.only_armed else "overhead.json"
    results = common.Results(arguments.out / name, environment, budget, arguments.root)
    for loop, seconds in (("native", arguments.native_seconds), ("torch", arguments.torch_seconds)):
        if seconds > 0:
            measure(arguments, results, loop, seconds)


if __name__ == "__main__":
    main()
