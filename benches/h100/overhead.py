"""What does it cost the host? Measurement (f): step time of the host-bound loop, unprofiled, armed, capturing, after.

Called by run.sh. Four configurations, each a fresh process, in an order that turns round every cycle:

    unprofiled   the loop alone
    armed        under `colonel run --gate profiler`, no window opened
    colonel      the same, with windows: before the first one, inside, after
    bare         bare_client.c in the same way: the cheapest client there can be

A process gives one figure a phase, the median of its rounds' median steps. Ratios are taken within a cycle; their
geometric mean comes with a 95 % bootstrap interval over the cycles.
"""

import argparse
import json
import math
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
from common import HERE, Colonel, run

PLANS = {
    "native": {
        "idle": "idle:graph:10x300,idle:eager:8x200",
        "window": "idle:graph:3x300,idle:eager:2x200,"
        "window:graph:10x300,idle:graph:10x300,window:eager:8x200,idle:eager:8x200",
    },
    "torch": {
        "idle": "idle:graph:8x250,idle:eager:8x60",
        "window": "idle:graph:2x250,idle:eager:2x60,"
        "window:graph:8x250,idle:graph:8x250,window:eager:8x60,idle:eager:8x60",
    },
}
ORDERS = [
    ["unprofiled", "armed", "colonel", "bare", "armed", "unprofiled"],
    ["armed", "unprofiled", "bare", "colonel", "unprofiled", "armed"],
]
# name: (numerator, denominator, aim), each a configuration and a phase
RATIOS = {
    "armed / unprofiled": (("armed", "idle"), ("unprofiled", "idle"), 1.005),
    "before the first window / unprofiled": (("colonel", "before"), ("unprofiled", "idle"), 1.005),
    "capturing / bare client": (("colonel", "window"), ("bare", "window"), 1.02),
    "capturing / unprofiled": (("colonel", "window"), ("unprofiled", "idle"), None),
    "bare client / unprofiled": (("bare", "window"), ("unprofiled", "idle"), None),
    "after a window / unprofiled": (("colonel", "after"), ("unprofiled", "idle"), None),
    "after a window / bare client after": (("colonel", "after"), ("bare", "after"), None),
}


def label(phases: list[dict], config: str) -> list[tuple[str, dict]]:
    """Names each phase: idle, or before, window and after its first window."""
    if config in ("unprofiled", "armed"):
        return [("idle", phase) for phase in phases]
    named, opened = [], False
    for phase in phases:
        opened = opened or phase["kind"] == "window"
        named.append(("window" if phase["kind"] == "window" else "after" if opened else "before", phase))
    return named


class Overhead:
    """Runs configurations and keeps their figures."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments = arguments
        self.scratch = scratch
        self.colonel = Colonel(arguments.root, scratch, arguments.libcupti)
        cores = os.cpu_count() or 1
        pinned = cores >= 12 and shutil.which("taskset")
        self.pin = ["taskset", "-c", "4-11"] if pinned else []
        self.loops = {
            "native": [str(arguments.build / "loop_shared")],
            "torch": [sys.executable, str(HERE / "loop.py")],
        }

    def once(self, loop: str, config: str) -> dict:
        """One process: medians of each phase, and whether every kernel was recorded."""
        plan = PLANS[loop]["idle" if config in ("unprofiled", "armed") else "window"]
        command = [*self.loops[loop], "--plan", plan]
        environment: dict[str, str | None] = {}
        session = None
        if config in ("armed", "colonel"):
            sessions = self.colonel.sessions_dir()
            command = self.colonel.command(sessions, ["--gate", "profiler"], command)
            environment = self.colonel.environment()
        elif config == "bare":
            library = str(self.arguments.build / "libbare_client.so")
            environment = {
                "LD_PRELOAD": library,
                "CUDA_INJECTION64_PATH": library,
                "BARE_KINDS": self.arguments.kinds,
                "BARE_OUT": str(self.scratch / "bare"),
            }
        ran = run([*self.pin, *command], 90, **environment)
        line = ran.line
        result = {"loop": loop, "config": config, "code": ran.code, "seconds": round(ran.seconds, 2), "phases": []}
        for name, phase in label(line.get("phases", []), config):
            median = statistics.median(phase["rounds_us"])
            kept = {"phase": name, "mode": phase["mode"], "step_us": median, "rounds_us": phase["rounds_us"]}
            result["phases"].append(kept | {"start_us": phase["start_us"], "stop_us": phase["stop_us"]})
        if config in ("armed", "colonel"):
            session = common.session_in(sessions)
            result["rows"] = session.count("kernels") if session else None
            result["losses"] = session.manifest.get("losses") if session else "no session"
            result["attached"] = (
                [process.get("attached_ns") is not None for process in session.processes] if session else None
            )
            result["exact"] = result["rows"] == line.get("kernels_in_windows")
            shutil.rmtree(sessions, ignore_errors=True)
        elif config == "bare":
            result["exact"] = False
            for path in self.scratch.glob("bare.*"):
                report = json.loads(path.read_text())
                if report["windows"]:
                    result["client"] = report
                    result["exact"] = report["records"].get("kernel") == line.get("kernels_in_windows")
                path.unlink()
        if ran.code != 0 or not line:
            result["command"], result["stderr"] = shlex.join(ran.command), ran.err[-800:]
        return result


def gpu_state() -> str:
    query = ["nvidia-smi", "--query-gpu=clocks.sm,temperature.gpu,power.draw", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError as problem:
        return str(problem)


def figure(runs: list[dict], config: str, phase: str, mode: str) -> float | None:
    """Mean over the processes of one configuration in one cycle."""
    values = [
        p["step_us"]
        for r in runs
        if r["config"] == config
        for p in r["phases"]
        if (p["phase"], p["mode"]) == (phase, mode)
    ]
    return statistics.fmean(values) if values else None


def ratio(cycles: list[list[dict]], above: tuple[str, str], below: tuple[str, str], mode: str) -> dict | None:
    """Geometric mean of the cycles' ratios, with its bootstrap interval."""
    logs = []
    for runs in cycles:
        top, bottom = figure(runs, *above, mode), figure(runs, *below, mode)
        if top and bottom:
            logs.append(math.log(top / bottom))
    if not logs:
        return None
    draw = random.Random(1)
    means = sorted(statistics.fmean(draw.choices(logs, k=len(logs))) for _ in range(5000))
    return {
        "ratio": round(math.exp(statistics.fmean(logs)), 5),
        "low": round(math.exp(means[125]), 5),
        "high": round(math.exp(means[4874]), 5),
        "cycles": [round(math.exp(value), 5) for value in logs],
    }


def summary(cycles: list[list[dict]]) -> dict:
    result: dict = {}
    for mode in ("graph", "eager"):
        steps: dict[str, list[float]] = {}
        for run_ in (run_ for runs in cycles for run_ in runs):
            for phase in run_["phases"]:
                if phase["mode"] == mode:
                    steps.setdefault(f"{run_['config']} {phase['phase']}", []).append(phase["step_us"])
        medians = {name: round(statistics.median(values), 2) for name, values in steps.items()}
        ratios = {}
        for name, (above, below, aim) in RATIOS.items():
            found = ratio(cycles, above, below, mode)
            if found:
                ratios[name] = found | ({"aim": aim, "met": found["ratio"] <= aim} if aim else {})
        result[mode] = {"step_us": medians, "ratios": ratios}
    return result


def table(loop: str, found: dict, cycles: int) -> None:
    for mode, figures in found.items():
        print(f"-- {loop} loop, {mode}, {cycles} cycles: median step in us")
        print("   " + "  ".join(f"{name} {value}" for name, value in figures["step_us"].items()))
        for name, r in figures["ratios"].items():
            aim = f"  aim {r['aim']}: {'met' if r['met'] else 'NOT met'}" if "aim" in r else ""
            print(f"   {name:38} {r['ratio']:.4f} ({r['low']:.4f} to {r['high']:.4f}){aim}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--libcupti", help="for processes that have none mapped")
    parser.add_argument("--kinds", default="all", help="BARE_KINDS of the bare client")
    parser.add_argument("--native-seconds", type=float, default=210)
    parser.add_argument("--torch-seconds", type=float, default=190)
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    budget = arguments.native_seconds + arguments.torch_seconds
    results = common.Results(arguments.out / "overhead.json", environment, budget, arguments.root)
    with tempfile.TemporaryDirectory() as scratch:
        overhead = Overhead(arguments, Path(scratch))
        for loop, seconds in (("native", arguments.native_seconds), ("torch", arguments.torch_seconds)):
            measure(overhead, results, loop, seconds)


def measure(overhead: Overhead, results: common.Results, loop: str, seconds: float) -> None:
    """Cycles until the time is up; the last one is always whole, or left out."""
    begin = time.monotonic()
    cycles: list[list[dict]] = []
    clocks = [gpu_state()]
    longest = 0.0
    while not cycles or time.monotonic() - begin + longest < seconds:
        started = time.monotonic()
        runs = [overhead.once(loop, config) for config in ORDERS[len(cycles) % 2]]
        longest = max(longest, time.monotonic() - started)
        cycles.append(runs)
        clocks.append(gpu_state())
        inexact = [r for r in runs if r.get("exact") is False]
        failed = [r for r in runs if r["code"] != 0]
        found = summary(cycles)
        results.put(
            loop,
            {
                "ok": not failed and all(r.get("met", True) for m in found.values() for r in m["ratios"].values()),
                "plans": PLANS[loop],
                "pinned": overhead.pin,
                "clocks": clocks,
                "summary": found,
                "cycles": cycles,
            },
        )
        took = time.monotonic() - started
        print(f"{loop} cycle {len(cycles)}: {took:.1f} s, {len(failed)} failed, {len(inexact)} inexact", flush=True)
        for r in failed:
            print(f"   {r['config']}: code {r['code']} {r.get('stderr', '')[-300:]}", flush=True)
        for r in inexact:
            print(f"   {r['config']}: rows {r.get('rows', r.get('client'))}", flush=True)
        if len(failed) == len(runs):
            break
    table(loop, summary(cycles), len(cycles))


if __name__ == "__main__":
    main()
