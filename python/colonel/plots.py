"""`Session.plot`: pictures of a session by matplotlib, for notebooks and papers.

To zoom and search there is the page of `colonel report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.patches import Patch
from matplotlib.text import Text

from colonel.errors import ColonelError, SessionReadError
from colonel.lanes import Lane, lanes
from colonel.notebook import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from colonel.sessions import Session

COLORS = [f"C{number}" for number in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
"""Of the kernels that have most time; without matplotlib's gray."""
OTHERS = "#c8c8c8"
RANGES = "#d5e3f0"
LETTERS = 130
"""Of a range's name that a picture's width has room for."""
NS_A_MS = 1e6
BOUNDS = {"memory": COLORS[0], "compute": COLORS[1], "latency": "#888888"}
BOUND = 60
"""% of a peak from which on `colonel show --counters` says that it bounds a kernel."""
NAMED = 12
"""Kernels with a number and a name in a roofline."""


class Plots:
    """Pictures of a session. Each is drawn into `ax`, or else into a figure of its own, and gives its axes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def kernels(
        self, limit: int = 15, *, window: int | str | None = None, pid: int | None = None, ax: Axes | None = None
    ) -> Axes:
        """The kernels that have most time in all, a bar each, in ms.

        Args:
            limit: Bars.
            window: Only this window, see `Session.table`.
            pid: Only this process.
            ax: Where to draw.

        Raises:
            SessionReadError: there are no kernels.
        """
        totals = _totals(self._session.kernels(["name", "start_ns", "end_ns"], window=window, pid=pid))
        if not totals:
            raise SessionReadError(f"session `{self._session.id}` has no kernels to draw")
        in_all = max(sum(ns for _, ns, _ in totals), 1)
        shown = totals[:limit]
        ax = ax or _axes(9, 1 + 0.32 * len(shown))
        ax.barh(range(len(shown)), [ns / NS_A_MS for _, ns, _ in shown], color=COLORS[0])
        ax.set_yticks(range(len(shown)), [shortened(name, 50) for name, _, _ in shown], fontsize=8)
        ax.invert_yaxis()
        for place, (_, ns, count) in enumerate(shown):
            text = f" {100 * ns / in_all:.1f} %, {count:,} launches"
            ax.annotate(text, (ns / NS_A_MS, place), va="center", fontsize=8, color="#555555")
        ax.margins(x=0.3)
        return _finish(ax, "ms in all", f"{self._session.id}: {len(totals)} kernels, {in_all / NS_A_MS:.4g} ms")

    def timeline(
        self,
        between: tuple[float, float] | None = None,
        *,
        window: int | str | None = None,
        pid: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """What ran when: a lane for each depth of NVTX ranges, each stream, and the copies of each GPU.

        Args:
            between: Only what ran between these two times, in ms as the axis counts them: from the first row on.
            window: Only this window, see `Session.table`.
            pid: Only this process.
            ax: Where to draw.

        Raises:
            SessionReadError: there is nothing to draw.
            ColonelError: `between` is no stretch of time.
        """
        found = list(lanes(self._session, window, pid))
        if not found:
            raise SessionReadError(f"session `{self._session.id}` has nothing to draw")
        zero = min(int(lane.start_ns[0]) for lane in found)
        last = max(int(lane.end_ns.max()) for lane in found)
        left, right = between or (0.0, max(last - zero, 1) / NS_A_MS)
        if left >= right:
            raise ColonelError(f"`between` is two times in ms, the earlier first, not {between}")
        span = zero + round(left * NS_A_MS), zero + round(right * NS_A_MS)
        found = [lane.cut(*span) for lane in found]
        colors = _colors(found)
        ax = ax or _axes(12, 1.2 + 0.35 * len(found))
        for place, lane in enumerate(found):
            _draw(ax, place, lane, span, zero, colors)
        ax.set_yticks(range(len(found)), [lane.label for lane in found], fontsize=8)
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.set_xlim(left, right)
        legend = [Patch(color=color, label=shortened(name, 40)) for name, color in colors.items()]
        ax.legend(handles=legend, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return _finish(ax, "ms since the first row", self._session.id)

    def roofline(self, *, window: int | str | None = None, device: int = 0, ax: Axes | None = None) -> Axes:
        """How near each kernel comes to the peaks of device memory and of compute, in %; the area is its time.

        Compute is the busiest of tensor pipes, instructions and SM throughput, as far as they were sampled. Kernels
        whose figures can't be told are not drawn: the title says how many.

        Args:
            window: Only this window, see `Session.table`.
            device: Which of `Session.speed_of_light().devices`.
            ax: Where to draw.

        Raises:
            SessionReadError: no kernel has figures: the session has no hardware counters, or too few samples.
            ColonelError: there is no such device, the program is missing, or says why it can't.
        """
        devices = self._session.speed_of_light(window=window).devices
        if devices and not 0 <= device < len(devices):
            raise ColonelError(f"`device` is 0 to {len(devices) - 1}, not {device}: GPUs that were sampled")
        sampled = devices[device] if devices else {"kernels": []}
        kernels = sampled["kernels"]
        drawn = [kernel for kernel in kernels if kernel["roofline"]]
        if not drawn:
            raise SessionReadError(
                f"session `{self._session.id}` has no figures of kernels to draw: `colonel run --counters` samples them"
            )
        ax = ax or _axes(9, 5.5)
        places = [kernel["roofline"] for kernel in drawn]
        memory, compute = ([place[f"{what}_pct"] for place in places] for what in ("memory", "compute"))
        colors = [BOUNDS[place["bound"]] for place in places]
        ax.scatter(memory, compute, s=[20 + 1_500 * kernel["share"] for kernel in drawn], c=colors, alpha=0.7)
        named = list(zip(range(1, NAMED + 1), drawn, memory, compute, strict=False))
        for number, _, x, y in named:
            ax.annotate(str(number), (x, y), ha="center", va="center", fontsize=7)
        for line in (ax.axhline, ax.axvline):
            line(BOUND, color="#999999", linewidth=0.8, linestyle="--")
        peaks = sampled["peaks"]
        tensor, bandwidth = peaks["tensor_tflop_s"], peaks["dram_gb_s"]
        ax.set_ylabel("compute, %" + (f", in tensor pipes of {tensor:.0f} TFLOP/s" if tensor else ""))
        ax.set_xlim(0, 105)
        ax.set_ylim(0, 105)
        handles = [
            Patch(
                color=BOUNDS[kernel["roofline"]["bound"]],
                label=f"{number}  {shortened(kernel['short_name'], 40)}: {kernel['roofline']['bound']}",
            )
            for number, kernel, _, _ in named
        ]
        ax.legend(handles=handles, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        title = f"{self._session.id}: {len(drawn)} kernels"
        if len(drawn) < len(kernels):
            title += f"; {len(kernels) - len(drawn)} can't be told"
        return _finish(ax, "device memory, %" + (f" of {bandwidth:.0f} GB/s" if bandwidth else ""), title)


def _axes(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _finish(ax: Axes, x: str, title: str) -> Axes:
    ax.set_xlabel(x)
    ax.set_title(title, fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    # Names of kernels may have dollars, and are no formulas.
    for text in ax.findobj(Text):
        text.set_parse_math(False)
    return ax


def _totals(rows: pa.Table) -> list[tuple[str, int, int]]:
    """Name, ns and launches of each kernel, most time first."""
    lengths = pc.subtract(rows["end_ns"], rows["start_ns"])
    by_name = pa.table({"name": rows["name"].cast(pa.string()), "ns": lengths}).group_by("name")
    totals = by_name.aggregate([("ns", "sum"), ("ns", "count")]).sort_by([("ns_sum", "descending")])
    return list(zip(*(totals[column].to_pylist() for column in ("name", "ns_sum", "ns_count")), strict=True))


def _colors(found: list[Lane]) -> dict[str, str]:
    """One for each name that has most time in sight."""
    totals: dict[str, int] = {}
    for lane in found:
        if not lane.is_ranges:
            for name, ns in lane.times().items():
                totals[name] = totals.get(name, 0) + ns
    return dict(zip(sorted(totals, key=lambda name: -totals[name]), COLORS, strict=False))


def _draw(ax: Axes, place: int, lane: Lane, span: tuple[int, int], zero: int, colors: dict[str, str]) -> None:
    boxes = lane.boxes(*span)
    starts = (boxes.start_ns - zero) / NS_A_MS
    lengths = (boxes.end_ns - boxes.start_ns) / NS_A_MS
    at = list(zip(starts, lengths, strict=True))
    if not lane.is_ranges:
        filled = [colors.get(name, OTHERS) for name in boxes.names]
        # The edge makes what is shorter than a dot visible.
        ax.broken_barh(at, (place - 0.4, 0.8), facecolors=filled, edgecolors=filled, linewidths=0.3)
        return
    ax.broken_barh(at, (place - 0.4, 0.8), facecolors=RANGES, edgecolors="white", linewidths=0.5)
    left, right = ((time - zero) / NS_A_MS for time in span)
    for (start, length), name in zip(at, boxes.names, strict=True):
        begin, end = max(start, left), min(start + length, right)
        letters = int(LETTERS * (end - begin) / (right - left))
        if letters >= 4:
            text = name if len(name) <= letters else f"{name[: letters - 1]}…"
            ax.annotate(f" {text}", (begin, place), va="center", fontsize=6)
