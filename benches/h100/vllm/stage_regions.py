"""Regions on real vLLM: several in one engine, nested, an exception, overlapping, everything in one process, none."""

import functools

import names
import rig as shared
from rig import BESIDE, LAYERS, SIM, Rig, common


def checked(rig: Rig, runner: str, method: str, *options: str, **environment: str) -> dict:
    """Every region's window must be closed and hold the steps that were generated in it."""
    command, sessions = rig.recorded(rig.job("regions_job", *options))
    name = " ".join(["regions", runner, method, *options, *environment])
    ran = rig.run(name, command, 200, rig.environment(runner, method) | environment)
    said = shared.lines_of(ran)
    session = common.session_in(sessions)
    figures: dict = {**ran.figures(), "says": said}
    if session is None:
        return {"ok": False, **figures, "why": ["no session"]}
    windows = shared.window_kernels(session)
    processes = shared.captured(session)
    why = [] if ran.code == 0 else [f"exit code {ran.code}"]
    regions = {}
    for line in (line for line in said if "region" in line):
        for pid, window in line["windows"].items():
            counts = windows.pop((int(pid), window), None)
            listed = [w for p in processes if p["pid"] == int(pid) for w in p["windows"] if w["number"] == window]
            layers = names.per_layer_step(counts, LAYERS) if counts else None
            regions[line["region"]] = {
                "pid": int(pid),
                "window": window,
                "listed": listed,
                "kernels": sum(counts.values()) if counts else 0,
                "at_least_steps": line["at_least"],
                "steps": layers and layers["steps"],
            }
            if not counts:
                why.append(f"no kernels in `{line['region']}`")
            elif not SIM and not (layers["exact"] and layers["steps"] >= line["at_least"]):
                why.append(f"`{line['region']}`: steps do not add up")
            if len(listed) != 1 or not listed[0]["closed"] or listed[0]["name"] != line["region"]:
                why.append(f"`{line['region']}`: its window is not closed, or not named so")
        if not line["windows"]:
            why.append(f"`{line['region']}` has no window")
    if windows:
        why.append(f"kernels outside of all regions: {[(key, sum(one.values())) for key, one in windows.items()]}")
    if not regions:
        why.append("no region was reported")
    return {
        "ok": not why,
        "why": why,
        **figures,
        "regions": regions,
        "processes": processes,
        "facts": session.figures(),
    }


def in_process(rig: Rig, runner: str) -> dict:
    figures = checked(rig, runner, "fork", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    own = next((line["pid"] for line in figures["says"] if "pid" in line), None)
    pids = {region["pid"] for region in figures.get("regions", {}).values()}
    if pids != {own}:
        figures["ok"] = False
        figures.setdefault("why", []).append(f"windows in {pids}, expected the script's own process {own}")
    return figures


def disabled(rig: Rig, runner: str) -> dict:
    """The same script with regions turned off, in a session."""
    command, sessions = rig.recorded(rig.demo(*BESIDE, "--eager"))
    environment = rig.environment(runner) | {"COLONEL_DISABLE_PROFILE_REGION": "1"}
    ran = rig.run("disabled", command, 150, environment)
    session = shared.only_session(sessions)
    attached = [process["attached"] for process in shared.captured(session)]
    ok = ran.code == 0 and session.count("kernels") == 0 and attached == [False]
    return {"ok": ok, "attached": attached, **ran.figures(), "stdout": ran.out[-400:], "facts": session.figures()}


def no_session(rig: Rig, runner: str) -> dict:
    """The demo without colonel: what the user reads."""
    ran = common.run(rig.demo(*BESIDE, "--eager"), 150, **rig.environment(runner), COLONEL_SESSION=None)
    error = [line for line in ran.err.splitlines() if "NoSessionError" in line]
    return {"ok": ran.code == 1 and bool(error), "error": error[-1:], **ran.figures()}


def main() -> None:
    rig = Rig("regions")
    steps = {}
    for runner in rig.runners():
        steps |= {
            f"{runner}_sync_fork": functools.partial(checked, rig, runner, "fork"),
            f"{runner}_sync_spawn": functools.partial(checked, rig, runner, "spawn"),
            f"{runner}_async": functools.partial(checked, rig, runner, "fork", "--async"),
            f"{runner}_in_process": functools.partial(in_process, rig, runner),
        }
    first = next(iter(rig.runners()))
    steps["disabled"] = functools.partial(disabled, rig, first)
    if not SIM:  # gpu-sim comes with `colonel run` only
        steps["no_session"] = functools.partial(no_session, rig, first)
    rig.together(steps)


if __name__ == "__main__":
    main()
