"""What the tests share: the program, the fake vLLM, and scripts run under `colonel run --sim`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE_VLLM = ROOT / "tests" / "python" / "fake_vllm"


@dataclass(frozen=True)
class Run:
    """A script that ran under colonel."""

    code: int
    stdout: str
    stderr: str
    summary: dict[str, Any]

    @property
    def session(self) -> Path:
        return Path(self.summary["path"])

    def last_json(self) -> Any:
        """What the script printed last."""
        return json.loads(self.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def program() -> str:
    """`colonel`, as COLONEL_BIN names it, else as cargo built it."""
    path = Path(os.environ.get("COLONEL_BIN", ROOT / "target" / "debug" / "colonel")).resolve()
    assert path.is_file(), f"{path} is missing: `cargo build --workspace` makes it"
    return str(path)


def environment(**changes: str | None) -> dict[str, str]:
    """This one, with the fake vLLM and colonel's package in front, and no session of an outer colonel."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("COLONEL_", "VLLM_"))}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT / "python"), str(FAKE_VLLM)])
    variables["COLONEL_SIM_DEVICES"] = "2"
    for name, value in changes.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    return variables


@pytest.fixture
def colonel_run(program: str, tmp_path: Path) -> Callable[..., Run]:
    """Runs Python text under `colonel run --sim`; keywords are variables of its environment."""

    def run(script: str, *options: str, check: bool = True, **variables: str | None) -> Run:
        file, summary = tmp_path / "script.py", tmp_path / "run.json"
        file.write_text(script)
        command = [program, "run", "--sim", "--sessions-dir", str(tmp_path / "sessions"), "--json", str(summary)]
        done = subprocess.run(
            [*command, *options, "--", sys.executable, str(file)],
            env=environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stderr
        return Run(done.returncode, done.stdout, done.stderr, json.loads(summary.read_text()))

    return run
