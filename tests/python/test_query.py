"""`colonel query` in a real DuckDB: what it answers is what pyarrow reads from the same files."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from recorded import program
from test_session import ENDS, cargo_run

COUNT = "SELECT session, count(*) AS n, sum(end_ns - start_ns) AS ns FROM kernels GROUP BY ALL ORDER BY session"


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was compacted, one that was not, one that was cut off."""
    folder = tmp_path_factory.mktemp("sessions")
    for end in ENDS:
        cargo_run("--example", "synthetic_session", "--", str(folder), "3000", end)
    return folder


def query(sessions: Path, *args: str) -> subprocess.CompletedProcess[str]:
    # This python has DuckDB.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "COLONEL_SESSIONS_DIR": str(sessions)}
    return subprocess.run([program(), "query", *args], env=variables, text=True, capture_output=True, check=False)


def ids(sessions: Path) -> list[str]:
    return sorted(path.name for path in sessions.iterdir())


def expected(sessions: Path) -> list[dict]:
    rows = []
    for session in ids(sessions):
        kernels = ds.dataset(sessions / session / "kernels", format="parquet").to_table()
        ends, starts = kernels["end_ns"].to_pylist(), kernels["start_ns"].to_pylist()
        rows.append({"session": session, "n": len(kernels), "ns": sum(ends) - sum(starts)})
    return rows


def test_several_sessions_in_every_format(sessions: Path, tmp_path: Path) -> None:
    assert len(ids(sessions)) == len(ENDS)
    wanted = expected(sessions)
    assert json.loads(query(sessions, *ids(sessions), COUNT, "--format", "json").stdout) == wanted
    as_texts = [{name: str(value) for name, value in row.items()} for row in wanted]
    printed = query(sessions, *ids(sessions), COUNT, "--format", "csv").stdout
    assert list(csv.DictReader(io.StringIO(printed))) == as_texts
    table = query(sessions, *ids(sessions), COUNT).stdout.splitlines()
    assert [line.split() for line in table] == [list(wanted[0]), *(list(row.values()) for row in as_texts)]
    file = tmp_path / "answer.parquet"
    done = query(sessions, *ids(sessions), COUNT.replace("sum(", "max("), "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert pq.read_table(file)["n"].to_pylist() == [row["n"] for row in wanted]


def test_every_table_can_be_asked(sessions: Path) -> None:
    tables = json.loads(subprocess.run([program(), "tables", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    for table in tables:
        columns = ", ".join(f'"{column["name"]}"' for column in table["columns"])
        done = query(sessions, *ids(sessions), f"SELECT session, {columns} FROM {table['name']}", "--format", "csv")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].split(",")[0] == "session"


def test_losses_include_what_was_found_missing(sessions: Path) -> None:
    asked = "SELECT session, sum(count)::BIGINT AS lost FROM losses GROUP BY ALL HAVING lost > 0"
    lost = json.loads(query(sessions, *ids(sessions), asked, "--format", "json").stdout)
    manifests = {session: json.loads((sessions / session / "session.json").read_text()) for session in ids(sessions)}
    told = {session: sum(loss["count"] or 0 for loss in manifest["losses"]) for session, manifest in manifests.items()}
    assert {row["session"]: row["lost"] for row in lost} == {name: count for name, count in told.items() if count}


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT nme FROM kernels", 'Candidate bindings: "name"'),
        ("SELECT nme FROM kernels", "LINE 1: SELECT nme FROM kernels\n               ^"),
        ("SELECT * FROM kernel", 'Did you mean "kernels"'),
        ("SELEC 1 FROM kernels", "LINE 1: SELEC 1"),
    ],
)
def test_an_error_points_at_its_place(sessions: Path, sql: str, told: str) -> None:
    done = query(sessions, sql)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_statements_without_rows(sessions: Path) -> None:
    assert "no rows" in query(sessions, "SELECT * FROM kernels WHERE false").stderr
    assert query(sessions, "DESCRIBE kernels").stdout.splitlines()[1].split()[:2] == ["session", "VARCHAR"]
    assert query(sessions, "CREATE TABLE x AS SELECT 1").returncode == 0


def test_a_reader_that_had_enough_is_no_failure(sessions: Path) -> None:
    command = f"'{program()}' query 'SELECT * FROM kernels' --format csv | head -1"
    variables = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLONEL_SESSIONS_DIR": str(sessions),
    }
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=variables, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("session,pid")
    assert "Error" not in done.stderr


def test_a_session_that_was_not_compacted_has_all_columns(tmp_path: Path) -> None:
    said = "SELECT layer, layer_source, count(*) AS n FROM Kernels WHERE layer IS NOT NULL GROUP BY ALL ORDER BY ALL"
    answers = {}
    for end in ("compacted", "sealed"):
        folder = tmp_path / end
        cargo_run("--example", "synthetic_model", "--", str(folder), "3000", "full", end, "ranges")
        answers[end] = json.loads(query(folder, said, "--format", "json").stdout)
    assert answers["sealed"] == answers["compacted"]
    assert answers["sealed"]
