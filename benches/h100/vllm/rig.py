"""What the stages share: which vLLMs there are, how they are started, results."""

import argparse
import collections
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common
from common import Ran, Results, Session

HERE = Path(__file__).resolve().parent
SIM = os.environ.get("COLONEL_BENCH_SIM") == "1"
DEMO = "demos/vllm/05_real_vllm_decode.py"
LAYERS = 24
# Skips vLLM's memory measurement, which other engines on the GPU would upset: so engines can start side by side.
BESIDE = ("--kv-cache-memory-bytes", str(1 << 30))
EAGER = {"graphs": (), "eager": ("--eager",)}


class Rig:
    """Starts vLLM, alone and under colonel."""

    def __init__(self, stage: str) -> None:
        arguments = argparse.ArgumentParser()
        arguments.add_argument("--build", type=Path, required=True, help="folder with environment.json")
        arguments.add_argument("--out", type=Path, required=True)
        arguments.add_argument("--root", type=Path, required=True)
        arguments.add_argument("--work", type=Path, required=True, help="vLLM's caches, and vLLM itself if carried")
        arguments.add_argument("--seconds", type=float, default=540, help="time for the stage")
        arguments.add_argument("--only", default="", help="steps whose name has one of these in it, joined by commas")
        parsed = arguments.parse_args()
        self.root, self.out, self.build = parsed.root.resolve(), parsed.out, parsed.build
        self.work = parsed.work
        self.only = [part for part in parsed.only.split(",") if part]
        self.results_lock = threading.Lock()
        self.scratch = Path(tempfile.mkdtemp(prefix=f"colonel-{stage}-"))
        self.colonel = common.Colonel(self.root, self.scratch, None)
        if SIM:
            self.colonel.bin = self.root / "target" / "debug"
        environment = json.loads((parsed.build / "environment.json").read_text())
        environment["vllm"] = {name: version_in(variables) for name, variables in self.runners().items()}
        self.results = Results(parsed.out / f"vllm_{stage}.json", environment, parsed.seconds, parsed.root)
        self.results.shorter += [(str(self.scratch), "SCRATCH"), (str(self.work), "WORK")]

    def runners(self) -> dict[str, dict[str, str]]:
        """The vLLMs to measure, and the variables that choose each."""
        if SIM:
            return {"fake": {"PYTHONPATH": self.path(self.root / "tests" / "python" / "fake_vllm")}}
        new, old = self.work / "vllm", self.work / "vllm_old"
        ours = [new] if new.exists() else []
        found = {
            "v2": {"PYTHONPATH": self.path(*ours)},
            "v1": {"PYTHONPATH": self.path(*ours), "VLLM_USE_V2_MODEL_RUNNER": "0"},
        }
        if old.exists():
            found["old"] = {"PYTHONPATH": self.path(old, *ours)}
        return found

    def path(self, *folders: Path) -> str:
        carried = self.root / "carry" / "python"
        package = carried if carried.exists() else self.root / "python"
        return os.pathsep.join([str(package), *map(str, folders), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

    def environment(self, runner: str, method: str = "fork") -> dict[str, str]:
        return {
            **self.runners()[runner],
            "VLLM_WORKER_MULTIPROC_METHOD": method,
            "VLLM_CACHE_ROOT": str(self.work / "cache"),
            # Lines of JSON are alone on stdout.
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        }

    def recorded(self, command: list[str], options: Iterable[str] = ()) -> tuple[list[str], Path]:
        """The command under `colonel run`, and the folder for its session."""
        sessions = self.colonel.sessions_dir()
        simulated = ["--sim"] if SIM else []
        return self.colonel.command(sessions, ["--flavor", "vllm", *simulated, *options], command), sessions

    def run(self, name: str, command: list[str], timeout: float, environment: dict[str, str | None]) -> Ran:
        """Runs a command; what one that fails said is kept in full, since the cause stands far above the end."""
        ran = common.run(command, timeout, **environment)
        if ran.code != 0:
            self.keep_words(name, ran.err)
        return ran

    def keep_words(self, name: str, words: str) -> None:
        with (self.out / "vllm_failures.log").open("a") as log:
            log.write(f"==== {name}\n{words[-30_000:]}\n")

    def demo(self, *options: str) -> list[str]:
        """Demo 05, as a user calls it from the repository's root."""
        return [sys.executable, DEMO, "--num-prompts", "4", "--max-tokens", "16", "--dummy", *options]

    def engine(self, *options: str) -> list[str]:
        return [sys.executable, str(HERE / "engine.py"), "--dummy", *BESIDE, *options]

    def job(self, name: str, *options: str) -> list[str]:
        return [sys.executable, str(HERE / f"{name}.py"), "--dummy", *BESIDE, *options]

    def wanted(self, name: str) -> bool:
        return not self.only or any(part in name for part in self.only)

    def together(self, steps: dict[str, Callable[[], dict]], at_once: int = 6) -> dict[str, dict]:
        """Runs steps side by side; whatever one raises becomes its result. Written as they come."""
        found: dict[str, dict] = {}

        def one(name: str, function: Callable[[], dict]) -> None:
            if self.results.left() < 15:
                figures = {"ok": False, "skipped": "no time left"}
            else:
                try:
                    figures = function()
                except Exception as problem:
                    figures = {"ok": False, "raised": f"{type(problem).__name__}: {problem}"[:800]}
            found[name] = figures
            # One after the other: the file is written anew each time.
            with self.results_lock:
                self.results.put(name, figures)
                self.tell(name, figures)

        with ThreadPoolExecutor(max_workers=at_once) as threads:
            for name, function in steps.items():
                if self.wanted(name):
                    threads.submit(one, name, function)
        return found

    def tell(self, name: str, figures: dict) -> None:
        ok = figures.get("ok")
        keys = ("raised", "skipped", "why", "steps", "kernels", "windows", "seconds")
        brief = {key: figures[key] for key in keys if key in figures}
        print(f"{'ok  ' if ok else 'FAIL'} {name} {json.dumps(brief, default=str)[:400]}", flush=True)
        if not ok:
            for key in ("colonel_says", "stderr"):
                if figures.get(key):
                    print(f"     {key}: {str(figures[key])[-700:]}", flush=True)


def version_in(variables: dict[str, str]) -> str | None:
    """Version of the vLLM that comes first on the path."""
    for folder in variables["PYTHONPATH"].split(os.pathsep):
        for found in sorted(Path(folder).glob("vllm-*.dist-info")):
            return found.name.removeprefix("vllm-").removesuffix(".dist-info")
    try:
        from importlib.metadata import version

        return version("vllm")
    except ImportError:
        return None


def only_session(sessions: Path) -> Session:
    session = common.session_in(sessions)
    if session is None:
        raise RuntimeError("colonel made no session")
    return session


def torch_name(mangled: str) -> str:
    """As torch's trace shows it: libstdc++ demangles it, unless it is very long."""
    return mangled if len(mangled) > 1024 else common.demangle(mangled)


def window_kernels(session: Session) -> dict[tuple[int, int], collections.Counter]:
    """Kernels by name, of each window of each process."""
    frame = session.table("kernels", ["pid", "window", "mangled_name"])
    demangled = {name: torch_name(name) for name in frame["mangled_name"].unique()}
    found: dict[tuple[int, int], collections.Counter] = {}
    for (pid, window), part in frame.groupby(["pid", "window"]):
        counts = part["mangled_name"].map(demangled).value_counts()
        found[int(pid), int(window)] = collections.Counter({name: int(n) for name, n in counts.items()})
    return found


def window_shapes(session: Session) -> collections.Counter:
    """All kernels by name, grid and block."""
    shape = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z"]
    frame = session.table("kernels", ["mangled_name", *shape])
    demangled = {name: torch_name(name) for name in frame["mangled_name"].unique()}
    names = frame["mangled_name"].map(demangled)
    columns = [[int(value) for value in frame[column]] for column in shape]
    return collections.Counter(zip(names, *columns, strict=True))


def captured(session: Session) -> list[dict]:
    """The captured processes, in short."""
    return [
        {
            "pid": process.get("pid"),
            "ppid": process.get("ppid"),
            "command": " ".join(process.get("command") or [])[:120],
            "state": process.get("state"),
            "attached": process.get("attached_ns") is not None,
            "windows": [
                {key: window.get(key) for key in ("number", "name", "trigger")}
                | {"closed": window.get("end_ns") is not None, "sealed": window.get("sealed_ns") is not None}
                for window in process.get("windows") or []
            ],
        }
        for process in session.processes
    ]


def lines_of(ran: Ran) -> list[dict]:
    """All lines of JSON that a job printed."""
    found = []
    for text in ran.out.splitlines():
        if text.startswith("{"):
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
    return found


def end(process, sent: signal.Signals, seconds: float) -> int | str:
    """Sends a signal and waits."""
    process.send_signal(sent)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
        process.wait()
        return "killed"
    return process.returncode
