"""The same kernels sampled live by colonel and replayed by ncu, for the estimator to be held against. Called by run.sh.

Sessions come back as counters_truth_N.tar, most wanted first, and are worked on without a GPU.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

from stage_first import cost, samples

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import common
from common import Colonel

HERE = Path(__file__).resolve().parent
# NVIDIA's names of colonel's metrics, as ncu has them.
SURE = [
    "gpu__time_duration.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed.avg.pct_of_peak_sustained_elapsed",
]
ALL = [
    *SURE,
    "dram__read_throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__write_throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
    "tpc__warps_active_shader_cs_realtime.avg.pct_of_peak_sustained_elapsed",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_sector_hit_rate.pct",
    # Clocks, for percentages of cycles to be put from one to the other: the metric `sm_clock` has that of the live run.
    "sm__cycles_elapsed.avg.per_second",
    "sm__cycles_active.avg",
]
# What stays as it is in the live run.
FREE = ["--ncu-cache-control", "none", "--ncu-clock-control", "none", "--ncu-replay-mode"]
WATCH = ["--ncu-start-timeout", "60s", "--ncu-stall-timeout", "25s"]
TAR_BYTES = 15 << 20
TARS = 4


class Truth:
    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.out = arguments.out
        self.colonel = Colonel(arguments.root, scratch, arguments.libcupti)
        known = str(arguments.build / "known")
        torch = [sys.executable, str(HERE / "torch_load.py")]
        # Command, what makes it run for long, what makes it run for ncu, and how many launches that is.
        self.loads = {
            "long": ([known, "--graph"], ["--seconds", "3.5"], ["--rounds", "4"], 24),
            "short": ([known, "--graph", "--short"], ["--seconds", "3.5"], ["--rounds", "2"], 160),
            "torch": (torch, ["--seconds", "3.5"], ["--steps", "2"], 160),
        }
        self.sessions: dict[str, Path] = {}

    def gate(self, load: str) -> list[str]:
        return ["--gate", "profiler"] if load == "torch" else []

    def live(self, load: str, metrics: str, interval: str | None) -> dict:
        command, long, _, _ = self.loads[load]
        options = [*self.gate(load), f"--counters={metrics}"]
        options += ["--counters-interval", interval] if interval else []
        ran, session = self.colonel.run(options, [*command, *long], timeout=60, COLONEL_LOG="1")
        found = ran.figures() | {"says": ran.line}
        found["spent"] = [line for line in ran.err.splitlines() if "Spent" in line or "taken anew" in line]
        if session is None:
            return found | {"ok": False}
        self.sessions[f"{load}_{metrics}_{interval or 'own'}"] = session.folder
        found |= session.figures() | cost(session) | {"counters": samples(session)}
        return found | {"ok": ran.code == 0 and found["counters"]["rows"] > 0 and session.count("kernels") > 0}

    def ncu(self, load: str, replay: str) -> dict:
        """With all metrics; with those that every ncu has where it knows not all."""
        command, _, few, launches = self.loads[load]
        tried = []
        for metrics in (ALL, SURE):
            options = ["--evaluator", "ncu", "--ncu-launch-count", str(launches), "--ncu-metrics", ",".join(metrics)]
            options += [*self.gate(load), *FREE, replay, *WATCH]
            ran, session = self.colonel.run(options, [*command, *few], timeout=90)
            found = ran.figures() | (session.figures() if session else {})
            rows = session.count("kernel_counters") if session else 0
            found |= {"kernel_counters": rows, "metrics": len(metrics), "ok": ran.code == 0 and rows > 0}
            tried.append(found)
            if found["ok"] and session:
                self.sessions[f"{load}_ncu_{replay}"] = session.folder
                break
        return {"ok": tried[-1]["ok"], "seconds": tried[-1]["seconds"], "tried": tried}

    def pack(self) -> dict:
        """As many sessions as may travel."""
        # ncu's own report is large, and its figures are in the tables.
        unwanted = ("ncu-rep", "nsys-rep")
        sizes = {
            name: sum(path.stat().st_size for path in folder.rglob("*") if not path.name.endswith(unwanted))
            for name, folder in self.sessions.items()
        }
        rooms = [TAR_BYTES] * TARS
        chosen: dict[str, int] = {}
        for name in sorted(sizes, key=lambda name: ("ncu" not in name, list(sizes).index(name))):
            fitting = [number for number, room in enumerate(rooms) if sizes[name] + 64_000 < room]
            if fitting:
                chosen[name] = fitting[0]
                rooms[fitting[0]] -= sizes[name] + 64_000
        for number in sorted(set(chosen.values())):
            with tarfile.open(self.out / f"counters_truth_{number}.tar", "w") as tar:
                for name in (name for name, place in chosen.items() if place == number):
                    tar.add(
                        self.sessions[name], name, filter=lambda item: None if item.name.endswith(unwanted) else item
                    )
        return {"ok": bool(chosen), "bytes": sizes, "left_out": sorted(set(sizes) - set(chosen)), "in": chosen}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--build", "--out", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--libcupti")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    results = common.Results(arguments.out / "counters_truth.json", environment, arguments.seconds - 25, arguments.root)
    with tempfile.TemporaryDirectory() as scratch:
        truth = Truth(arguments, Path(scratch))
        # Most wanted first: time may be short.
        for load in ("short", "torch", "long"):
            results.step(f"truth_live_{load}", lambda load=load: truth.live(load, "default,sm_clock", None))
            results.step(f"truth_ncu_{load}", lambda load=load: truth.ncu(load, "application"))
        for load, metrics, interval in (
            ("torch", "dram", "20us"),
            ("short", "dram,tensor_active", "50us"),
            ("torch", "memory", None),
            ("torch", "compute", None),
            ("torch", "default", "50us"),
            ("long", "full", None),
        ):
            name = f"truth_live_{load}_{metrics.replace(',', '_')}"
            results.step(name, lambda load=load, m=metrics, i=interval: truth.live(load, m, i))
        # What replaying each kernel by itself, with what it read still in the L2, makes of it.
        results.step("truth_ncu_kernel_torch", lambda: truth.ncu("torch", "kernel"))
        results.budget += 25
        results.step("truth_pack", truth.pack)


if __name__ == "__main__":
    main()
