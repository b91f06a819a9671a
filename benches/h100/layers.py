"""Do kernels get the NVTX ranges that they lie in, and what does it cost? Called by run.sh.

ranges    ranged.py --record under `colonel run --gate profiler --trace nvtx`: in each window the `nvtx_path` and the
          `launch_nvtx_path` of each kernel must be the known ones, in the known order
cost      ranged.py --serve, unprofiled and armed with NVTX, side by side: the two take turns in an order drawn anew
          every round; then two new ones. Ratios as in overhead.py. Pairs of processes differ more than rounds do, so
          that many short ones give the narrowest interval: --only cost --aims --set-seconds 10 --budget 560
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import common
import overhead
from common import HERE, Colonel, Results, Served, gpu_state

NVTX = ["--gate", "profiler", "--trace", "nvtx"]
CONFIGS = ["unprofiled", "armed"]
# steps of a block: some 50 ms each
STEPS = {
    "graph": 100,
    "graph, plain capture": 100,
    "graph, 24 ranges": 100,
    "eager": 20,
    "eager, 24 ranges": 20,
    "pair": 25,
    "capture": 2,
    "capture, 500 ranges": 2,
}
# What an armed process may cost, where something was promised.
AIMS = {"graph": 1.005, "graph, plain capture": 1.005, "eager": 1.005}


def texts(column) -> list[str]:
    """A column's texts, empty for null."""
    return column.astype(object).where(column.notna(), "").tolist()


def differences(found: list[str], wanted: list[str]) -> dict:
    """How many are as wanted, and the first that are not."""
    pairs = list(zip(found, wanted, strict=False))
    wrong = [(at, *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1]]
    return {
        "kernels": len(found),
        "wanted": len(wanted),
        "right": len(pairs) - len(wrong),
        "wrong": wrong[:5],
        "exact": len(found) == len(wanted) and not wrong,
    }


def ranges(colonel: Colonel) -> dict:
    ran, session = colonel.run(NVTX, [sys.executable, str(HERE / "ranged.py"), "--record"], 120)
    figures = ran.figures()
    if session is None or not ran.line:
        return figures | {"ok": False}
    columns = ["start_ns", "window", "short_name", "graph_id", "nvtx_path", "launch_nvtx_path"]
    kernels = session.table("kernels", columns).sort_values("start_ns")
    windows = {}
    for number, window in enumerate(ran.line["windows"], 1):
        rows = kernels[kernels["window"] == number]
        paths = window["paths"] * window["steps"]
        # torch sets its random seeds by kernels of its own as it captures.
        beside = int(rows["graph_id"].isna().sum()) if window["launched_in"] else 0
        rows = rows[rows["graph_id"].notna()] if window["launched_in"] else rows
        found = {
            "captured": differences(texts(rows["nvtx_path"]), paths),
            "graphs": int(rows["graph_id"].nunique()),
            "beside_the_graphs": beside,
        }
        if window["launched_in"]:
            found["launched"] = differences(texts(rows["launch_nvtx_path"]), [window["launched_in"]] * len(paths))
        windows[window["way"]] = found
    checks = [found[key]["exact"] for found in windows.values() for key in ("captured", "launched") if key in found]
    figures |= session.figures() | {
        "ok": ran.code == 0 and bool(checks) and all(checks),
        "windows_found": windows,
        "graph_ranges": session.count("graph_ranges"),
        "kernel_names": rows["short_name"].astype(str).value_counts().to_dict(),
    }
    return figures


class Pair:
    """One process a configuration."""

    def __init__(self, colonel: Colonel, scratch: Path, modes: list[str], draw: random.Random) -> None:
        self.modes = modes
        command = [sys.executable, str(HERE / "ranged.py"), "--serve"]
        self.sessions = colonel.sessions_dir()
        armed = colonel.command(self.sessions, NVTX, command)
        lines = {"unprofiled": (command, {}), "armed": (armed, colonel.environment())}
        self.served = {
            config: Served([*overhead.pin(), *lines[config][0]], lines[config][1], scratch / f"{config}.log")
            for config in draw.sample(CONFIGS, len(CONFIGS))
        }

    def __enter__(self) -> "Pair":
        for served in self.served.values():
            served.read(90)  # ready
        return self

    def __exit__(self, *_: object) -> None:
        for served in self.served.values():
            served.finish()

    def round(self, draw: random.Random) -> list[dict]:
        blocks = []
        for mode in self.modes:
            for config in draw.sample(CONFIGS, len(CONFIGS)):
                us = self.served[config].ask(f"{mode}:{STEPS[mode]}")["us"]
                blocks.append({"config": config, "kind": "idle", "mode": mode, "step_us": us})
        return blocks

    def finish(self) -> dict:
        codes = {config: served.finish()[1] for config, served in self.served.items()}
        session = common.session_in(self.sessions)
        attached = [p.get("attached_ns") for p in session.processes] if session else None
        return {"codes": codes, "attached": attached, "clocks": gpu_state()}


def summary(sets: list[list[list[dict]]], modes: list[str]) -> dict:
    blocks = [block for rounds in sets for blocks in rounds for block in blocks]
    result = {}
    for mode in modes:
        medians = {
            config: statistics.median(b["step_us"] for b in blocks if (b["mode"], b["config"]) == (mode, config))
            for config in CONFIGS
        }
        found = overhead.ratio(sets, ("armed", "idle"), ("unprofiled", "idle"), mode, 2000)
        aim = AIMS.get(mode)
        if found:
            found["give_or_take"] = round((found["high"] - found["low"]) / 2, 5)
        result[mode] = {
            "us": {config: round(value, 4) for config, value in medians.items()},
            "armed / unprofiled": (found or {})
            | (
                {"aim": aim, "met": found["ratio"] <= aim, "met_by_interval": found["high"] <= aim}
                if aim and found
                else {}
            ),
        }
    return result


def cost(colonel: Colonel, scratch: Path, seconds: float, set_seconds: float, modes: list[str]) -> dict:
    begin, longest = time.monotonic(), 0.0
    sets: list[list[list[dict]]] = []
    outcomes = []
    draw = random.Random(20261124)
    while not sets or time.monotonic() - begin + longest < seconds:
        started = time.monotonic()
        rounds: list[list[dict]] = []
        with Pair(colonel, scratch, modes, draw) as pair:
            pair.round(draw)  # thrown away
            until = time.monotonic() + set_seconds
            while time.monotonic() < until:
                rounds.append(pair.round(draw))
            outcomes.append(pair.finish())
        sets.append(rounds)
        longest = max(longest, time.monotonic() - started)
    found = summary(sets, modes)
    met = [mode["armed / unprofiled"].get("met", True) for mode in found.values()]
    armed = all(outcome["attached"] == [None] for outcome in outcomes)
    ended = all(code == 0 for outcome in outcomes for code in outcome["codes"].values())
    for mode, figures in found.items():
        print(f"   {mode:22} {figures['us']}  {figures['armed / unprofiled']}", flush=True)
    return {
        "ok": all(met) and armed and ended,
        "no_call_of_cupti": armed,
        "block_steps": {mode: STEPS[mode] for mode in modes},
        "pinned": overhead.pin(),
        "rounds": [len(rounds) for rounds in sets],
        "modes": found,
        "outcomes": outcomes,
        "step_us": overhead.columns(sets),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--libcupti", help="for processes that have none mapped")
    parser.add_argument("--budget", type=float, default=145, help="seconds")
    parser.add_argument("--only", choices=["ranges", "cost"], help="one of the two steps")
    parser.add_argument("--set-seconds", type=float, default=25, help="how long two processes take turns")
    parser.add_argument("--aims", action="store_true", help="cost: only what has an aim")
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    results = Results(arguments.out / "layers.json", environment, arguments.budget, arguments.root)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        colonel = Colonel(arguments.root, scratch, arguments.libcupti)
        if arguments.only != "cost":
            results.step("ranges", lambda: ranges(colonel))
        if arguments.only != "ranges":
            modes = list(AIMS if arguments.aims else STEPS)
            results.step("cost", lambda: cost(colonel, scratch, results.left() - 10, arguments.set_seconds, modes))


if __name__ == "__main__":
    main()
