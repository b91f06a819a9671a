"""What capture.py and overhead.py share: running commands, opening sessions, gathering results."""

import contextlib
import ctypes
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent


@dataclass
class Ran:
    """A command that ended, or was ended."""

    command: list[str]
    code: int | str
    out: str
    err: str
    seconds: float

    @property
    def line(self) -> dict:
        """The last line of stdout that is a JSON object: what the workload says of itself."""
        for text in reversed(self.out.splitlines()):
            if text.startswith("{"):
                with contextlib.suppress(ValueError):
                    return json.loads(text)
        return {}

    def figures(self) -> dict:
        failed = self.code != 0 or not self.line
        return {
            "command": shlex.join(self.command),
            "code": self.code,
            "seconds": round(self.seconds, 2),
            "colonel_says": [line for line in self.err.splitlines() if line.startswith(("colonel", " " * 9))][-12:],
            **({"stderr": self.err[-1500:], "stdout": self.out[-500:]} if failed else {}),
        }


def text_of(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def merged(environment: dict[str, str | None]) -> dict[str, str]:
    """Ours with changes; None takes a variable away."""
    return {name: value for name, value in (os.environ | environment).items() if value is not None}


def run(command: list[str], timeout: float, **environment: str | None) -> Ran:
    """Runs a command in a process group of its own, which is killed when the time is up."""
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=merged(environment),
    )
    code: int | str
    try:
        out, err = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        code = "timeout"
    return Ran(command, code, text_of(out), text_of(err), time.monotonic() - begin)


class Served:
    """A loop process that takes one phase at a time."""

    def __init__(self, command: list[str], environment: dict[str, str | None], log: Path) -> None:
        self.command = command
        self.log = log
        self.buffered = b""
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=merged(environment),
                bufsize=0,
            )

    def read(self, timeout: float) -> dict:
        """The next line that is a JSON object."""
        deadline = time.monotonic() + timeout
        while True:
            line, newline, rest = self.buffered.partition(b"\n")
            if newline:
                self.buffered = rest
                if line.startswith(b"{"):
                    return json.loads(line)
                continue
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                why = "ended" if ready else f"no answer in {timeout:.0f} s"
                raise RuntimeError(f"`{shlex.join(self.command)[-200:]}` {why}: {self.errors()}")
            self.buffered += chunk

    def ask(self, phase: str) -> dict:
        self.process.stdin.write(f"{phase}\n".encode())
        return self.read(30)

    def finish(self) -> tuple[dict, int | str]:
        """Its last line and its exit code."""
        if self.process.returncode is not None:
            return {}, self.process.returncode
        try:
            self.process.stdin.close()
            last = self.read(40)
            return last, self.process.wait(timeout=40)
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as problem:
            self.process.kill()
            self.process.wait()
            return {"problem": str(problem)[:300]}, "killed"

    def errors(self) -> str:
        return self.log.read_text(errors="replace")[-600:]


class Session:
    """A session on disk, read with pyarrow alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def manifest(self) -> dict:
        return json.loads((self.folder / "session.json").read_text())

    @property
    def processes(self) -> list[dict]:
        sealed = self.manifest.get("processes") or []
        return sealed or [json.loads(path.read_text()) for path in sorted(self.folder.glob("processes/*.json"))]

    def files(self, table: str) -> list[Path]:
        return [path for path in sorted(self.folder.glob(f"{table}/**/*.parquet")) if not path.name.startswith(".")]

    def count(self, table: str) -> int:
        return sum(pq.ParquetFile(path).metadata.num_rows for path in self.files(table))

    def bytes(self, table: str) -> int:
        return sum(path.stat().st_size for path in self.files(table))

    def table(self, name: str, columns: list[str] | None = None):
        """All rows as a pandas frame; dictionaries as plain strings, so that files join."""
        parts = []
        for path in self.files(name):
            part = pq.ParquetFile(path).read(columns=columns)
            for index, field in enumerate(part.schema):
                if pa.types.is_dictionary(field.type):
                    part = part.set_column(index, field.name, part.column(index).cast(field.type.value_type))
            parts.append(part)
        if not parts:
            import pandas

            return pandas.DataFrame(columns=columns or [])
        return pa.concat_tables(parts, promote_options="permissive").to_pandas()

    def per_window(self, table: str) -> dict[int, int]:
        frame = self.table(table, ["window"])
        return {int(k): int(v) for k, v in frame["window"].value_counts().sort_index().items()} if len(frame) else {}

    def figures(self) -> dict:
        processes = self.processes
        return {
            "session": self.folder.name,
            "state": self.manifest.get("state"),
            "rows": {name: self.count(name) for name in ROWS_OF if self.files(name)},
            "kernel_bytes_per_row": round(self.bytes("kernels") / max(1, self.count("kernels")), 2),
            "cupti": [p.get("cupti") for p in processes],
            "gate_by": [p.get("gate_by") for p in processes],
            "windows": [len(p.get("windows") or []) for p in processes],
            "outside_windows": [p.get("outside_windows") for p in processes],
            "losses": self.manifest.get("losses"),
            "problems": [
                {"code": problem.get("code"), "message": problem.get("message")}
                for holder in (self.manifest, *processes)
                for problem in holder.get("problems") or []
            ],
        }


ROWS_OF = (
    "kernels",
    "memcpys",
    "memsets",
    "synchronizations",
    "api_calls",
    "overheads",
    "nvtx_ranges",
    "graph_ranges",
    "windows",
    "devices",
    "contexts",
    "streams",
    "losses",
)


class Colonel:
    """`colonel run`, each time with a sessions folder of its own."""

    def __init__(self, root: Path, scratch: Path, libcupti: str | None) -> None:
        places = [root / "carry" / "bin", root / "target" / "release", root / "target" / "debug"]
        self.bin = next((place for place in places if (place / "colonel").exists()), places[0])
        self.scratch = scratch
        self.libcupti = libcupti
        self.runs = 0

    @property
    def demo(self) -> str:
        return str(self.bin / "demo-cuda")

    def command(self, sessions: Path, options: list[str], command: list[str]) -> list[str]:
        return [str(self.bin / "colonel"), "run", "--sessions-dir", str(sessions), *options, "--", *command]

    def sessions_dir(self) -> Path:
        self.runs += 1
        sessions = self.scratch / f"sessions_{self.runs}"
        sessions.mkdir()
        return sessions

    def environment(self) -> dict[str, str]:
        return {"COLONEL_CUPTI": self.libcupti} if self.libcupti else {}

    def run(self, options: list[str], command: list[str], timeout: float = 90, **environment: str | None):
        """The command under colonel: what ran, and its session (None where none was made)."""
        sessions = self.sessions_dir()
        ran = run(self.command(sessions, options, command), timeout, **(self.environment() | environment))
        return ran, session_in(sessions)


def session_in(sessions: Path) -> Session | None:
    folders = [path for path in sessions.iterdir() if (path / "session.json").exists()]
    return Session(folders[0]) if folders else None


def demangle(name: str) -> str:
    """As libstdc++ writes it, which is how torch.profiler does."""
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    text = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    return ctypes.string_at(text).decode() if status.value == 0 and text else name


def compact(text: str) -> str:
    """Lists of numbers on one line each."""
    return re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)


class Results:
    """One JSON file, written again after each step, so that a step that breaks takes nothing with it."""

    def __init__(self, path: Path, environment: dict, budget: float, root: Path) -> None:
        self.path = path
        # Where the checkout and Python lie is nobody's business.
        self.shorter = [(sys.executable, "python3"), (str(root.resolve()) + "/", ""), (str(root) + "/", "")]
        self.begin = time.monotonic()
        self.budget = budget
        self.content: dict = {"environment": environment, "command": shlex.join(sys.argv), "results": {}}

    def left(self) -> float:
        return self.budget - (time.monotonic() - self.begin)

    def put(self, name: str, figures: dict) -> None:
        self.content["results"][name] = figures
        self.content["seconds"] = round(time.monotonic() - self.begin, 1)
        text = compact(json.dumps(self.content, indent=1, default=str))
        for long, short in self.shorter:
            text = text.replace(long, short)
        self.path.write_text(text + "\n")

    def step(self, name: str, function) -> None:
        """Runs one step; whatever it raises becomes its result."""
        if self.left() < 20:
            self.put(name, {"ok": False, "skipped": "no time left"})
            return
        begin = time.monotonic()
        try:
            figures = function()
        except Exception as problem:
            figures = {"ok": False, "raised": f"{type(problem).__name__}: {problem}"[:600]}
        figures["step_seconds"] = round(time.monotonic() - begin, 1)
        self.put(name, figures)
        verdict = "ok  " if figures.get("ok") else "FAIL"
        brief = {
            k: v for k, v in figures.items() if k not in ("command", "colonel_says", "stderr", "stdout", "session")
        }
        print(f"{verdict} {name} {json.dumps(brief, default=str)[:420]}", flush=True)
        if not figures.get("ok"):
            for key in ("colonel_says", "stderr"):
                if figures.get(key):
                    print(f"     {key}: {str(figures[key])[-500:]}", flush=True)


def gpu_state() -> str:
    query = ["nvidia-smi", "--query-gpu=clocks.sm,temperature.gpu,power.draw", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError as problem:
        return str(problem)
