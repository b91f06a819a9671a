"""Sessions on disk: found by id, and their tables as Arrow.

A session's folder is a plain Parquet dataset, so polars, pandas and DuckDB read it without this module; what it adds
is finding sessions, and choosing rows by window.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from colonel import notebook
from colonel.errors import ColonelError, NoSessionError, SessionNotFoundError, SessionReadError
from colonel.folders import Folder, LocalFolder, RemoteFolder, is_url
from colonel.speed_of_light import SpeedOfLight, speed_of_light
from colonel.summary import Summary, summarize

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.dataset as ds

    from colonel.plots import Plots

FORMAT_MAJOR = 1
SESSION_FILE = "session.json"
LATEST = "latest"
SHOWN = 10
"""Windows that a notebook lists."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class Window:
    """A stretch of time in which a process's records counted."""

    pid: int
    number: int
    """Counts from 1 in each process, in the order of opening."""
    name: str | None
    trigger: str
    """`process`, `profiler`, `manual` or `region`."""
    start_ns: int
    """Opened, Unix ns."""
    end_ns: int | None
    """Closed, Unix ns; None while it is open, and where the process died in it."""

    def holds(self, other: Window) -> bool:
        """True if `other` is this window or lies inside it."""
        if self.pid != other.pid or other.start_ns < self.start_ns:
            return False
        return self.end_ns is None or (other.end_ns is not None and other.end_ns <= self.end_ns)


class Session:
    """A session's folder, of this machine or another, whole or cut off."""

    def __init__(self, path: str | os.PathLike[str], filesystem: Any = None) -> None:
        """Opens the session in the folder `path`, which may be a URL of object storage, such as `s3://…`.

        Args:
            path: The folder.
            filesystem: One of pyarrow's, for a URL: where its endpoint or credentials are neither in the URL nor in the
                environment.

        Raises:
            SessionNotFoundError: it is no session's folder.
            SessionReadError: it can't be read, or is of a newer format.
        """
        self._folder = _folder(os.fspath(path), filesystem)
        self.id = self._folder.name
        major = self.manifest.get("format", {}).get("major", 0)
        if major > FORMAT_MAJOR:
            raise SessionReadError(
                f"session `{self.id}` has format {major}, this colonel reads up to {FORMAT_MAJOR}: take a newer one"
            )

    def __repr__(self) -> str:
        return f"colonel.Session({str(self._folder)!r})"

    def _repr_html_(self) -> str:
        manifest = self.manifest
        gpus = self.table("devices", ["name"])["name"].to_pylist() if "devices" in self.tables else []
        said = {
            "command": " ".join(manifest.get("command", [])),
            "name": manifest.get("name") or "",
            "software": ", ".join(f"{name} {version}" for name, version in manifest.get("software", {}).items()),
            "GPUs": ", ".join(dict.fromkeys(gpus)),
            "profiler": f"{manifest.get('evaluator')}, gate {manifest.get('gate')}",
            "state": manifest.get("state", ""),
            "windows": ", ".join(f"{w.number}{f' ({w.name})' if w.name else ''}" for w in self.windows[:SHOWN]),
            "rows": ", ".join(f"{rows:,} {table}" for table, rows in manifest.get("rows", {}).items()),
            "lost": ", ".join(f"{loss['count'] or 'some'} {loss['kind']}" for loss in manifest.get("losses", [])),
        }
        told = [problem["message"] for problem in manifest.get("problems", [])]
        rows = [[name, text] for name, text in said.items() if text]
        return notebook.table(["session", self.id], rows) + "".join(map(notebook.paragraph, told))

    @property
    def path(self) -> Path:
        """The folder, of a session on this machine."""
        if not isinstance(self._folder, LocalFolder):
            raise SessionReadError(f"session `{self.id}` is not on this machine but in `{self._folder}`")
        return self._folder.path

    @property
    def manifest(self) -> dict[str, Any]:
        """`session.json` as it is now; docs/schema.md lists its fields."""
        try:
            manifest: dict[str, Any] = json.loads(self._folder.read(SESSION_FILE))
        except FileNotFoundError:
            raise SessionNotFoundError(f"`{self._folder}` is no session: it has no {SESSION_FILE}") from None
        except (OSError, ValueError) as error:
            raise SessionReadError(f"`{self._folder}/{SESSION_FILE}` can't be read: {error}") from error
        return manifest

    @property
    def processes(self) -> list[dict[str, Any]]:
        """The captured processes as their guests describe them now."""
        described = []
        for name in self._files("processes", ".json"):
            # One may be just being replaced.
            with contextlib.suppress(OSError, ValueError):
                described.append(json.loads(self._folder.read(name)))
        return described

    @property
    def windows(self) -> list[Window]:
        """Every window of every process, by time of opening."""
        windows = [
            Window(
                pid=process["pid"],
                number=window["number"],
                name=window.get("name"),
                trigger=window["trigger"],
                start_ns=window["start_ns"],
                end_ns=window.get("end_ns"),
            )
            for process in self.processes
            for window in process.get("windows", [])
        ]
        return sorted(windows, key=lambda window: (window.start_ns, window.pid, window.number))

    @property
    def tables(self) -> list[str]:
        """Tables that have rows."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self._files("", ".parquet")))

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        *,
        window: int | str | None = None,
        pid: int | None = None,
    ) -> pa.Table:
        """A table of docs/schema.md, sorted by `start_ns` where it has one.

        Args:
            name: The table, such as `kernels`.
            columns: Columns to read; all by default.
            window: Number or name of a window: only rows of it, of all windows of that name, and of the windows
                inside. Only tables with a column `window` have it.
            pid: Only rows of this process.

        Raises:
            SessionReadError: there is no such table, column or window.
        """
        dataset = self._dataset(name)
        missing = [column for column in columns or () if column not in dataset.schema.names]
        if missing:
            raise SessionReadError(f"`{name}` has no column `{missing[0]}`; it has {', '.join(dataset.schema.names)}")
        # Sorted in memory: the key need not be asked for.
        sorted_by = "start_ns" if "start_ns" in dataset.schema.names else None
        wanted = None if columns is None else list(dict.fromkeys([*columns, *([sorted_by] if sorted_by else [])]))
        rows = self._read(name, lambda: dataset.to_table(columns=wanted, filter=self._filter(dataset, window, pid)))
        if sorted_by is not None:
            rows = rows.sort_by(sorted_by)
        return rows if columns is None else rows.select(list(columns))

    def kernels(
        self, columns: Sequence[str] | None = None, *, window: int | str | None = None, pid: int | None = None
    ) -> pa.Table:
        """The table `kernels`, see `table`."""
        return self.table("kernels", columns, window=window, pid=pid)

    def lazy(self, name: str) -> pl.LazyFrame:
        """A table as polars reads it: nothing is read before `collect`, and then only what is needed.

        Raises:
            SessionReadError: there is no such table.
        """
        return self._folder.scan(self._segments(name))

    def pandas(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        *,
        window: int | str | None = None,
        pid: int | None = None,
    ) -> pd.DataFrame:
        """A table as pandas has it, text as categories; else as `table`."""
        frame: pd.DataFrame = self.table(name, columns, window=window, pid=pid).to_pandas()
        return frame

    def summary(self, by: str = "kernel", *, window: int | str | None = None) -> Summary:
        """Where the time went, with the figures of `colonel show`.

        Args:
            by: Rows: `kernel`, `layer`, `step`, `phase` or `nvtx`.
            window: Only this window, by number or name, with the windows inside.

        Raises:
            ColonelError: the session is not on this machine, the program is missing, or says why it can't.
        """
        return summarize(self.path, by, window)

    def speed_of_light(self, *, window: int | str | None = None) -> SpeedOfLight:
        """What part of the GPU's peaks each kernel reaches, with the figures of `colonel show --counters`.

        Args:
            window: Only this window, by number or name, with the windows inside.

        Raises:
            ColonelError: the session is not on this machine, the program is missing, or says why it can't.
        """
        return speed_of_light(self.path, window)

    @property
    def plot(self) -> Plots:
        """Pictures: `plot.kernels()`, `plot.timeline()` and `plot.roofline()`."""
        try:
            from colonel.plots import Plots
        except ImportError as error:
            raise ColonelError(f"pictures need matplotlib, `pip install matplotlib`: {error}") from None
        return Plots(self)

    def _segments(self, table: str) -> list[str]:
        """Files of a table."""
        files = self._files(table, ".parquet")
        if not files:
            there = ", ".join(self.tables) or "none"
            raise SessionReadError(
                f"session `{self.id}` has no table `{table}`, or nothing was recorded in it yet; it has: {there}"
            )
        return files

    def _dataset(self, table: str) -> ds.Dataset:
        files = self._segments(table)
        return self._read(table, lambda: self._folder.dataset(files))

    def _files(self, below: str, ending: str) -> list[str]:
        """Names with a dot in front are unfinished."""
        names = self._folder.files(below)
        return [name for name in names if name.endswith(ending) and "." not in (part[0] for part in name.split("/"))]

    def _read(self, table: str, read: Callable[[], Read]) -> Read:
        """What can't be read is ours to explain."""
        import pyarrow as pa

        try:
            return read()
        except (pa.ArrowException, OSError) as error:
            raise SessionReadError(
                f"table `{table}` of session `{self.id}` can't be read: {error} (is a file damaged, or was the session "
                "just being compacted? then open it again)"
            ) from error

    def _filter(self, dataset: ds.Dataset, window: int | str | None, pid: int | None) -> ds.Expression | None:
        import pyarrow.dataset as ds

        chosen = None if pid is None else ds.field("pid") == pid
        if window is None:
            return chosen
        if "window" not in dataset.schema.names:
            raise SessionReadError(
                f"the rows of this table belong to no window; it has {', '.join(dataset.schema.names)}"
            )
        numbers: dict[int, list[int]] = {}
        for inner in self._windows_in(window, pid):
            numbers.setdefault(inner.pid, []).append(inner.number)
        of_windows = None
        for owner, of_process in numbers.items():
            rows = (ds.field("pid") == owner) & ds.field("window").isin(of_process)
            of_windows = rows if of_windows is None else of_windows | rows
        return of_windows

    def _windows_in(self, which: int | str, pid: int | None) -> list[Window]:
        windows = [window for window in self.windows if pid is None or window.pid == pid]
        outer = [window for window in windows if which in (window.number, window.name)]
        if not outer:
            there = ", ".join(f"{w.number} ({w.name})" if w.name else str(w.number) for w in windows) or "none"
            raise SessionReadError(f"session `{self.id}` has no window `{which}`; it has: {there}")
        return [window for window in windows if any(named.holds(window) for named in outer)]


def open(session: str | os.PathLike[str] | None = None, filesystem: Any = None) -> Session:
    """Opens a session.

    Args:
        session: An id or a unique prefix of one, `latest`, a session's folder, or the URL of one in object storage
            (`s3://bucket/sessions/5e27fc0e`); by default the session that this process is recorded in.
        filesystem: For a URL, see `Session`.

    Raises:
        NoSessionError: no session is given and this process is in none.
        SessionNotFoundError: there is none of that name, or several.
        SessionReadError: it can't be read.
    """
    if session is None:
        return own_session()
    place = os.fspath(session)
    if is_url(place) or (Path(place) / SESSION_FILE).is_file():
        return Session(place, filesystem)
    return Session(_find(sessions_dir(), place))


def _folder(place: str, filesystem: Any) -> Folder:
    if not is_url(place):
        return LocalFolder(Path(place))
    import pyarrow as pa

    try:
        return RemoteFolder(place, filesystem)
    except (pa.ArrowException, OSError) as error:
        raise SessionReadError(f"`{place}` can't be opened: {error}") from error


def own_session() -> Session:
    """The session that this process is recorded in."""
    folder = os.environ.get("COLONEL_SESSION")
    if not folder:
        raise NoSessionError(
            "this process is in no session: run it as `colonel run --flavor vllm -- python SCRIPT`, "
            "or set COLONEL_DISABLE_PROFILE_REGION=1 to run it unprofiled"
        )
    if not (Path(folder) / SESSION_FILE).is_file():
        raise NoSessionError(f"the session of this process, `{folder}`, is gone: run it under `colonel run` again")
    return Session(folder)


def sessions_dir() -> Path:
    """The folder of the sessions: `COLONEL_SESSIONS_DIR`, else `.colonel/sessions`."""
    return Path(os.environ.get("COLONEL_SESSIONS_DIR") or ".colonel/sessions")


def _find(folder: Path, which: str) -> Path:
    ids = [path.name for path in sorted(folder.glob("*")) if path.name[0] != "." and (path / SESSION_FILE).is_file()]
    if which == LATEST:
        if ids:
            return folder / max(ids, key=lambda name: Session(folder / name).manifest.get("created_ns", 0))
        raise SessionNotFoundError(f"there is no session in `{folder}`; make one with `colonel run -- CMD`")
    found = [name for name in ids if name == which] or [name for name in ids if which and name.startswith(which)]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise SessionNotFoundError(f"`{which}` may be {', '.join(found)}: give more digits")
    there = f"it has {', '.join(ids[-10:])}" if ids else "it has none"
    raise SessionNotFoundError(f"there is no session `{which}` in `{folder}`; {there}")
