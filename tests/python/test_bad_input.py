"""A session without rows, and one without the table asked for: each reader says so, and how to go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import ROOT, program

GRAPHS = ROOT / "demos" / "sessions" / "bcf20ce5"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """As a run leaves it whose processes never used CUDA."""
    manifest = json.loads((GRAPHS / "session.json").read_text())
    manifest.update(id="0000aaaa", rows={}, processes=[])
    folder = tmp_path / "0000aaaa"
    folder.mkdir()
    (folder / "session.json").write_text(json.dumps(manifest))
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # This python has DuckDB.
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run([program(), *words], cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["show"], 0, "no kernels: no process of this command initialised CUDA"),
        (["show", "--by", "layer"], 0, "no kernels: no process of this command initialised CUDA"),
        (["analyze"], 0, "rules looked at 0 kernels"),
        (["report", "-o", "page.html"], 0, "the session has no kernels: the report says why"),
        (["compare", str(GRAPHS)], 0, "can't tell"),
        (["compare", str(GRAPHS), "--fail-on-regression", "3%"], 3, "can't tell"),
        (["export", "--format", "csv"], 1, "has no rows to export; `colonel show 0000aaaa` says why"),
        (["query", "SELECT count(*) FROM kernels"], 0, "0"),
    ],
)
def test_an_empty_session(empty: Path, words: list[str], code: int, told: str) -> None:
    done = run(empty.parent, words[0], str(empty), *words[1:])
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["query", "SELECT count(*) FROM kernel_counters"], 0, "0"),
        (["show", "--counters"], 0, "no samples of hardware counters: `colonel run --counters` takes them"),
        (["query", "SELECT metrc FROM counters"], 1, 'Candidate bindings: "metric"'),
    ],
)
def test_a_table_that_was_not_recorded(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    done = run(tmp_path, words[0], str(GRAPHS), *words[1:])
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr
