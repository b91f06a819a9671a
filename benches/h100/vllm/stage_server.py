"""vLLM's API server under colonel, with eight clients at once: /start_profile, then `colonel start` from outside."""

import functools
import signal
import subprocess
import sys

import names
import rig as shared
from rig import LAYERS, Rig, common
from server import Server

CLIENTS, REQUESTS, TOKENS = 8, 2, 32


def entry(rig: Rig, runner: str) -> list[str]:
    """`vllm serve` as a module where all that its other commands import is there, else the server's own module."""
    whole = ["-m", "vllm.entrypoints.cli.main"]
    tried = common.run([sys.executable, *whole, "--version"], 90, **rig.environment(runner))
    return [*whole, "serve"] if tried.code == 0 else ["-m", "vllm.entrypoints.openai.api_server"]


def serve(rig: Rig, runner: str) -> dict:
    log = rig.scratch / f"server_{runner}.log"
    server = Server(rig, runner, entry(rig, runner), log)
    steps: dict = {}
    code: int | str = "not started"
    try:
        if not server.wait(180):
            rig.keep_words(f"server_{runner}", tail(log, 30_000))
            return {"ok": False, "why": ["it did not start"], "command": " ".join(server.command), "stderr": tail(log)}
        steps["warm_up"] = server.clients(CLIENTS, 1, TOKENS)
        steps["start_profile"] = server.post("/start_profile")[0]
        steps["inside_start_profile"] = server.clients(CLIENTS, REQUESTS, TOKENS)
        steps["stop_profile"] = server.post("/stop_profile")[0]
        steps["between"] = server.clients(CLIENTS, 1, TOKENS)
        steps["colonel_start"] = control(rig, server, "start", "--name", "outside")
        steps["inside_colonel_start"] = server.clients(CLIENTS, REQUESTS, TOKENS)
        steps["colonel_stop"] = control(rig, server, "stop")
        steps["after"] = server.clients(CLIENTS, 1, TOKENS)
    finally:
        # To colonel alone, which passes it on.
        code = shared.end(server.process, signal.SIGTERM, 40)
    session = shared.only_session(server.sessions)
    processes = shared.captured(session)
    windows = shared.window_kernels(session)
    figures = {
        "command": " ".join(server.command),
        "code": code,
        "steps_of_the_run": steps,
        "processes": processes,
        "windows": {
            window: names.per_layer_step(counts, LAYERS) | {"kernels": sum(counts.values())}
            for (_, window), counts in windows.items()
        },
        "facts": session.figures(),
        "log": tail(log, 2500),
    }
    why = []
    listed = [window for process in processes for window in process["windows"]]
    if [window["trigger"] for window in listed] != ["profiler", "manual"] or not all(w["sealed"] for w in listed):
        why.append("expected a window by /start_profile and one by `colonel start`, both sealed")
    if len(processes) != 1 or len(windows) != 2:
        why.append(f"{len(processes)} processes, {len(windows)} windows with kernels: expected 1 and 2")
    # 8 clients in a batch: at least so many steps as one client's tokens.
    if any(one["steps"] < REQUESTS * TOKENS or not one["exact"] for one in figures["windows"].values()):
        why.append("layers and steps do not add up")
    failed = [name for name, did in steps.items() if isinstance(did, dict) and (did.get("failed") or did.get("code"))]
    if failed or steps["start_profile"] != 200 or steps["stop_profile"] != 200:
        why.append(f"requests failed: {failed}")
    if session.manifest.get("losses") or session.manifest.get("problems"):
        why.append("losses or problems")
    return {"ok": not why, "why": why, **figures}


def control(rig: Rig, server: Server, *arguments: str) -> dict:
    command = [str(rig.colonel.bin / "colonel"), *arguments, "--sessions-dir", str(server.sessions)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return {"command": " ".join(arguments), "code": ran.returncode, "says": ran.stdout + ran.stderr}


def tail(log, size: int = 4000) -> str:
    return log.read_text(errors="replace")[-size:] if log.exists() else ""


def main() -> None:
    rig = Rig("server")
    rig.together({f"server_{runner}": functools.partial(serve, rig, runner) for runner in rig.runners()}, at_once=3)


if __name__ == "__main__":
    main()
