"""`Session.summary`: where a session's time went, with the figures of `colonel show`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colonel import notebook
from colonel.errors import ColonelError
from colonel.program import ask

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

ROWS = {"kernel": "kernels", "layer": "steps", "step": "steps", "phase": "phases", "nvtx": "ranges"}
"""Where `colonel show --json` has the rows."""
SHOWN = 20
"""Rows of a notebook's table."""


@dataclass(frozen=True)
class Summary:
    """Where the time of a session went; docs/cli.md says what each figure means."""

    by: str
    """What a row is: `kernel`, `layer`, `step`, `phase` or `nvtx`."""
    figures: Mapping[str, Any]
    """All of them, as `colonel show --json` prints them: times in ns, shares as parts of 1."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Kernels, layers, kinds of steps, phases or ranges."""
        rows: list[dict[str, Any]] = self.figures[ROWS[self.by]]
        if self.by != "layer":
            return [{name: value for name, value in row.items() if name != "parts"} for row in rows]
        kinds = ("phase", "batch", "graph_id", "steps")
        return [{kind: step[kind] for kind in kinds} | part for step in rows for part in step["parts"]]

    def table(self) -> pa.Table:
        """The rows as an Arrow table; `.to_pandas()` and `polars.from_arrow` take it on.

        Figures within figures have both names: `durations_median_ns`.
        """
        import pyarrow as pa

        return pa.Table.from_pylist([_flat(row) for row in self.rows])

    def __repr__(self) -> str:
        return f"colonel.Summary({self.figures['id']}, by {self.by}: {self._in_all()})"

    def _repr_html_(self) -> str:
        rows = self.rows
        lines = [LINES[self.by](row) for row in rows[:SHOWN]]
        told = [f"lost: {loss['count'] or 'some'} {loss['kind']}, {loss['reason']}" for loss in self.figures["losses"]]
        more = [f"and {len(rows) - SHOWN} more: .rows"] if len(rows) > SHOWN else []
        return "".join(
            [
                notebook.title(f"{self.figures['id']}: {self._in_all()}"),
                *map(notebook.paragraph, told),
                notebook.table(HEADS[self.by], lines),
                *map(notebook.paragraph, more),
            ]
        )

    def _in_all(self) -> str:
        return f"{self.figures['kernel_count']:,} kernels, {notebook.time(self.figures['kernels_ns'])} of GPU time"


def summarize(session: Path, by: str, window: int | str | None) -> Summary:
    """The summary of the session in this folder.

    Raises:
        ColonelError: `by` is none of those, the program is missing, or says why it can't.
    """
    if by not in ROWS:
        raise ColonelError(f"`by` is one of {', '.join(ROWS)}, not `{by}`")
    words = [] if by == "kernel" else ["--by", by]
    words += [] if window is None else [f"--window={window}"]
    return Summary(by, ask("show", str(session), *words))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": of for inner, of in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _share(row: Mapping[str, Any]) -> str:
    return f"{100 * row['share']:.1f} %"


def _shape(row: Mapping[str, Any]) -> str:
    grid, block = (",".join(map(str, _cut(row["shape"][of]))) for of in ("grid", "block"))
    more = f" +{row['shapes'] - 1}" if row["shapes"] > 1 else ""
    return f"{grid} x {block}{more}"


def _cut(axes: list[int]) -> list[int]:
    """Without the ones at the end."""
    while len(axes) > 1 and axes[-1] == 1:
        axes = axes[:-1]
    return axes


def _kernel(row: Mapping[str, Any]) -> list[str]:
    times = [notebook.time(row[f"{what}_ns"]) for what in ("total", "mean", "median", "p95")]
    return [notebook.shortened(row["name"]), _share(row), f"{row['count']:,}", *times, _shape(row)]


def _kind(row: Mapping[str, Any]) -> str:
    batch = "" if row["batch"] is None else f", batch {row['batch']}"
    graph = "" if row["graph_id"] is None else f", graph {row['graph_id']}"
    return f"{row['phase'] or 'steps'}{batch}{graph}, {row['steps']:,} steps"


def _layer(row: Mapping[str, Any]) -> list[str]:
    first, last = row["first_layer"], row["last_layer"]
    name = row["name"] or (f"{first}" if first == last else f"{first}..{last} (each)")
    of_step = row["per_step"]
    times = [notebook.time(of_step[f"{what}_ns"]) for what in ("mean", "median", "p95")]
    return [_kind(row), name, _share(row), *times, notebook.shortened(row["slowest"]["name"])]


def _step(row: Mapping[str, Any]) -> list[str]:
    length = row["durations"]
    busy = f"{100 * row['busy']['total_ns'] / length['total_ns']:.1f} %" if length["total_ns"] else "-"
    times = [notebook.time(length[f"{what}_ns"]) for what in ("median", "p95", "min", "max")]
    wait = (row["between"] or {}).get("mean_ns")
    return [_kind(row), *times, busy, notebook.time(wait)]


def _phase(row: Mapping[str, Any]) -> list[str]:
    counts = [f"{row[what]:,}" for what in ("steps", "kernels")]
    return [row["phase"] or "neither", _share(row), *counts, notebook.time(row["kernels_ns"])]


def _range(row: Mapping[str, Any]) -> list[str]:
    times = [notebook.time(row[what]) for what in ("total_ns", "own_ns")]
    return [row["nvtx_path"] or "no range", _share(row), f"{row['count']:,}", *times]


LINES = {"kernel": _kernel, "layer": _layer, "step": _step, "phase": _phase, "nvtx": _range}
HEADS = {
    "kernel": ["kernel", "share", "count", "total", "mean", "median", "p95", "grid x block"],
    "layer": ["steps", "layer", "share", "a step", "median", "p95", "slowest kernel"],
    "step": ["steps", "median", "p95", "min", "max", "GPU busy", "wait before"],
    "phase": ["phase", "share", "steps", "kernels", "in kernels"],
    "nvtx": ["range", "share", "kernels", "in kernels", "of its own"],
}
