"""Colonel's live figures of each kernel against ncu's: `against_ncu.py COLONEL FOLDER`, FOLDER with the sessions that
the stage `truth` brought back (counters_truth_N.tar, unpacked). Needs no GPU.

ncu runs a kernel by itself, with its launch in the time, and at another clock. So its percentages are first put to the
live run: bytes to the kernel's live time, and parts of cycles (tensor pipes, SMs, instructions) to ncu's own time less
that of a launch, which is what kernels of less than 2 us take longer under ncu. Longer kernels are compared.
"""

import json
import random
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

NCU = {
    "dram_throughput": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "tensor_active": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "instructions": "sm__inst_executed.avg.pct_of_peak_sustained_elapsed",
    "sm_active": "sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
}
BYTES = {"dram_read_bytes": "dram__bytes_read.sum", "dram_write_bytes": "dram__bytes_write.sum"}
DURATION = "gpu__time_duration.sum"
LEAST_NS = 2_000
# Live sessions, as far as they are there, and the ncu session of the same program.
SESSIONS = [
    *(
        (f"{load}_{metrics}_own", load)
        for load in ("long", "short", "torch")
        for metrics in ("default", "default,sm_clock")
    ),
    ("short_dram,tensor_active_50us", "short"),
    ("torch_dram_20us", "torch"),
    ("torch_compute_own", "torch"),
]
# `MODEL` of src/analysis/speed_of_light/estimate.rs, points.
MODEL = 1.7
SPLITS = 400


@dataclass(frozen=True)
class Compared:
    """A figure of both."""

    kernel: str
    metric: str
    error: float
    half: float

    def half_with(self, model: float) -> float:
        """Half of the interval, with another allowance for the model."""
        return (max(self.half**2 - MODEL**2, 0) + model**2) ** 0.5

    def holds(self, model: float) -> bool:
        return self.error <= self.half_with(model) + 0.05


def ncu_launches(session: Path) -> dict[str, dict[str, list[float]]]:
    """By kernel and metric, a value a launch."""
    launches: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(session.glob("kernel_counters/**/*.parquet")):
        table = pq.ParquetFile(path).read(columns=["name", "metric", "value"])
        columns = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column for column in table
        ]
        for name, metric, value in zip(*(column.to_pylist() for column in columns), strict=True):
            if value is not None:
                launches[name][metric].append(value)
    return launches


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def expected(launches: dict[str, list[float]], metric: str, live_ns: float, launch_ns: float) -> float:
    """What ncu says, put to the live run; launches of another length weigh by it."""
    lengths = launches[DURATION]
    total = sum(share * ns for share, ns in zip(launches[NCU[metric]], lengths, strict=True))
    if metric.startswith("dram"):
        return total / len(lengths) / live_ns
    return total / sum(ns - launch_ns for ns in lengths)


def compare(colonel: str, folder: Path, ncu: Path) -> list[Compared]:
    truth = ncu_launches(ncu)
    command = [colonel, "show", "--counters", "--json", str(folder)]
    shown = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    device = shown["speed_of_light"][0]
    kernels = {kernel["name"]: kernel for kernel in device["kernels"] if kernel["name"] in truth}
    live = {name: kernel["total_ns"] / kernel["count"] for name, kernel in kernels.items()}
    launch_ns = mean([mean(truth[name][DURATION]) - ns for name, ns in live.items() if ns < LEAST_NS])
    print(f"{folder.name}: {device['samples']} samples of {device['sample_ns'] / 1e3:.0f} us, ", end="")
    print(f"clocks {device['offset_ns']} ± {device['offset_sd_ns']:.0f} ns, a launch {launch_ns / 1e3:.2f} us in ncu")
    print("  colonel's interval / ncu")
    compared = []
    for name, kernel in kernels.items():
        words = [f"{live[name] / 1e3:7.2f} / {mean(truth[name][DURATION]) / 1e3:7.2f} us"]
        for figure in kernel["figures"]:
            metric, value = figure["metric"], figure["value"]
            if metric in BYTES and value is not None:
                told = figure["bytes_per_launch"] / 1e6
                words.append(f"{metric} {told:.2f} / {mean(truth[name][BYTES[metric]]) / 1e6:.2f} MB")
            if metric not in NCU:
                continue
            right = expected(truth[name], metric, live[name], launch_ns)
            if value is None:
                words.append(f"{metric} {figure['trust']} / {right:.1f}")
                continue
            words.append(f"{metric} {value:.1f} ±{figure['high'] - value:.1f} / {right:.1f}")
            if live[name] >= LEAST_NS:
                half = figure["high"] - value
                compared.append(Compared(f"{ncu.name} {name}", metric, abs(value - right), half))
        # The last part of a name's path says which it is.
        short = re.sub(r"[(<].*", "", name.replace("(anonymous namespace)::", "")).split("::")[-1]
        print(f"    {short[-34:]:34} " + "  ".join(words))
    return compared


def least_model(compared: list[Compared]) -> float:
    """The allowance with which 90 % lie within the interval."""
    steps = (number / 20 for number in range(400))
    return next(model for model in steps if mean([figure.holds(model) for figure in compared]) >= 0.9)


def main() -> None:
    colonel, folder = sys.argv[1], Path(sys.argv[2])
    compared = []
    for session, load in (pair for pair in SESSIONS if (folder / pair[0]).is_dir()):
        compared += compare(colonel, folder / session, folder / f"{load}_ncu_application")
    print(f"\nkernels of {LEAST_NS / 1e3:.0f} us or more: figures, mean absolute difference in points, half of the")
    print("interval (mean, median), part within it, and part within it without the allowance for the model")
    for metric in [*NCU, "all"]:
        of_metric = [figure for figure in compared if metric in (figure.metric, "all")]
        halves = sorted(figure.half for figure in of_metric)
        within = [mean([figure.holds(model) for figure in of_metric]) for model in (MODEL, 0)]
        error = mean([figure.error for figure in of_metric])
        words = f"{error:.2f}  {mean(halves):.1f} {halves[len(halves) // 2]:.1f}  {within[0]:.2f} {within[1]:.2f}"
        print(f"  {metric:16} {len(of_metric):3}  {words}")
    kernels = sorted({figure.kernel for figure in compared})
    dice = random.Random(1)
    models, tested = [], []
    for _ in range(SPLITS):
        half = set(dice.sample(kernels, len(kernels) // 2))
        models.append(least_model([figure for figure in compared if figure.kernel in half]))
        tested.append(mean([figure.holds(models[-1]) for figure in compared if figure.kernel not in half]))
    tenth, ninth = SPLITS // 10, SPLITS - SPLITS // 10
    models.sort()
    tested.sort()
    print("\nallowance with which 90 % of one half of the kernels' figures lie within: median ", end="")
    print(f"{models[SPLITS // 2]:.2f} points")
    print(f"({models[tenth]:.2f} to {models[ninth]:.2f} in 80 % of {SPLITS} splits); of the other half then")
    print(f"{100 * mean(tested):.1f} % on average ({tested[tenth]:.2f} to {tested[ninth]:.2f})")


if __name__ == "__main__":
    main()
