"""`colonel.compare`: two sessions side by side, with the figures of `colonel compare`."""

from __future__ import annotations

import html
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colonel.errors import ColonelError
from colonel.program import find_program
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
        change = _percent(self.figures["in_all"]["kernels"]["relative"])
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
        head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
        more = len(self.rows) - SHOWN
        rest = f"<p>and {more} more: <code>.rows</code></p>" if more > 0 else ""
        warnings = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.figures["warnings"])
        return (
            f"<p><b>B ({html.escape(b)}) against A ({html.escape(a)}): {_words(self.verdict)}</b></p>{warnings}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{rest}"
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
    command = [find_program(), "compare", *map(str, folders), "--by", by, "--json"]
    for option, window in (("--window-a", window_a), ("--window-b", window_b)):
        if window is not None:
            command.append(f"{option}={window}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ColonelError(done.stderr.strip().removeprefix("colonel: "))
    return Comparison(json.loads(done.stdout))


def _words(verdict: str) -> str:
    return VERDICTS.get(verdict, verdict)


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:+.1f} %"


def _time(ns: float | None) -> str:
    if ns is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")) if ns >= size), (1, "ns"))
    return f"{ns / size:.4g} {unit}"


def _line(name: str, change: Mapping[str, Any], verdict: str | None) -> str:
    interval = "-" if change["low"] is None else f"{_percent(change['low'])} to {_percent(change['high'])}"
    cells = [_time(change["a_ns"]), _time(change["b_ns"]), _percent(change["relative"]), interval]
    texts = [name, *cells, _words(verdict or "-")]
    return f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in texts)}</tr>"
