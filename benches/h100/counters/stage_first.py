"""Hardware counters, first look: do samples come, are they right, what do they cost? Called by run.sh."""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import common
from common import Colonel, Served, gpu_state
from overhead import pin, ratio


def samples(session: common.Session) -> dict:
    """What came: per metric mean, median and largest; the samples' number, rate and length."""
    files = session.files("counters")
    if not files:
        return {"rows": 0}
    table = pa.concat_tables(pq.ParquetFile(path).read(["start_ns", "end_ns", "metric", "value"]) for path in files)
    table = table.set_column(2, "metric", pc.cast(table["metric"], pa.string()))
    grouped = table.group_by("metric").aggregate(
        [("value", "mean"), ("value", "max"), ("value", "count"), ("value", "approximate_median"), ("value", "sum")]
    )
    starts = pc.unique(table["start_ns"]).to_numpy()
    lengths = pc.subtract(table["end_ns"], table["start_ns"])
    span = (int(pc.max(table["end_ns"]).as_py()) - int(starts.min())) / 1e9
    return {
        "rows": table.num_rows,
        "samples": len(starts),
        "span_s": round(span, 3),
        "per_s": round(len(starts) / span),
        "length_ns": {name: pc.quantile(lengths, q=q)[0].as_py() for name, q in (("min", 0), ("p50", 0.5), ("max", 1))},
        "metrics": {
            row["metric"]: {
                "mean": row["value_mean"],
                "p50": row["value_approximate_median"],
                "max": row["value_max"],
                "sum": row["value_sum"],
                "not_null": row["value_count"],
            }
            for row in grouped.to_pylist()
        },
    }


def cost(session: common.Session) -> dict:
    """What sampling and evaluating took."""
    sampled = [device for process in session.processes for device in process.get("counters") or []]
    evaluation = session.manifest.get("evaluation") or {}
    found: dict = {"sampled": sampled, "evaluation": evaluation, "losses": session.manifest.get("losses")}
    if sampled and sampled[0]["samples"]:
        one = sampled[0]
        found["guest_cpu_us_per_sample"] = round(one["cpu_ns"] / one["samples"] / 1e3, 3)
        found["raw_bytes_per_sample"] = round(one["raw_bytes"] / one["samples"], 1)
        found["image_bytes_per_sample"] = round(one["image_bytes"] / one["image_samples"], 1)
    if evaluation.get("samples"):
        found["evaluation_cpu_us_per_sample"] = round(evaluation["cpu_ns"] / evaluation["samples"] / 1e3, 3)
        found["evaluation_parallel"] = round(evaluation["cpu_ns"] / max(1, evaluation["wall_ns"]), 2)
    return found


# What a metric costs: colonel's sets, then parts of them.
PARTS = [
    *["default", "compute", "memory", "full", "dram", "dram,tensor_active", "dram,tensor_active,sm_active"],
    *["tensor_active", "sm_active,instructions", "gpu_active", "sm_clock", "nvlink", "sm_throughput", "l1"],
]
UNITS = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}


def microseconds(text: str) -> dict[str, float]:
    """The times and counts of a line of the guest's: `decoding: 1.2ms, decodes: 3`."""
    times = re.findall(r"(\w+): ([0-9.]+)(ns|us|µs|ms|s)\b", text)
    counts = re.findall(r"(\w+): ([0-9]+)(?=[,} ])", text)
    return {name: float(value) * UNITS[unit] for name, value, unit in times} | {
        name: float(value) for name, value in counts
    }


class First:
    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments = arguments
        self.scratch = scratch
        self.colonel = Colonel(arguments.root, scratch, arguments.libcupti)
        self.known = str(arguments.build / "known")
        self.loop = str(arguments.build / "loop")

    def run(self, options: list[str], command: list[str], keep: bool = False, **environment: str) -> dict:
        ran, session = self.colonel.run(options, command, timeout=150, **environment)
        # Where the guest's thread spent its time, with COLONEL_LOG.
        words = ("Spent", "metrics chosen", "samples are lost", "taken anew")
        spent = [line for line in ran.err.splitlines() if any(word in line for word in words)]
        found = ran.figures() | {"says": ran.line, "spent": spent}
        if session is None:
            return found | {"ok": False}
        found |= session.figures() | cost(session) | {"counters": samples(session)}
        found["ok"] = ran.code == 0 and found["counters"]["rows"] > 0
        if keep:
            with tarfile.open(self.arguments.out / "counters_session.tar", "w") as tar:
                tar.add(session.folder, session.folder.name)
        return found

    def copy_alone(self) -> dict:
        """A copy whose bytes are known: the sum of the samples against it."""
        found = self.run(["--mode", "counters"], [self.known, "--seconds", "1", "--only", "copy"])
        metrics = found.get("counters", {}).get("metrics", {})
        says = found["says"]
        if "rounds" in says and "dram_read_bytes" in metrics:
            # 21 further launches measure its time.
            launches = says["rounds"] * says["times"] + 21
            expected = launches * says["kernels"]["copy"]["read"]
            for name in ("dram_read_bytes", "dram_write_bytes"):
                found[f"{name}_of_expected"] = metrics[name]["sum"] / expected
        return found

    def interval(self, interval: str, metrics: str = "full") -> dict:
        options = ["--mode", "counters", f"--counters={metrics}", "--counters-interval", interval]
        return self.run(options, [self.known, "--seconds", "3", "--graph"], COLONEL_LOG="1")

    def parts(self, seconds: float) -> dict:
        """What a sample costs in the guest, part by part, by metrics and interval; rows where time is left."""
        runs = [("default", "50us"), *((name, None) for name in PARTS), ("dram", "20us"), ("full", "200us")]
        found: dict = {"ok": True}
        begin = time.monotonic()
        for name, interval in runs:
            if time.monotonic() - begin > seconds - 4:
                found.setdefault("skipped", []).append(f"{name} {interval or ''}")
                continue
            options = ["--mode", "counters", f"--counters={name}"]
            options += ["--counters-interval", interval] if interval else []
            # Evaluating is measured elsewhere, but for the first.
            later = ["--no-analyze"] if found.keys() != {"ok"} else []
            ran = self.run([*options, *later], [self.known, "--seconds", "1"], COLONEL_LOG="1")
            one = (ran.get("sampled") or [{}])[0]
            counted = one.get("samples", 0)
            row = {key: ran.get(key) for key in ("code", "problems", "evaluation", "spent")}
            row |= {key: one.get(key) for key in ("samples", "lost_samples", "interval_ns", "cpu_ns", "image_samples")}
            row["metrics"] = len(one.get("metrics", []))
            row |= {key: ran.get(key) for key in ("image_bytes_per_sample", "raw_bytes_per_sample")}
            summary = [line for line in ran["spent"] if "Spent" in line]
            if summary and counted:
                parts = microseconds(summary[-1].split("Spent", 1)[1])
                row["us_per_sample"] = {
                    key: round(parts[key] / counted, 3)
                    for key in ("decoding", "asking_times", "compressing", "writing", "emptying")
                    if key in parts
                }
                row["figures"] = parts
            found[f"{name} {interval or one.get('interval_ns')}"] = row
            found["ok"] = found["ok"] and ran.get("code") == 0 and counted > 0
        return found

    def two_at_once(self) -> dict:
        """The second gets a clear refusal, and both programs run."""
        sessions = [self.colonel.sessions_dir() for _ in range(2)]
        command = [self.known, "--seconds", "4"]
        processes = []
        for folder in sessions:
            full = self.colonel.command(folder, ["--counters"], command)
            environment = common.merged(self.colonel.environment())
            processes.append(subprocess.Popen(full, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            time.sleep(2)
        codes = [process.wait(timeout=120) for process in processes]
        found = [common.session_in(folder) for folder in sessions]
        problems = [
            [problem for process in session.processes for problem in process["problems"]]
            for session in found
            if session
        ]
        rows = [session.count("counters") for session in found if session]
        refused = any(problem["code"] == "counters_busy" for problem in problems[1])
        return {
            "codes": codes,
            "problems": problems,
            "counters": rows,
            "ok": refused and rows[0] > 0 and codes == [0, 0],
        }

    def again(self) -> dict:
        """Samples that were kept are evaluated again, offline."""
        ran, session = self.colonel.run(
            ["--mode", "counters", "--no-analyze"], [self.known, "--seconds", "0.5"], timeout=60
        )
        if session is None:
            return ran.figures() | {"ok": False}
        raw = list(session.folder.glob("samples/**/*.samples"))
        program = str(self.colonel.bin / "colonel")
        evaluate = [program, "counters", "evaluate", "--sessions-dir", str(session.folder.parent), session.folder.name]
        again = common.run(evaluate, 100)
        found = common.Session(session.folder)
        return {"raw": len(raw), "code": again.code, "says": again.err[-600:], "rows": found.count("counters")} | {
            "ok": bool(raw) and again.code == 0 and found.count("counters") > 0
        }

    def paired(self, configurations: dict[str, list[str] | None], seconds: float) -> dict:
        """The loop's step in turns, unprofiled and under each configuration, in processes side by side."""
        served = {}
        folders = []
        for name, options in configurations.items():
            command = [self.loop, "--serve"]
            if options is not None:
                # Evaluating is measured elsewhere.
                gate = ["--gate", "profiler", "--no-analyze", *options]
                folders.append(self.colonel.sessions_dir())
                command = self.colonel.command(folders[-1], gate, command)
            served[name] = Served([*pin(), *command], self.colonel.environment(), self.scratch / f"{name}.log")
        for one in served.values():
            one.read(90)
        draw = random.Random(20261124)
        rounds: list[list[dict]] = []
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            blocks = []
            for mode, steps in (("graph", 300), ("eager", 100)):
                for name in draw.sample(list(served), len(served)):
                    kind = "idle" if configurations[name] is None else "window"
                    answer = served[name].ask(f"{kind}:{mode}:1x{steps}")
                    block = {"config": name, "kind": kind, "mode": mode, "step_us": answer["rounds_us"][0]}
                    blocks.append(block | {key: answer[key] for key in ("start_us", "stop_us") if key in answer})
            rounds.append(blocks)
        ends = {name: one.finish()[1] for name, one in served.items()}
        # The first rounds open the device and warm up.
        rounds = rounds[3:]
        found: dict = {"rounds": len(rounds), "codes": ends, "gpu": gpu_state()}
        for mode in ("graph", "eager"):
            of_mode = [block for blocks in rounds for block in blocks if block["mode"] == mode]
            found[mode] = {"step_us": {}, "ratios": {}}
            for name, options in configurations.items():
                steps = [block["step_us"] for block in of_mode if block["config"] == name]
                found[mode]["step_us"][name] = round(statistics.median(steps), 2)
                for key in ("start_us", "stop_us"):
                    calls = [block[key] for block in of_mode if block["config"] == name and key in block]
                    if calls:
                        found[mode].setdefault(key, {})[name] = round(statistics.median(calls), 1)
                if options is not None:
                    found[mode]["ratios"][name] = ratio([rounds], (name, "window"), ("unprofiled", "idle"), mode, 1000)
            if {"records", "records_counters"} <= set(configurations):
                pair = (("records_counters", "window"), ("records", "window"))
                found[mode]["ratios"]["records_counters / records"] = ratio([rounds], *pair, mode, 1000)
        found["sessions"] = [
            cost(session) | session.figures() for folder in folders if (session := common.session_in(folder))
        ]
        found["ok"] = all(code == 0 for code in ends.values()) and len(rounds) > 2
        return found


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--build", "--out", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--libcupti")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    results = common.Results(arguments.out / "counters_first.json", environment, arguments.seconds, arguments.root)
    with tempfile.TemporaryDirectory() as scratch:
        first = First(arguments, Path(scratch))
        # To take the GPU needs 0.7 s.
        short = ["--seconds", "1.2"]
        alone = ["--mode", "counters"]
        steps = {
            "alone": lambda: first.run(alone, [first.known, "--seconds", "1"], COLONEL_LOG="1"),
            "parts": lambda: first.parts(45),
            "records": lambda: first.run(["--counters"], [first.known, "--seconds", "1", "--graph"]),
            "kept": lambda: first.run(["--counters", "--keep-samples"], [first.known, *short, "--graph"], keep=True),
            "copy_alone": first.copy_alone,
            "again": first.again,
            "two_at_once": first.two_at_once,
            "cost_counters": lambda: first.paired({"unprofiled": None, "counters": alone}, 25),
            "cost_records": lambda: first.paired(
                {"unprofiled": None, "records": [], "records_counters": ["--counters"]}, 35
            ),
            "interval_10us": lambda: first.interval("10us"),
            "interval_20us": lambda: first.interval("20us"),
            "interval_50us": lambda: first.interval("50us"),
            "interval_100us": lambda: first.interval("100us"),
            "few_metrics_10us": lambda: first.interval("10us", "dram,tensor"),
            "few_metrics_20us": lambda: first.interval("20us", "dram,tensor"),
            "few_metrics_5us": lambda: first.interval("5us", "dram,tensor"),
        }
        wanted = [word for word in arguments.only.split(",") if word]
        for name, step in steps.items():
            if not wanted or any(word in name for word in wanted):
                results.step(name, step)


if __name__ == "__main__":
    main()
