"""`colonel.open`: sessions found by name, tables chosen by window, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import colonel
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# Two workers; in the first, `inner` lies in `outer`, and the second window called `outer` is another one.
WINDOWS = {
    7: [("outer", 100, 500), ("inner", 200, 300), ("outer", 600, 700)],
    8: [("outer", 110, 510)],
}
# pid, window, start: not in order of time.
KERNELS = [(7, 3, 650), (7, 1, 120), (8, 1, 130), (7, 2, 220), (7, 1, 400)]


def make(folder: Path, session_id: str, created_ns: int = 1, **fields: Any) -> Path:
    path = folder / session_id
    (path / "processes").mkdir(parents=True)
    manifest = {"format": {"major": 1, "minor": 0}, "id": session_id, "created_ns": created_ns, **fields}
    (path / "session.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture
def session(tmp_path: Path) -> colonel.Session:
    path = make(tmp_path, "5e27fc0e")
    for pid, windows in WINDOWS.items():
        described = [
            {"number": number, "name": name, "trigger": "region", "start_ns": start, "end_ns": end}
            for number, (name, start, end) in enumerate(windows, 1)
        ]
        process = {"pid": pid, "start_ticks": 1, "state": "armed", "windows": described}
        (path / "processes" / f"{pid}-1.json").write_text(json.dumps(process))
        rows = [(window, start) for owner, window, start in KERNELS if owner == pid]
        table = pa.table(
            {
                "pid": pa.array([pid] * len(rows), pa.uint32()),
                "start_ns": pa.array([start for _, start in rows], pa.int64()),
                "window": pa.array([window for window, _ in rows], pa.uint32()),
            }
        )
        folder = path / "kernels" / f"{pid}-1"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "000001.parquet")
        # A segment that is just being written is no segment.
        (folder / ".000002.parquet").write_bytes(b"PAR1")
    (path / "processes" / ".9-1.json").write_text("{")
    return colonel.Session(path)


def starts(table: pa.Table) -> list[int]:
    return table["start_ns"].to_pylist()


def test_rows_come_by_time(session: colonel.Session) -> None:
    assert starts(session.kernels()) == [120, 130, 220, 400, 650]
    assert session.kernels(["window"]).column_names == ["window"]
    assert session.kernels(["window"])["window"].to_pylist() == [1, 1, 2, 1, 3]


def test_a_window_has_what_is_inside_it(session: colonel.Session) -> None:
    assert starts(session.kernels(window=1)) == [120, 130, 220, 400]
    assert starts(session.kernels(window=1, pid=7)) == [120, 220, 400]
    assert starts(session.kernels(window="outer")) == [120, 130, 220, 400, 650]
    assert starts(session.kernels(window="inner")) == [220]


def test_windows_come_by_time_of_opening(session: colonel.Session) -> None:
    assert [(window.pid, window.number) for window in session.windows] == [(7, 1), (8, 1), (7, 2), (7, 3)]


def test_what_is_not_there_is_told_with_what_is(session: colonel.Session) -> None:
    with pytest.raises(colonel.SessionReadError, match=r"no window `nope`; it has: 1 \(outer\)"):
        session.kernels(window="nope")
    with pytest.raises(
        colonel.SessionReadError, match="no table `memcpys`, or nothing was recorded in it yet; it has: kernels"
    ):
        session.table("memcpys")
    with pytest.raises(colonel.SessionReadError, match="no column `nam`; it has pid, start_ns, window"):
        session.kernels(["nam"])


def test_a_damaged_file_is_told(session: colonel.Session) -> None:
    (file,) = (session.path / "kernels" / "8-1").glob("0*.parquet")
    file.write_bytes(b"PAR1")
    with pytest.raises(colonel.SessionReadError, match="table `kernels` of session `5e27fc0e` can't be read"):
        session.kernels()


def test_sessions_are_found_by_id_prefix_latest_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make(tmp_path, "aa000001", created_ns=10), make(tmp_path, "ab000002", created_ns=20)
    (tmp_path / "rest").mkdir()
    monkeypatch.setenv("COLONEL_SESSIONS_DIR", str(tmp_path))
    assert colonel.open("latest").path == new
    assert colonel.open("aa").path == old
    assert colonel.open(old).id == "aa000001"
    with pytest.raises(colonel.SessionNotFoundError, match="may be aa000001, ab000002"):
        colonel.open("a")
    with pytest.raises(colonel.SessionNotFoundError, match="no session `c` in"):
        colonel.open("c")
    with pytest.raises(colonel.SessionNotFoundError, match="no session ``"):
        colonel.open("")


def test_no_session_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLONEL_SESSIONS_DIR", str(tmp_path / "none"))
    with pytest.raises(colonel.SessionNotFoundError, match=r"make one with `colonel run -- CMD`"):
        colonel.open("latest")


def test_a_newer_format_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "aa000001", format={"major": 2, "minor": 0})
    with pytest.raises(colonel.SessionReadError, match="has format 2, this colonel reads up to 1"):
        colonel.open(tmp_path / "aa000001")
    (tmp_path / "aa000001" / "session.json").write_text("{")
    with pytest.raises(colonel.SessionReadError, match="can't be read"):
        colonel.open(tmp_path / "aa000001")


def test_this_processs_own_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLONEL_SESSION", raising=False)
    with pytest.raises(colonel.NoSessionError, match="run it as `colonel run --flavor vllm"):
        colonel.open()
    monkeypatch.setenv("COLONEL_SESSION", str(make(tmp_path, "aa000001")))
    assert colonel.open().id == "aa000001"
    monkeypatch.setenv("COLONEL_SESSION", str(tmp_path / "gone"))
    with pytest.raises(colonel.NoSessionError, match="is gone"):
        colonel.open()
