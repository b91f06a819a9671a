"""docs/reading_a_session.ipynb runs, and what it prints is what stands in it. COLONEL_BLESS=1 writes what it prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from recorded import ROOT, program

NOTEBOOK = ROOT / "docs" / "reading_a_session.ipynb"


def texts(notebook: Any) -> list[tuple[str, list[dict[str, str]]]]:
    """What each cell gave, without pictures: those differ by fonts."""
    given = []
    for cell in notebook.cells:
        outputs = [dict(output.get("data", {"text/plain": output.get("text")})) for output in cell.get("outputs", [])]
        told = [{kind: text for kind, text in output.items() if kind != "image/png"} for output in outputs]
        given.append((cell.source, told))
    return given


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_the_notebook_says_what_it_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "colonel").symlink_to(program())
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "python"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    written = nbformat.read(NOTEBOOK, as_version=4)
    run = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(run, timeout=120, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    assert pictures(run) == 3
    if os.environ.get("COLONEL_BLESS"):
        for cell in run.cells:
            cell.metadata.pop("execution", None)
        nbformat.write(run, NOTEBOOK)
        return
    assert texts(run) == texts(written)
