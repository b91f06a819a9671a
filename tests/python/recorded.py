"""Scripts run under `colonel run --sim`, with the fake vLLM and colonel's package on their path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

ROOT = Path(__file__).resolve().parents[2]
FAKE_VLLM = ROOT / "tests" / "python" / "fake_vllm"


@dataclass(frozen=True)
class Run:
    """What a script printed and what colonel recorded."""

    code: int
    stdout: str
    stderr: str
    summary: dict[str, Any]

    @property
    def session(self) -> Path:
        return Path(self.summary["path"])

    @property
    def told(self) -> Any:
        """The line of JSON that the script printed last."""
        lines = self.stdout.splitlines()
        return json.loads(lines[-1]) if lines else {}

    @property
    def pids(self) -> set[int]:
        return {process["pid"] for process in self.summary["processes"]}

    @property
    def kernels(self) -> ds.Dataset:
        return ds.dataset(self.session / "kernels", format="parquet")

    def count_by(self, column: str) -> Counter[Any]:
        return Counter(self.kernels.to_table(columns=[column])[column].to_pylist())


def program() -> str:
    """`colonel`, as COLONEL_BIN names it, else as cargo built it."""
    path = Path(os.environ.get("COLONEL_BIN", ROOT / "target" / "debug" / "colonel")).resolve()
    assert path.is_file(), f"{path} is missing: `cargo build --workspace` makes it"
    return str(path)


def environment(*paths: Path, **changes: str | None) -> dict[str, str]:
    """This one, without an outer colonel's session; `paths` are put behind the fake vLLM and the package."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("COLONEL_", "VLLM_"))}
    variables["PYTHONPATH"] = os.pathsep.join(map(str, [ROOT / "python", FAKE_VLLM, *paths]))
    variables["COLONEL_SIM_DEVICES"] = "2"
    for name, value in changes.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    return variables


def plugin_in(folder: Path) -> Path:
    """A folder for PYTHONPATH that says, as an installed wheel does, that colonel has a plugin for vLLM."""
    installed = folder / "installed"
    package = installed / "colonel-0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: colonel\nVersion: 0\n")
    (package / "entry_points.txt").write_text(
        "[vllm.general_plugins]\ncolonel = colonel.profiling.vllm.plugin:register\n"
    )
    return installed


def record(folder: Path, script: str, *options: str, variables: dict[str, str]) -> Run:
    """Runs a script in `folder`, with options of `colonel run`."""
    file, summary = folder / "script.py", folder / "run.json"
    file.write_text(script)
    command = [program(), "run", "--sim", "--sessions-dir", str(folder / "sessions"), "--json", str(summary)]
    done = subprocess.run(
        [*command, *options, "--", sys.executable, str(file)],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Run(done.returncode, done.stdout, done.stderr, json.loads(summary.read_text()))
