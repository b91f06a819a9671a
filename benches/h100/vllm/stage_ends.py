"""How engines end in the middle of a window: everything that was sealed must be there, the rest told as lost."""

import functools
import json
import os
import signal
import subprocess
import time

import rig as shared
from common import Served
from rig import EAGER, Rig, common


def rows_sealed(rig: Rig, sessions) -> tuple[dict[int, int], list]:
    """What the guests say is on disk, in all tables, by pid."""
    command = [str(rig.colonel.bin / "colonel"), "status", "--json", "--sessions-dir", str(sessions)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    answers = json.loads(ran.stdout) if ran.returncode == 0 else []
    return {answer["pid"]: answer["rows"] or 0 for answer in answers}, answers


# vLLM's `generate` never returns once EngineCore has been killed (0.26.0, without colonel as well; 0.20.2 has the same
# code).
STUCK_SECONDS = 12


def left_by_itself(served: Served) -> bool:
    """Waits for the script; one that is stuck is sent SIGTERM, which colonel passes on."""
    try:
        served.process.wait(timeout=STUCK_SECONDS)
    except subprocess.TimeoutExpired:
        served.process.terminate()
        served.process.wait(timeout=30)
        return False
    return True


def without_colonel(rig: Rig, runner: str) -> dict:
    """Does the script come back when its EngineCore is killed, with no colonel anywhere?"""
    options = ["--num-prompts", "4", "--max-tokens", "64"]
    environment = rig.environment(runner) | {"COLONEL_DISABLE_PROFILE_REGION": "1"}
    served = Served(rig.job("ends_job", *options), environment, rig.scratch / f"plain_{runner}.log")
    served.read(180)
    children = subprocess.run(
        ["pgrep", "-P", str(served.process.pid), "-f", "EngineCore"], capture_output=True, text=True
    )
    for pid in children.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    returned = left_by_itself(served)
    return {
        "ok": True,
        "killed": children.stdout.split(),
        "script_returned": returned,
        "code": served.process.returncode,
    }


def ended(rig: Rig, runner: str, mode: str, method: str, how: str) -> dict:
    """How is SIGTERM or SIGKILL, sent to EngineCore, or `script`: it ends by itself."""
    options = ["--num-prompts", "4", "--max-tokens", "64", *EAGER[mode], *(["--leave"] if how == "script" else [])]
    command, sessions = rig.recorded(rig.job("ends_job", *options))
    log = rig.scratch / f"ends_{runner}_{mode}_{method}_{how}.log"
    begin = time.monotonic()
    served = Served(command, rig.environment(runner, method), log)
    try:
        inside = served.read(180)
        pid = int(next(iter(inside["inside"])))
        time.sleep(1.2)  # at work meanwhile, or idle with all sealed
        sealed, answers = rows_sealed(rig, sessions)
        ended_ns = time.time_ns()
        if how == "script":
            served.process.stdin.write(b"leave\n")
        else:
            os.kill(pid, signal.Signals[how])
        returned = left_by_itself(served)
        code: int | str = served.process.returncode
    finally:
        if served.process.poll() is None:
            served.process.kill()
            code = "killed"
            rig.keep_words(log.stem, log.read_text(errors="replace"))
    session = shared.only_session(sessions)
    rows = {table: session.count(table) for table in common.ROWS_OF if session.files(table)}
    frame = session.table("kernels", ["end_ns", "pid"])
    losses = session.manifest.get("losses") or []
    lost = {f"{loss['kind']}/{loss['reason']}": loss["count"] for loss in losses}
    total = sum(rows.values())
    last_ms = round((ended_ns - int(frame["end_ns"].max())) / 1e6, 1) if len(frame) else None
    codes = [problem.get("code") for problem in session.figures()["problems"]]
    why = []
    if total < sealed.get(pid, 0) or not sealed.get(pid):
        why.append(f"{total} rows of {sealed.get(pid)} sealed ones")
    if last_ms is None or last_ms > 3500:
        why.append(f"the last kernel ended {last_ms} ms before the end")
    if how == "SIGKILL" and not lost and "process_cut_off" not in codes:
        why.append("nothing is said of the cut")
    return {
        "ok": not why,
        "why": why,
        "command": " ".join(command),
        "code": code,
        "script_returned": returned,
        "seconds": round(time.monotonic() - begin, 1),
        "rows": rows,
        "rows_sealed_before": sealed.get(pid),
        "rows_after_that": total - sealed.get(pid, 0),
        "last_kernel_ms_before_the_end": last_ms,
        "lost": lost,
        "problem_codes": codes,
        "status": answers,
        "processes": shared.captured(session),
        "facts": session.figures(),
        "stderr": served.errors(),
    }


def main() -> None:
    rig = Rig("ends")
    steps = {}
    for runner in rig.runners():
        for how, method in (("SIGTERM", "fork"), ("SIGKILL", "fork"), ("script", "fork"), ("script", "spawn")):
            steps[f"{runner}_{how}_{method}"] = functools.partial(ended, rig, runner, "graphs", method, how)
        if not shared.SIM:
            steps[f"{runner}_without_colonel"] = functools.partial(without_colonel, rig, runner)
    rig.together(steps)


if __name__ == "__main__":
    main()
