"""Colonel's live figures of each kernel against ncu's: `against_ncu.py COLONEL FOLDER`, FOLDER with the sessions that
the stage `truth` brought back (counters_truth_N.tar, unpacked). Needs no GPU.

ncu runs a kernel by itself, with its launch in the time: the same work takes it longer. So its percentages are first
put to the kernel's time in the live run. Kernels of 2 us or more count.
"""

import json
import subprocess
import sys
from collections import defaultdict
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


def ncu_means(session: Path) -> dict[str, dict[str, float]]:
    """By kernel and metric."""
    sums: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(session.glob("kernel_counters/**/*.parquet")):
        table = pq.ParquetFile(path).read(columns=["name", "metric", "value"])
        columns = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column for column in table
        ]
        for name, metric, value in zip(*(column.to_pylist() for column in columns), strict=True):
            if value is not None:
                sums[name][metric].append(value)
    return {
        name: {metric: sum(values) / len(values) for metric, values in of_name.items()}
        for name, of_name in sums.items()
    }


def main() -> None:
    colonel, folder = sys.argv[1], Path(sys.argv[2])
    counted: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for load in ("long", "short", "torch"):
        truth = ncu_means(folder / f"{load}_ncu_application")
        command = [colonel, "show", "--counters", "--json", str(folder / f"{load}_default_own")]
        shown = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        device = shown["speed_of_light"][0]
        print(f"{load}: {device['samples']} samples of {device['sample_ns'] / 1e3:.0f} us; colonel / ncu")
        for kernel in device["kernels"]:
            of_ncu = truth.get(kernel["name"])
            if of_ncu is None:
                continue
            mean_ns = kernel["total_ns"] / kernel["count"]
            words = [f"{mean_ns / 1e3:7.2f} / {of_ncu[DURATION] / 1e3:7.2f} us"]
            for figure in kernel["figures"]:
                metric, value = figure["metric"], figure["value"]
                if metric in BYTES and value is not None:
                    told = figure["bytes_per_launch"] / 1e6
                    words.append(f"{metric} {told:.2f} / {of_ncu[BYTES[metric]] / 1e6:.2f} MB")
                if metric not in NCU:
                    continue
                expected = of_ncu[NCU[metric]] * of_ncu[DURATION] / mean_ns
                if value is None:
                    words.append(f"{metric} {figure['trust']} / {expected:.1f}")
                    continue
                words.append(f"{metric} {value:.1f} ±{figure['high'] - value:.1f} / {expected:.1f}")
                if mean_ns >= LEAST_NS:
                    held = figure["low"] - 0.05 <= expected <= figure["high"] + 0.05
                    counted[metric].append((abs(value - expected), held))
            print(f"  {kernel['short_name'][:28]:28} " + "  ".join(words))
    print("\nkernels of 2 us or more: figures, mean absolute difference in points, part within the interval")
    counted["all"] = [pair for of_metric in counted.values() for pair in of_metric]
    for metric, pairs in counted.items():
        error = sum(error for error, _ in pairs) / len(pairs)
        print(f"  {metric:16} {len(pairs):3}  {error:.2f}  {sum(held for _, held in pairs) / len(pairs):.2f}")


if __name__ == "__main__":
    main()
