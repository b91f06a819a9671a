"""Runs a script on the fake vLLM under `colonel run --sim`, and gives what it told and what was recorded.

COLONEL_BIN names the program; the stand-ins of gpu-sim lie beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

ROOT = Path(__file__).resolve().parents[3]
# Until all records are on disk: of a window that is open, and of one that was closed a moment ago. At an end the guest
# waits for the last seal, but 3 s at most, which a loaded machine may exceed.
SEALED = "time.sleep(2.5)"
SEALED_CLOSED = "time.sleep(1.5)"
SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}

PRELUDE = """
import json, os, signal, threading, time
from vllm import LLM, SamplingParams, TokensPrompt

def tell(**values):
    print(json.dumps({"parent": os.getpid()} | values), flush=True)

def engine_processes(llm):
    return llm.llm_engine.engine_core.resources.engine_manager.processes

def generate(llm, prompts=1, max_tokens=8):
    tokens = [TokensPrompt(prompt_token_ids=[1, 2, 3, number]) for number in range(prompts)]
    return llm.generate(tokens, SamplingParams(max_tokens=max_tokens, ignore_eos=True), use_tqdm=False)

def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
"""


@dataclass
class Run:
    """What a script told and what colonel recorded."""

    told: dict[str, Any]
    summary: dict[str, Any]
    stderr: str

    @property
    def pids(self) -> set[int]:
        return {process["pid"] for process in self.summary["processes"]}

    @property
    def kernels(self) -> ds.Dataset:
        return ds.dataset(Path(self.summary["path"]) / "kernels", format="parquet")

    def count_by(self, column: str) -> Counter[Any]:
        return Counter(self.kernels.to_table(columns=[column])[column].to_pylist())


class Runner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, body: str, *options: str, env: dict[str, str] | None = None, code: int = 0) -> Run:
        """Runs the script `body` under `colonel run --sim`, by default with gate `process`."""
        script, summary = self.folder / "script.py", self.folder / "run.json"
        script.write_text(PRELUDE + textwrap.indent(textwrap.dedent(body), "    "))
        paths = [str(ROOT / "tests/python/fake_vllm"), str(self.folder)]
        program = os.environ.get("COLONEL_BIN", str(ROOT / "target/debug/colonel"))
        command = [program, "run", "--sim", "--sessions-dir", str(self.folder / "sessions"), "--json", str(summary)]
        command += options or ("--gate", "process")
        done = subprocess.run(
            [*command, "--", sys.executable, str(script)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLONEL_SIM_DEVICES": "2"} | (env or {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        lines = done.stdout.splitlines()
        told = json.loads(lines[-1]) if lines else {}
        return Run(told, json.loads(summary.read_text()), done.stderr)
