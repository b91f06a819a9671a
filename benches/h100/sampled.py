"""What `--mode sampled` and `--mode counters` cost a host-bound loop, and whether bursts tell what a full capture does.

Each process runs the graph loop alone for some seconds; the modes come in one order, then in the other, and so on.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import common
from overhead import pin

MODES = {
    "unprofiled": None,
    "armed": ["--gate", "manual"],
    "sampled_20ms_1s": ["--mode", "sampled"],
    "sampled_20ms_200ms": ["--mode", "sampled", "--burst-every", "200ms"],
    "sampled_counters": ["--mode", "sampled", "--counters"],
    "counters": ["--mode", "counters"],
    "full": [],
}


def by_kernel(session: common.Session) -> dict[str, dict]:
    """Each kernel's median, its quartiles, and its share of all kernels' time."""
    rows = session.table("kernels", ["name", "start_ns", "end_ns"])
    rows["ns"] = rows["end_ns"] - rows["start_ns"]
    whole = rows["ns"].sum()
    return {
        common.demangle(name): {
            "count": len(group),
            "quartiles_ns": [float(group["ns"].quantile(q)) for q in (0.25, 0.5, 0.75)],
            "share": round(float(group["ns"].sum() / whole), 5),
        }
        for name, group in rows.groupby("name")
    }


def once(colonel: common.Colonel, build: Path, mode: str, steps: int) -> dict:
    loop = [*pin(), str(build / "loop_shared"), "--plan", f"idle:graph:{steps // 300}x300"]
    options = MODES[mode]
    if options is None:
        ran, session = common.run(loop, 60), None
    else:
        ran, session = colonel.run([*options, "--no-analyze"], loop, 90)
    phase = (ran.line.get("phases") or [{}])[0]
    figures = {
        "mode": mode,
        "code": ran.code,
        "mean_us": phase.get("mean_us"),
        "median_us": statistics.median(phase["rounds_us"]) if phase.get("rounds_us") else None,
        "kernels_launched": ran.line.get("kernels"),
    }
    if session:
        windows = [window for process in session.processes for window in process.get("windows") or []]
        bursts = [window for window in windows if window["trigger"] == "burst" and window.get("end_ns")]
        per_window = session.per_window("kernels")
        figures |= {
            "bursts": len(bursts),
            "burst_ms": [round((window["end_ns"] - window["start_ns"]) / 1e6, 2) for window in bursts],
            "kernels_recorded": session.count("kernels"),
            "per_burst": [per_window.get(window["number"], 0) for window in bursts],
            "outside_windows": session.figures()["outside_windows"],
            # A graph is launched whole, so a burst has whole steps.
            "cut_steps": sum(count % 336 != 0 for count in per_window.values()),
            "by_kernel": by_kernel(session) if session.count("kernels") else {},
            "losses": session.manifest.get("losses"),
            "problems": session.figures()["problems"],
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("build", "out", "root"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--libcupti", help="for processes that have none mapped")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--steps", type=int, default=12_000, help="of a process; 4 s unprofiled")
    parser.add_argument("--modes", default=",".join(MODES))
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    results = common.Results(arguments.out / "sampled.json", environment, arguments.seconds, arguments.root)
    colonel = common.Colonel(
        arguments.root.resolve(), Path(tempfile.mkdtemp(prefix="colonel-sampled-")), arguments.libcupti
    )
    modes = arguments.modes.split(",")
    runs: list[dict] = []
    order = list(modes)
    longest = 0.0
    # Both orders, however long that takes.
    while len(runs) < 2 * len(modes) or results.left() > longest:
        begin = time.monotonic()
        runs += [once(colonel, arguments.build, mode, arguments.steps) for mode in order]
        order.reverse()
        longest = max(longest, time.monotonic() - begin)
        results.put("runs", {"ok": True, "runs": runs})
    medians = {
        mode: {
            key: statistics.median(run[key] for run in runs if run["mode"] == mode and run[key])
            for key in ("mean_us", "median_us")
        }
        for mode in modes
        if any(run["mode"] == mode and run["mean_us"] for run in runs)
    }
    base = medians.get("unprofiled", {})
    summary = {
        mode: figures | {f"{key}_ratio": round(figures[key] / base[key], 4) for key in figures if base.get(key)}
        for mode, figures in medians.items()
    }
    results.put("summary", {"ok": all(run["code"] == 0 for run in runs), "modes": summary})
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
