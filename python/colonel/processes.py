"""The captured processes of a session, as their guests describe them in `processes/*.json`, and their family."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Captured:
    """A process with colonel's guest in it."""

    pid: int
    start_ticks: int
    """Start time in clock ticks since boot, so that a reused pid is told apart."""
    state: str
    """`armed`, `capturing`, `off` or `ended`."""
    control: str | None
    """Path of its control socket."""
    problems: list[str]

    def is_alive(self) -> bool:
        """True while this very process runs."""
        stat = _stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and stat.state not in "ZX"


def captured(session: Path) -> list[Captured]:
    """Every process that a guest has described so far, in the order of their pids."""
    return sorted(map(_captured, process_files(session)), key=lambda process: process.pid)


def process_files(session: Path) -> Iterator[dict[str, Any]]:
    """The processes' files as they are; one that is just being replaced is skipped."""
    for path in sorted((session / "processes").glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            process: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        yield process


def _captured(process: dict[str, Any]) -> Captured:
    return Captured(
        pid=process["pid"],
        start_ticks=process["start_ticks"],
        state="ended" if process.get("ended_ns") is not None else process["state"],
        control=process.get("control"),
        problems=[problem["message"] for problem in process.get("problems", [])],
    )


def is_descendant(pid: int, ancestors: set[int]) -> bool:
    """True if the process is one of `ancestors` or was started by one, however indirectly."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        if pid in ancestors:
            return True
        seen.add(pid)
        stat = _stat(pid)
        if stat is None:
            return False
        pid = stat.ppid
    return False


@dataclass(frozen=True)
class _Stat:
    state: str
    ppid: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything, spaces and parentheses too.
    fields = os.fsdecode(text.rpartition(b")")[2]).split()
    return _Stat(state=fields[0], ppid=int(fields[1]), start_ticks=int(fields[19]))
