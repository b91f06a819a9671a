"""`colonel.compare`: two sessions side by side, with the figures of `colonel compare`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colonel import notebook
from colonel.errors import ColonelError
from colonel.program import ask
from colonel.sessions import Session, open

if TYPE_CHECKING:
    import pyarrow as pa

BY = {"kernel": "kernels", "layer": "layers", "step": "steps"}
VERDICTS = {"no_difference": "no difference", "cannot_tell": "can't tell", "only_a": "only in A", "only_b": "only in B"}
SHOWN = 20
"""Rows of a notebook's table."""


@dataclass(frozen=True)
class Comparison:
    """What became slower or faster from `a` to `b`; docs/cli.md says how that is told."""

    figures: Mapping[str, Any]
    """All of them, as `colonel compare --json` prints them: times in ns, changes as parts of `a`."""

    @property
    def verdict(self) -> str:
        """Of the time in kernels: `no_difference`, `slower`, `faster` or `cannot_tell`."""
        return str(self.figures["verdict"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Kernels, layers or kinds of steps, what contributes most to the difference first."""
        rows: list[dict[str, Any]] = self.figures[BY[self.figures["by"]]]
        return rows

    def table(self) -> pa.Table:
        """The rows as an Arrow table; `.to_pandas()` and `polars.from_arrow` take it on."""
        import pyarrow as pa

        flat = []
        for row in self.rows:
            sides = {
                f"{what}_{side}": (row[side] or {}).get(what)
                for side in ("a", "b")
                for what in ("count", "total_ns", "mean_ns", "median_ns")
            }
            flat.append({name: value for name, value in row.items() if name not in ("a", "b")} | sides)
        return pa.Table.from_pylist(flat)

    def __repr__(self) -> str:
        a, b = (session["id"] for session in self.figures["sessions"])
        change = notebook.change(self.figures["in_all"]["kernels"]["relative"])
        return f"colonel.Comparison({a} → {b}: {_words(self.verdict)}, {change})"

    def _repr_html_(self) -> str:
        a, b = (session["id"] for session in self.figures["sessions"])
        in_all = self.figures["in_all"]
        lines = [_line("time in kernels", in_all["kernels"], in_all["kernels"]["verdict"])]
        if in_all["steps"]:
            lines.append(_line("length of a step", in_all["steps"], in_all["steps"]["verdict"]))
        for row in self.rows[:SHOWN]:
            name = row["name"] if row["name_b"] is None else f"{row['name']} → {row['name_b']}"
            lines.append(_line(name or "(none)", row, row["verdict"] or row["match"]))
        unit = "a step" if self.figures["unit"] == "step" else "a launch"
        heads = [self.figures["by"], f"A, {unit}", "B", "change", "95 % interval", ""]
        more = len(self.rows) - SHOWN
        return "".join(
            [
                notebook.title(f"B ({b}) against A ({a}): {_words(self.verdict)}"),
                *map(notebook.paragraph, self.figures["warnings"]),
                notebook.table(heads, lines),
                notebook.paragraph(f"and {more} more: .rows") if more > 0 else "",
            ]
        )


def compare(
    a: Session | str | os.PathLike[str],
    b: Session | str | os.PathLike[str],
    by: str = "kernel",
    *,
    window_a: int | str | None = None,
    window_b: int | str | None = None,
) -> Comparison:
    """Puts two sessions of this machine side by side.

    Args:
        a: The session that is compared with, as `open` takes it.
        b: The other one.
        by: Rows: `kernel`, `layer` or `step`.
        window_a: Only this window of `a`, by number or name, with the windows inside.
        window_b: Only this window of `b`. Both may be one session, with two windows.

    Raises:
        ColonelError: the program is missing, or says why it can't compare them.
    """
    if by not in BY:
        raise ColonelError(f"`by` is one of {', '.join(BY)}, not `{by}`")
    folders = [(session if isinstance(session, Session) else open(session)).path for session in (a, b)]
    windows = [("--window-a", window_a), ("--window-b", window_b)]
    chosen = [f"{option}={window}" for option, window in windows if window is not None]
    return Comparison(ask("compare", *map(str, folders), "--by", by, *chosen))


def _words(verdict: str) -> str:
    return VERDICTS.get(verdict, verdict)


def _line(name: str, change: Mapping[str, Any], verdict: str | None) -> list[str]:
    low, high = (notebook.change(change[end]) for end in ("low", "high"))
    interval = "-" if change["low"] is None else f"{low} to {high}"
    times = [notebook.time(change["a_ns"]), notebook.time(change["b_ns"])]
    return [name, *times, notebook.change(change["relative"]), interval, _words(verdict or "-")]
