"""What a timeline draws: lanes of a session, and what runs in them merged into as many boxes as a picture can show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from colonel.sessions import Session

CELLS = 2_000
"""A lane has at most this many boxes: what starts in the same of these parts of the time is one."""


@dataclass(frozen=True)
class Boxes:
    """What is drawn in a lane."""

    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    names: npt.NDArray[np.object_]
    """Of each, what has most time in it."""


@dataclass(frozen=True)
class Lane:
    """A row of a timeline, with what ran in it by start."""

    label: str
    is_ranges: bool
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    names: npt.NDArray[np.object_]

    def cut(self, start_ns: int, end_ns: int) -> Lane:
        """What runs between these times, or happens at one of them."""
        seen = ((self.end_ns > start_ns) | (self.start_ns >= start_ns)) & (self.start_ns < end_ns)
        return Lane(self.label, self.is_ranges, self.start_ns[seen], self.end_ns[seen], self.names[seen])

    def times(self) -> dict[str, int]:
        """Nanoseconds of each name."""
        names, which = np.unique(self.names, return_inverse=True)
        sums = np.zeros(len(names), dtype=np.int64)
        np.add.at(sums, which, self.end_ns - self.start_ns)
        return dict(zip(names.tolist(), sums.tolist(), strict=True))

    def boxes(self, start_ns: int, end_ns: int) -> Boxes:
        """What is drawn of it between these times."""
        cells = (self.start_ns - start_ns) * CELLS // max(end_ns - start_ns, 1)
        # Where a box begins: the first that starts in its cell.
        firsts = np.flatnonzero(np.diff(cells, prepend=cells[:1] - 1))
        if not len(firsts):
            return Boxes(self.start_ns, self.end_ns, self.names)
        box = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(cells)))
        names, name = np.unique(self.names, return_inverse=True)
        # Time of each name in each box, then the longest of a box last.
        pairs, which = np.unique(box * len(names) + name, return_inverse=True)
        sums = np.bincount(which, weights=self.end_ns - self.start_ns)
        order = np.lexsort((sums, pairs // len(names)))
        lasts = np.searchsorted((pairs // len(names))[order], np.arange(len(firsts)), side="right") - 1
        return Boxes(
            np.minimum.reduceat(self.start_ns, firsts),
            np.maximum.reduceat(self.end_ns, firsts),
            names[pairs[order][lasts] % len(names)],
        )


def lanes(session: Session, window: int | str | None, pid: int | None) -> Iterator[Lane]:
    """Ranges first, then the streams, then the copies."""
    sources = [
        ("nvtx_ranges", ["pid", "thread_id", "depth"], "name", "ranges {2}, thread {1}"),
        ("kernels", ["pid", "device_id", "stream_id"], "name", "GPU {1}, stream {2}"),
        ("memcpys", ["pid", "device_id"], "copy_kind", "GPU {1}, copies"),
    ]
    there = session.tables
    for table, keys, name, label in sources:
        if table in there:
            rows = session.table(table, [*keys, name, "start_ns", "end_ns"], window=window, pid=pid)
            yield from _split(rows, keys, name, label, table == "nvtx_ranges")


def _split(rows: pa.Table, by: list[str], name: str, label: str, is_ranges: bool) -> Iterator[Lane]:
    """A lane for each value of the columns `by`. What has no end, as a range left open, is left out."""
    rows = rows.filter(pc.is_valid(rows["end_ns"]))
    keys = np.column_stack([rows[column].to_numpy() for column in by])
    starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
    names = rows[name].cast(pa.string()).to_numpy()
    several = len(np.unique(keys[:, 0])) > 1
    for key in np.unique(keys, axis=0):
        of_lane = (keys == key).all(axis=1)
        whose = f", pid {key[0]}" if several else ""
        yield Lane(label.format(*key) + whose, is_ranges, starts[of_lane], ends[of_lane], names[of_lane])
