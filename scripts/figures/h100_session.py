"""Draw docs/images/h100-session.png from measurements that lie in this repository.

    python -m venv /tmp/figures && /tmp/figures/bin/pip install -r scripts/figures/requirements.txt
    /tmp/figures/bin/python scripts/figures/h100_session.py

Above, one replay of a CUDA graph as colonel recorded it on an H100; below, what its kernels cost, and what capturing
costs the host. Every figure is read from the files named in `main`.
"""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import median

import matplotlib as mpl
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[2]
MEASUREMENTS = REPOSITORY / "docs/measurements"

# What tells this loop's kernels apart: a part of the name, a label, and a colour of Okabe and Ito's palette, which
# people with any colour vision can tell apart.
KERNELS = [
    ("reduce_kernel", "reduce_kernel", "#0072B2"),
    ("softmax_warp_forward", "softmax_warp_forward", "#D55E00"),
    ("tanh_kernel_cuda", "elementwise: tanh", "#009E73"),
    ("CUDAFunctorOnSelf_add", "elementwise: add", "#E69F00"),
    ("float16_copy", "elementwise: copy to half", "#56B4E9"),
    ("MulFunctor", "elementwise: mul", "#CC79A7"),
    ("mem", "memset32, memcpy32_post", "#000000"),
]
RATIOS = [
    ("armed / unprofiled", "armed /\nunprofiled"),
    ("capturing / bare client", "capturing /\nbare CUPTI client"),
]
LOOPS = [
    ("native", "graph", "C++ loop, graph"),
    ("native", "eager", "C++ loop, eager"),
    ("torch", "graph", "PyTorch, graph"),
    ("torch", "eager", "PyTorch, eager"),
]
GREY = "#555555"


def label_of(name: str) -> int:
    """Which of KERNELS a kernel is."""
    return next(index for index, (part, _, _) in enumerate(KERNELS) if part in name)


def steps_of(table: dict[str, list]) -> list[list[tuple[int, int, int]]]:
    """Kernels (start, end, which) by graph launch: all kernels of one launch share a correlation id."""
    steps = defaultdict(list)
    for name, start, end, launch in zip(
        table["name"], table["start_ns"], table["end_ns"], table["correlation_id"], strict=True
    ):
        steps[launch].append((start, end, label_of(name)))
    return sorted((sorted(step) for step in steps.values()), key=lambda step: step[0])


def typical(steps: list[list[tuple[int, int, int]]]) -> int:
    """The step whose idle time until the next one is the median."""
    gaps = [(after[0][0] - before[-1][1], index) for index, (before, after) in enumerate(pairwise(steps))]
    return sorted(gaps)[len(gaps) // 2][1]


def bars(axes: Axes, step: list[tuple[int, int, int]], origin: int) -> None:
    for which, (_, _, colour) in enumerate(KERNELS):
        spans = [((start - origin) / 1e3, (end - start) / 1e3) for start, end, kind in step if kind == which]
        axes.broken_barh(spans, (0, 1), color=colour, linewidth=0)


def draw_timeline(axes: Axes, steps: list[list[tuple[int, int, int]]], chosen: int) -> None:
    """One replay, the idle time after it, and the start of the next."""
    step, following = steps[chosen], steps[chosen + 1]
    origin, end, resumed = step[0][0], step[-1][1], following[0][0]
    bars(axes, step, origin)
    bars(axes, following, origin)
    idle = (end - origin) / 1e3, (resumed - origin) / 1e3
    axes.annotate("", (idle[0], 0.5), (idle[1], 0.5), arrowprops={"arrowstyle": "<->", "color": GREY})
    axes.text(sum(idle) / 2, 0.6, f"GPU idle {idle[1] - idle[0]:.0f} µs", ha="center", color=GREY)
    busy = sum(stop - start for start, stop, _ in step) / 1e3
    axes.set_xlim(-6, idle[1] + 60)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xlabel("µs since the first kernel of the step")
    axes.set_title(
        f"One step while recording: a CUDA graph of {len(step)} kernels, {busy:.0f} µs in kernels, "
        f"{idle[0]:.0f} µs from first to last",
        loc="left",
    )


def draw_zoom(axes: Axes, step: list[tuple[int, int, int]], first: int, count: int) -> None:
    """A few kernels of the step, each wide enough to see."""
    shown = step[first : first + count]
    origin = step[0][0]
    bars(axes, shown, origin)
    axes.set_xlim((shown[0][0] - origin) / 1e3 - 0.3, (shown[-1][1] - origin) / 1e3 + 0.3)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xlabel("µs since the first kernel of the step")
    gap = median(after[0] - before[1] for before, after in pairwise(step)) / 1e3
    axes.set_title(f"{count} kernels of it: {gap:.2f} µs between two (median)", loc="left")


def draw_shares(axes: Axes, steps: list[list[tuple[int, int, int]]]) -> None:
    """Share of the time in kernels, and the median duration."""
    durations = defaultdict(list)
    for step in steps:
        for start, end, which in step:
            durations[which].append(end - start)
    total = sum(map(sum, durations.values()))
    order = sorted(durations, key=lambda which: sum(durations[which]))
    for row, which in enumerate(order):
        share = 100 * sum(durations[which]) / total
        axes.barh(row, share, color=KERNELS[which][2])
        axes.text(share + 0.5, row, f"{share:.1f} %, {median(durations[which]) / 1e3:.2f} µs", va="center")
    axes.set_yticks(range(len(order)), [KERNELS[which][1] for which in order])
    axes.set_xlim(0, 41)
    axes.set_xlabel("share of time in kernels (%), and median duration")
    kernels = sum(map(len, steps))
    axes.set_title(f"{kernels:,} kernels of the session", loc="left")


def draw_ratios(axes: Axes, results: dict) -> None:
    """Step time ratios with their 95 % intervals."""
    styles = [("o", "#0072B2"), ("s", "#0072B2"), ("o", "#D55E00"), ("s", "#D55E00")]
    for row, (key, _) in enumerate(RATIOS):
        for index, ((loop, mode, label), (marker, colour)) in enumerate(zip(LOOPS, styles, strict=True)):
            found = results[loop]["summary"][mode]["ratios"][key]
            axes.errorbar(
                found["ratio"],
                -row + 0.3 - 0.2 * index,
                xerr=[[found["ratio"] - found["low"]], [found["high"] - found["ratio"]]],
                fmt=marker,
                color=colour,
                capsize=4,
                label=label if row == 0 else None,
            )
    axes.axvline(1, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks([-row for row in range(len(RATIOS))], [text for _, text in RATIOS])
    axes.set_ylim(-len(RATIOS) + 0.4 - 0.95, 0.55)
    axes.set_xlabel("ratio of step times, 95 % interval")
    summaries = [results[loop]["summary"][mode]["ratios"] for loop, mode, _ in LOOPS]
    low, *_, high = sorted(ratios["capturing / unprofiled"]["ratio"] for ratios in summaries)
    axes.set_title(f"What it costs the host\n(capturing / unprofiled: {low:.1f} to {high:.1f})", loc="left")
    axes.legend(loc="lower right", fontsize=11, framealpha=1, edgecolor="none", borderaxespad=0)


def heading(environment: dict) -> str:
    gpu, driver = environment["gpu"].split(", ")[:2]
    packages = environment["packages"]
    return (
        f"{gpu}, driver {driver}, CUPTI {packages['nvidia-cuda-cupti']}, "
        f"PyTorch {packages['torch']}, {environment['date'][:10]}"
    )


def main() -> None:
    capture = json.loads((MEASUREMENTS / "2026-11-24-capture-2/capture.json").read_text())
    overhead = json.loads((MEASUREMENTS / "2026-11-24-overhead/overhead.json").read_text())
    columns = ["name", "start_ns", "end_ns", "correlation_id"]
    session = pq.read_table(MEASUREMENTS / "2026-11-24-capture-2/kernels.parquet", columns=columns)
    steps = steps_of(session.to_pydict())
    chosen = typical(steps)

    mpl.rcParams.update({"font.size": 13, "axes.titlesize": 14, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(12, 9), dpi=100, layout="constrained")
    figure.suptitle(heading(capture["environment"]), x=0.01, ha="left", fontsize=16, fontweight="bold")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.15], hspace=0.03)
    whole, part = above.subplots(2, 1, height_ratios=[1.1, 1])
    draw_timeline(whole, steps, chosen)
    draw_zoom(part, steps[chosen], first=100, count=24)
    shares, ratios = below.subplots(1, 2, width_ratios=[1, 1])
    draw_shares(shares, steps)
    draw_ratios(ratios, overhead["results"])
    target = REPOSITORY / "docs/images/h100-session.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})


if __name__ == "__main__":
    main()
