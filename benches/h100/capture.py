"""Is what colonel records exactly what was launched? Measurements (a) to (e), and facts that other code relies on.

Called by run.sh. Each step is a fresh process with its own time limit; results go to OUT/capture.json as they come.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import common
from common import HERE, Colonel, Results, Session, run

LOOP = [sys.executable, str(HERE / "loop.py")]
STEPS = 50
PER_STEP = 336
SHAPE = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "device_id"]


def windows_plan(mode: str, steps: int = STEPS) -> str:
    return ",".join(f"idle:{mode}:1x10,window:{mode}:1x{steps}" for _ in range(3))


class Capture:
    """The steps. Each returns figures with an `ok`."""

    def __init__(self, colonel: Colonel, build: Path, out: Path) -> None:
        self.colonel = colonel
        self.build = build
        self.out = out

    def checked(self, ran: common.Ran, session: Session | None, expected: dict[int, int] | int, **more) -> dict:
        """Figures of a run whose kernel rows must be `expected`: a window's each, or in all."""
        figures = {**ran.figures(), **more}
        if session is None:
            return {"ok": False, **figures, "reason": "no session"}
        got = session.per_window("kernels") if isinstance(expected, dict) else session.count("kernels")
        more_ok = all(value for key, value in more.items() if key.startswith("same_"))
        return {
            "ok": got == expected and ran.code == 0 and more_ok and not session.manifest.get("losses"),
            "expected": expected,
            "rows": got,
            **figures,
            "facts": session.figures(),
        }

    # (a) the PyTorch loop against torch.profiler
    def torch_loop(self, mode: str) -> dict:
        plan = windows_plan(mode)
        ran, session = self.colonel.run(["--gate", "profiler"], [*LOOP, "--plan", plan, "--copies"])
        phases = [phase for phase in ran.line.get("phases", []) if phase["kind"] == "window"]
        expected = {i + 1: phase["kernels"] for i, phase in enumerate(phases)}
        reference = run([*LOOP, "--plan", plan, "--copies", "--torch-profiler"], 90)
        kineto = [phase["kineto"] for phase in reference.line.get("phases", []) if "kineto" in phase]
        more: dict = {"kineto": [window["total"] for window in kineto]}
        if session is not None and kineto:
            more |= self.compare(session, kineto)
        if mode == "graph" and session is not None:
            self.keep(session, "session_graph")
            self.describe(session)
        figures = self.checked(ran, session, expected, **more)
        if not kineto:
            figures |= {"ok": False, "reference": reference.figures()}
        figures["stop_us"] = [round(phase["stop_us"]) for phase in phases]
        figures["start_us"] = [round(phase["start_us"]) for phase in phases]
        return figures

    def compare(self, session: Session, kineto: list[dict]) -> dict:
        frame = session.table(
            "kernels", ["window", "name", "mangled_name", "stream_id", "correlation_id", "start_ns", "end_ns", *SHAPE]
        )
        names = {name: common.demangle(name) for name in frame["mangled_name"].unique()}
        mangled_by_kineto = {n: n for n in names if len(n) > 1024}  # it leaves longer ones as they are
        ours_named = dict(zip(frame["mangled_name"], frame["name"], strict=True))
        differing = {n: [ours_named[n], names[n]] for n in names if ours_named[n] != names[n]}
        same = []
        examples = []
        for index, window in enumerate(kineto):
            part = frame[frame["window"] == index + 1]
            shapes = zip(
                part["mangled_name"].map(names | mangled_by_kineto), *(part[column] for column in SHAPE), strict=True
            )
            ours = collections.Counter(json.dumps([name, *map(int, shape)]) for name, *shape in shapes)
            theirs = collections.Counter(window["kernels"])
            same.append(ours == theirs)
            examples += [[k, ours[k], theirs[k]] for k in (ours | theirs) if ours[k] != theirs[k]][:3]
        copies = {}
        for table, category in (("memcpys", "gpu_memcpy"), ("memsets", "gpu_memset")):
            mine = list(session.per_window(table).values())
            theirs = [window.get(category, 0) for window in kineto]
            copies |= {table: mine, f"same_{table}": (mine or [0] * len(theirs)) == theirs}
        return {
            "same_as_torch_profiler": all(same) and len(same) == 3,
            "differences": examples[:6],
            "same_end_times": bool((frame["end_ns"] - frame["start_ns"]).max() < 100_000),
            "longest_kernel_ns": int((frame["end_ns"] - frame["start_ns"]).max()),
            "distinct_names": len(names),
            "names_written_otherwise": len(differing),
            "examples_ours_and_libstdc++": list(differing.values())[:3],
            "streams": {int(k): int(v) for k, v in frame["stream_id"].value_counts().items()},
            "kineto_streams": [window["streams"] for window in kineto],
            **copies,
        }

    def asynchronous(self, mode: str) -> dict:
        """Nothing is waited for: work of one phase runs in the next one, and must count where it was launched."""
        ran, session = self.colonel.run(
            ["--gate", "profiler"], [*LOOP, "--plan", windows_plan(mode, 30), "--async", "--copies"]
        )
        phases = [phase for phase in ran.line.get("phases", []) if phase["kind"] == "window"]
        figures = self.checked(ran, session, {i + 1: phase["kernels"] for i, phase in enumerate(phases)})
        figures["running_at_stop"] = [phase.get("running_at_stop") for phase in phases]
        if session is not None:
            frame = session.table("kernels", ["window", "short_name", "start_ns", "end_ns"])
            sleeps = frame[frame["short_name"].str.contains("spin_kernel")]
            figures["sleeps_per_window"] = {int(k): int(v) for k, v in sleeps["window"].value_counts().items()}
            ends = {w["number"]: w.get("end_ns") for p in session.processes for w in p.get("windows") or []}
            figures["rows_ending_after_their_window"] = {
                number: int((frame[frame["window"] == number]["end_ns"] > end).sum())
                for number, end in ends.items()
                if end
            }
        return figures

    # (b) the demo in Rust
    def demo(self, *options: str, gate: tuple[str, ...] = ("--gate", "process")) -> dict:
        ran, session = self.colonel.run([*gate], [self.colonel.demo, *options])
        line = ran.line
        expected = line.get("kernels_in_windows" if "profiler" in gate else "kernels", -1)
        more = {"workload": line}
        if session is not None and session.count("kernels"):
            frame = session.table("kernels", ["name", "short_name", "grid_x", "block_x", "graph_id"])
            more["same_grid"] = set(frame["grid_x"]) == {line.get("grid_x")}
            more["same_block"] = set(frame["block_x"]) == {line.get("block_x")}
            more["same_mode"] = bool(
                frame["graph_id"].notna().all() if "--graph" in options else frame["graph_id"].isna().all()
            )
            more["names"] = sorted(frame["name"].unique())
        return self.checked(ran, session, expected, **more)

    # (c) other frameworks
    def framework(self, name: str) -> dict:
        ran, session = self.colonel.run(
            ["--gate", "process"], [sys.executable, str(HERE / "frameworks.py"), name], timeout=90
        )
        line = ran.line
        if session is None or not line:
            return {"ok": False, **ran.figures()}
        frame = session.table("kernels", ["name", "short_name", "mangled_name", "grid_x"])
        if line["name"]:
            frame = frame[frame["mangled_name"].str.contains(line["name"], regex=False)]
            ok = len(frame) == line["launched"] and set(frame["grid_x"]) == {line["grid_x"]}
        else:  # the compiler names it: some kernel ran once a call
            counts = frame["name"].value_counts()
            ok = bool((counts == line["launched"]).any())
        counts = {k: int(v) for k, v in frame["name"].value_counts().head(8).items()}
        ok = ok and line["right"] and ran.code == 0
        return {"ok": ok, "workload": line, "kernels": counts, **ran.figures(), "facts": session.figures()}

    # (d) cudaProfilerStart that can or can't be interposed
    def program(self, runtime: str, *gate: str, expect_windows: bool = True, **environment: str | None) -> dict:
        plan = "idle:eager:1x5,window:eager:1x10,idle:graph:1x5,window:graph:1x10"
        ran, session = self.colonel.run(
            ["--gate", "profiler", *gate], [str(self.build / f"loop_{runtime}"), "--plan", plan], **environment
        )
        return self.checked(ran, session, {1: 3360, 2: 3360} if expect_windows else {})

    def python_gate(self, by: str, *gate: str, expect_windows: bool = True) -> dict:
        plan = "idle:graph:1x5,window:graph:1x10,idle:eager:1x5,window:eager:1x10"
        ran, session = self.colonel.run(["--gate", "profiler", *gate], [*LOOP, "--plan", plan, "--gate", by])
        return self.checked(ran, session, {1: 3360, 2: 3360} if expect_windows else {})

    # (e) killed
    def killed(self) -> dict:
        """SIGKILL three seconds into a window; colonel outlives its command and seals."""
        sessions = self.colonel.sessions_dir()
        progress = sessions.parent / f"{sessions.name}.progress"
        command = [*LOOP, "--plan", "idle:graph:1x10,window:graph:1x1000000", "--progress", str(progress)]
        full = self.colonel.command(sessions, ["--gate", "profiler"], command)
        process = subprocess.Popen(
            full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **self.colonel.environment()}
        )
        pid, first = 0, None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            pid, launched, *_ = counts_in(progress)
            if launched and first is None:
                first = time.monotonic()
            if first and time.monotonic() - first > 3.3:
                break
            time.sleep(0.01)
        killed_ns = time.time_ns()
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
        try:
            _, err = process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
        pid, launched, _launched_ns, completed, _completed_ns = counts_in(progress)
        session = common.session_in(sessions)
        figures = {
            "command": " ".join(full),
            "code": process.returncode,
            "launched": launched,
            "completed": completed,
            "colonel_says": common.text_of(err).splitlines()[-8:],
        }
        if session is None:
            return {"ok": False, **figures}
        frame = session.table("kernels", ["start_ns", "end_ns"])
        reported = {(loss["kind"], loss["reason"]): loss["count"] for loss in session.manifest.get("losses") or []}
        unsealed = sum(count or 0 for (kind, _), count in reported.items() if kind in ("kernels", "records"))
        last_ns = int(frame["end_ns"].max()) if len(frame) else 0
        lost_ms = round((killed_ns - last_ns) / 1e6, 1)
        return {
            "ok": 0 < len(frame) <= launched and lost_ms < 2600 and process.returncode == 128 + 9,
            "rows": len(frame),
            "lost_kernels": completed - len(frame),
            "lost_pct": round(100 * (completed - len(frame)) / max(1, completed), 2),
            "lost_ms_before_kill": lost_ms,
            "window_ms": round((killed_ns - int(frame["start_ns"].min())) / 1e6) if len(frame) else None,
            "reported_losses": {f"{kind}/{reason}": count for (kind, reason), count in reported.items()},
            "rows_and_reported": len(frame) + unsealed,
            **figures,
            "facts": session.figures(),
        }

    def exits_at_once(self) -> dict:
        """os._exit microseconds after the stop: what is not on disk yet is lost, and the session must say so."""
        plan = f"idle:graph:1x10,window:graph:1x{STEPS}"
        ran, session = self.colonel.run(["--gate", "profiler"], [*LOOP, "--plan", plan, "--end", "os-exit"])
        expected = ran.line.get("kernels_in_windows", -1)
        if session is None:
            return {"ok": False, **ran.figures()}
        rows = session.count("kernels")
        losses = session.manifest.get("losses") or []
        # Of other tables rows are lost too, and none of them was launched as a kernel.
        reported = sum(loss["count"] or 0 for loss in losses if loss["kind"] == "kernels")
        codes = [problem["code"] for problem in session.manifest.get("problems") or []]
        stated = "process_cut_off" in codes and any(loss["reason"] == "not_sealed" for loss in losses)
        said = rows + reported == expected or stated
        ok = rows + reported <= expected and said and ran.code == 0
        return {
            "ok": ok,
            "launched": expected,
            "rows": rows,
            "reported_lost": reported,
            **ran.figures(),
            "facts": session.figures(),
        }

    # (g) facts
    def api(self) -> dict:
        plan = "idle:eager:1x5,window:eager:1x10,idle:graph:1x5,window:graph:1x10"
        ran, session = self.colonel.run(["--gate", "profiler", "--trace", "api"], [*LOOP, "--plan", plan])
        figures = self.checked(ran, session, {1: 3360, 2: 3360})
        if session is not None:
            calls = session.table("api_calls", ["window", "api", "name"])
            counts = {" ".join(map(str, key)): int(n) for key, n in calls.value_counts().items()}
            launches = sum(
                n for key, n in counts.items() if "runtime" in key and "LaunchKernel" in key and key.startswith("1 ")
            )
            graphs = sum(
                n for key, n in counts.items() if "runtime" in key and "GraphLaunch" in key and key.startswith("2 ")
            )
            figures |= {
                "kernel_launch_calls": launches,
                "graph_launch_calls": graphs,
                "calls": dict(list(counts.items())[:16]),
            }
            figures["ok"] = figures["ok"] and launches == 3360 and graphs == 10
        return figures

    def whole_process(self) -> dict:
        """Gate `process`: attached from cuInit on, before torch has made anything."""
        ran, session = self.colonel.run(
            ["--gate", "process"], [*LOOP, "--plan", "idle:eager:1x10,idle:graph:1x10", "--gate", "none"]
        )
        launched = ran.line.get("kernels", -1)
        rows = session.count("kernels") if session else 0
        # torch fills its buffers with a handful of kernels of its own.
        figures = {
            "ok": launched <= rows <= launched + 60 and ran.code == 0,
            "launched": launched,
            "rows": rows,
            **ran.figures(),
        }
        return figures | ({"facts": session.figures()} if session else {})

    def torch_profiler_inside(self) -> dict:
        """torch.profiler starts within our window: the host must live; we lose nothing, or say what we lost."""
        plan = "idle:graph:1x10,takeover:graph:9x20,idle:graph:1x10,window:graph:1x20"
        ran, session = self.colonel.run(["--gate", "profiler"], [*LOOP, "--plan", plan])
        if session is None:
            return {"ok": False, **ran.figures()}
        phases = [phase for phase in ran.line.get("phases", []) if phase["kind"] != "idle"]
        facts = session.figures()
        rows = session.per_window("kernels")
        exact = rows == {i + 1: phase["kernels"] for i, phase in enumerate(phases)}
        noticed = bool(facts["problems"] or facts["losses"])
        return {
            "ok": ran.code == 0 and (exact or noticed),
            "exact": exact,
            "noticed": noticed,
            "launched": [phase["kernels"] for phase in phases],
            "rows": rows,
            "torch_saw": [phase.get("torch_kernels") for phase in phases],
            "torch_would_see_alone": 3 * 20 * PER_STEP,
            **ran.figures(),
            "facts": facts,
        }

    def torch_profiler_first(self) -> dict:
        """torch.profiler has been there: it keeps CUPTI, so we stay out, say so, and harm nothing."""
        plan = "kineto:graph:1x20,idle:graph:1x10,window:graph:1x20"
        ran, session = self.colonel.run(["--gate", "profiler"], [*LOOP, "--plan", plan])
        if session is None:
            return {"ok": False, **ran.figures()}
        phases = ran.line.get("phases", [])
        facts = session.figures()
        saw = [phase["kineto"]["total"] for phase in phases if "kineto" in phase]
        return {
            "ok": ran.code == 0 and saw == [20 * PER_STEP] and bool(facts["problems"]),
            "torch_saw": saw,
            "rows": session.per_window("kernels"),
            **ran.figures(),
            "facts": facts,
        }

    def manual(self) -> dict:
        """`colonel start --for 1s` from another process, in a running one."""
        sessions = self.colonel.sessions_dir()
        command = self.colonel.command(sessions, ["--gate", "manual"], [*LOOP, "--serve", "--gate", "none"])
        served = common.Served(command, self.colonel.environment(), sessions.parent / "manual.log")
        try:
            served.read(90)  # ready
            served.ask("idle:graph:1x50")
            control = [str(self.colonel.bin / "colonel"), "start", "latest", "--for", "1s"]
            answer = run([*control, "--sessions-dir", str(sessions)], 15)
            served.ask("idle:graph:1x5000")
        finally:
            line, code = served.finish()
        session = common.session_in(sessions)
        windows = [w for p in session.processes for w in p.get("windows") or []] if session else []
        length = [round((w["end_ns"] - w["start_ns"]) / 1e6) for w in windows if w.get("end_ns")]
        rows = session.count("kernels") if session else 0
        return {
            "ok": len(length) == 1 and 900 <= length[0] <= 1500 and rows > 0 and rows % PER_STEP == 0 and code == 0,
            "window_ms": length,
            "rows": rows,
            "launched_outside_and_inside": line.get("kernels"),
            "answer": {"code": answer.code, "says": (answer.out + answer.err)[-300:]},
            "code": code,
            "colonel_says": served.errors().splitlines()[-6:],
            "facts": session.figures() if session else None,
        }

    # what comes home
    def golden(self) -> dict:
        """Raw activity buffers of a tiny workload, for the decoder's tests."""
        result: dict = {"ok": True}
        with tempfile.TemporaryDirectory() as folder:
            for name, options in (("graph", ["--graph"]), ("eager", [])):
                target = Path(folder) / name
                target.mkdir()
                ran, session = self.colonel.run(
                    ["--gate", "process", "--trace", "api"],
                    [self.colonel.demo, "--steps", "2", "--kernels", "6", *options],
                    COLONEL_DUMP_BUFFERS=str(target),
                )
                files = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
                result["ok"] &= bool(files) and ran.code == 0
                facts = session.figures() if session else None
                result[name] = {"files": files, "workload": ran.line, **ran.figures(), "facts": facts}
            with tarfile.open(self.out / "buffers.tar.gz", "w:gz") as archive:
                archive.add(folder, "buffers")
        return result

    def keep(self, session: Session, name: str) -> None:
        archive = self.out / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(session.folder, session.folder.name)
        if archive.stat().st_size > 15 << 20:
            archive.unlink()

    def describe(self, session: Session) -> None:
        """What the reader says of a real session, for people."""
        binary, where = str(self.colonel.bin / "colonel"), ["--sessions-dir", str(session.folder.parent)]
        text = ""
        for command in (["show", "latest", *where], ["list", *where], ["doctor"]):
            ran = run([binary, *command], 30, COLUMNS="140")
            text += f"$ colonel {' '.join(command[:2])}   (code {ran.code})\n{ran.out}{ran.err}\n"
        (self.out / "show.txt").write_text(text)

    def steps(self) -> list[tuple]:
        process = ("--gate", "process")
        profiler = ("--gate", "profiler")
        callback = ("--gate-by", "callback")
        return [
            ("b_demo_eager", lambda: self.demo(gate=process)),
            ("b_demo_graph", lambda: self.demo("--graph", gate=process)),
            ("b_demo_ptx", lambda: self.demo("--ptx", "--steps", "10", gate=process)),
            ("b_demo_windows_auto", lambda: self.demo("--graph", "--windows", "3", gate=profiler)),
            ("golden_buffers", self.golden),
            ("a_graph", lambda: self.torch_loop("graph")),
            ("a_eager", lambda: self.torch_loop("eager")),
            ("a_graph_async", lambda: self.asynchronous("graph")),
            ("a_eager_async", lambda: self.asynchronous("eager")),
            ("c_triton", lambda: self.framework("triton")),
            ("c_cupy", lambda: self.framework("cupy")),
            ("c_jax", lambda: self.framework("jax")),
            ("d_static_auto", lambda: self.program("static")),
            ("d_static_auto_no_cupti_named", lambda: self.program("static", COLONEL_CUPTI=None)),
            ("d_static_preload", lambda: self.program("static", "--gate-by", "preload", expect_windows=False)),
            ("d_shared_auto", lambda: self.program("shared")),
            ("d_shared_callback", lambda: self.program("shared", *callback)),
            ("d_ctypes_callback", lambda: self.python_gate("ctypes", *callback)),
            ("d_ctypes_auto", lambda: self.python_gate("ctypes", expect_windows=False)),
            ("d_cuda_python_callback", lambda: self.python_gate("cuda-python", *callback)),
            ("e_sigkill", self.killed),
            ("e_os_exit", self.exits_at_once),
            ("g_threads_eager", lambda: self.demo("--threads", "8", gate=process)),
            ("g_threads_graph", lambda: self.demo("--threads", "8", "--graph", gate=process)),
            ("g_process_gate_torch", self.whole_process),
            ("g_api", self.api),
            ("g_torch_profiler_inside", self.torch_profiler_inside),
            ("g_torch_profiler_first", self.torch_profiler_first),
            ("g_manual", self.manual),
        ]


def counts_in(path: Path) -> tuple[int, int, int, int, int]:
    """pid, kernels launched and when, kernels completed and when, as loop.py's Progress wrote them."""
    content = path.read_bytes() if path.exists() else b""
    return struct.unpack_from("<5Q", content) if len(content) >= 40 else (0, 0, 0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--only", help="steps whose name contains one of these, joined by commas")
    parser.add_argument("--libcupti", help="for processes that have none mapped")
    parser.add_argument("--budget", type=float, default=450, help="seconds")
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    results = Results(arguments.out / "capture.json", environment, arguments.budget, arguments.root)
    with tempfile.TemporaryDirectory() as scratch:
        colonel = Colonel(arguments.root, Path(scratch), arguments.libcupti)
        for name, function in Capture(colonel, arguments.build, arguments.out).steps():
            if not arguments.only or any(part in name for part in arguments.only.split(",")):
                results.step(name, function)
    outcomes = results.content["results"]
    failed = [name for name, figures in outcomes.items() if not figures.get("ok")]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} ok, failed: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
