"""What recording costs a decode: rounds of vLLM's `generate` that take turns on one GPU, batch 4, 128 tokens.

All engines are alive, one works at a time. In a block each configuration has one round, in an order drawn anew, and the
next block has it in reverse, so that drift of the machine meets all alike. After a while new engines take over: what is
peculiar to one engine counts once.

    unprofiled, unprofiled_b   two engines without colonel: their ratio says what two equal engines differ by
    armed                      under colonel, no window ever
    capturing                  under colonel, a region a round
    after                      the same engine, a round outside of regions
    bare                       bare_client.c, between vLLM's own cudaProfilerStart and Stop
    torch                      vLLM's torch profiler, in some blocks only; its trace is written outside the timed part

MODE=graphs (the default) or eager; RUNNER= one of the vLLMs; ONLY= configurations, `unprofiled` always among them.
"""

import json
import os
import random
import statistics
import time
from pathlib import Path

import rig as shared
from common import Served, gpu_state
from intervals import ratio
from rig import EAGER, SIM, Rig

TORCH_EVERY = 10
SET_SECONDS = 10 if SIM else 100
FINISH_SECONDS = 5 if SIM else 20
HOW = {
    "unprofiled": "plain",
    "unprofiled_b": "plain",
    "armed": "plain",
    "capturing": "region",
    "bare": "cuda",
    "torch": "torch",
}
RATIOS = (
    ("unprofiled_b", "unprofiled"),
    ("armed", "unprofiled"),
    ("capturing", "unprofiled"),
    ("after", "unprofiled"),
    ("bare", "unprofiled"),
    ("torch", "unprofiled"),
    ("capturing", "bare"),
)


class Engines:
    """One engine a configuration."""

    def __init__(self, rig: Rig, runner: str, mode: str, configurations: list[str], scratch: Path) -> None:
        self.rig, self.scratch = rig, scratch
        self.sessions: dict[str, Path] = {}
        self.served: dict[str, Served] = {}
        self.rounds: dict[str, int] = dict.fromkeys([*configurations, "after"], 0)
        for name in configurations:
            command = rig.engine("--num-prompts", "4", "--max-tokens", "128", *EAGER[mode], "--serve", HOW[name])
            environment: dict[str, str | None] = {**rig.environment(runner, "spawn")}
            if name == "torch":
                command += ["--traces", str(scratch / "traces")]
            if name in ("armed", "capturing") or SIM:
                command, self.sessions[name] = rig.recorded(command, ["--no-analyze"])
            elif name == "bare":
                library = str(rig.build / "libbare_client.so")
                environment |= {"LD_PRELOAD": library, "CUDA_INJECTION64_PATH": library}
                environment |= {"BARE_KINDS": "all", "BARE_OUT": str(scratch / "bare")}
            self.served[name] = Served(command, environment, scratch / f"{name}.log")

    def __enter__(self) -> "Engines":
        for name, served in list(self.served.items()):
            try:
                served.read(240)  # ready
            except RuntimeError as problem:
                print(f"   {name} did not start: {str(problem)[-300:]}", flush=True)
                self.rig.keep_words(name, served.log.read_text(errors="replace"))
                self.drop(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.served):
            self.drop(name)

    def drop(self, name: str) -> None:
        self.served.pop(name).finish()

    def block(self, order: list[str]) -> dict[str, dict]:
        """A round each."""
        found = {}
        for name in order:
            served = self.served.get("capturing" if name == "after" else name)
            if served is None:
                continue
            served.process.stdin.write(b"plain\n" if name == "after" else b"round\n")
            found[name] = served.read(120)
            self.rounds[name] += 1
        return found

    def finish(self) -> dict:
        """Ends them all, and says what each recorded."""
        outcome: dict = {}
        for served in self.served.values():
            served.process.stdin.close()  # all at once, then one after the other
        for name in list(self.served):
            served = self.served.pop(name)
            _, code = served.finish()
            outcome[name] = {"code": code, "rounds": self.rounds[name]}
            if code != 0:
                outcome[name]["stderr"] = served.errors()
            if name in self.sessions:
                outcome[name]["session"] = self.recorded(self.sessions[name])
        for path in self.scratch.glob("bare.[0-9]*"):
            report = json.loads(path.read_text())
            if report.get("windows") and "bare" in outcome:
                outcome["bare"]["client"] = report
        return outcome

    def recorded(self, sessions: Path) -> dict:
        session = shared.only_session(sessions)
        processes = shared.captured(session)
        return {
            "kernels": session.count("kernels"),
            "attached": [process["attached"] for process in processes],
            "windows": [len(process["windows"]) for process in processes],
            "losses": session.manifest.get("losses"),
            "problems": session.figures()["problems"],
        }


def never_attached(outcome: dict) -> bool:
    """An engine that was only armed has made no CUPTI call."""
    return not any(outcome.get("armed", {}).get("session", {}).get("attached", []))


def take_turns(engines: Engines, names: list[str], until: float, draw: random.Random) -> list[dict[str, dict]]:
    """Blocks until the time is up, an even number of them."""
    for _ in range(3):
        engines.block(names)  # thrown away: the first windows attach, clocks rise
    blocks = []
    while time.monotonic() < until:
        own = [name for name in names if name != "torch" or len(blocks) % (2 * TORCH_EVERY) < 2]
        order = draw.sample(own, len(own))
        blocks += [engines.block(order), engines.block(order[::-1])]
    return blocks


def summary(sets: list[list[dict[str, dict]]], names: list[str]) -> dict:
    flat = [block for blocks in sets for block in blocks]
    ms_per_step: dict[str, float] = {}
    around_ms: dict[str, float] = {}
    for name in names:
        rounds = [block[name] for block in flat if name in block]
        if rounds:
            ms_per_step[name] = round(statistics.median(r["seconds"] / r["steps"] * 1e3 for r in rounds), 4)
            around_ms[name] = round(statistics.median(r["around_seconds"] * 1e3 for r in rounds), 3)
    return {
        "median_ms_per_step": ms_per_step,
        "median_ms_around_a_round": around_ms,
        "ratios": ratios(sets, "seconds"),
        "ratios_of_median_steps": ratios(sets, "median_step_seconds"),
    }


def ratios(sets: list[list[dict[str, dict]]], figure: str) -> dict[str, dict]:
    """Of whole rounds, or of each round's median step, which a few late steps do not move."""
    values = [[{name: did[figure] for name, did in block.items()} for block in blocks] for blocks in sets]
    found = {f"{above} / {below}": ratio(values, above, below) for above, below in RATIOS}
    return {name: one for name, one in found.items() if one}


def table(found: dict) -> None:
    print("   ms per step: " + "  ".join(f"{name} {value}" for name, value in found["median_ms_per_step"].items()))
    for kind in ("ratios", "ratios_of_median_steps"):
        print(f"   {kind}:")
        for name, r in found[kind].items():
            print(
                f"   {name:28} {r['ratio']:.4f} ({r['low']:.4f} to {r['high']:.4f}), {r['blocks']} blocks", flush=True
            )


def main() -> None:
    mode = os.environ.get("MODE", "graphs")
    if mode not in EAGER:
        raise SystemExit(f"stage_overhead.py: MODE=`{mode}` is not known: expected one of {', '.join(EAGER)}")
    rig = Rig(f"overhead_{mode}")
    runner = os.environ.get("RUNNER", next(iter(rig.runners())))
    names = [name for name in HOW if name == "unprofiled" or rig.wanted(name)]
    if SIM:
        names = [name for name in names if name not in ("bare", "torch")]
    elif not (rig.build / "libbare_client.so").exists():
        names = [name for name in names if name != "bare"]
    turns = [*names, *(["after"] if "capturing" in names else [])]
    sets: list[list[dict[str, dict]]] = []
    outcomes: list[dict] = []
    clocks = [gpu_state()]
    draw = random.Random(20261124)
    besides = 0.0  # what a set takes besides taking turns
    while not outcomes or rig.results.left() > besides + FINISH_SECONDS + SET_SECONDS / 3:
        begin = time.monotonic()
        scratch = rig.scratch / f"set_{len(sets) + 1}"
        scratch.mkdir()
        blocks: list[dict[str, dict]] = []
        seconds = 0.0
        try:
            with Engines(rig, runner, mode, names, scratch) as engines:
                ready = time.monotonic() - begin
                if "unprofiled" not in engines.served:
                    raise RuntimeError("no engine without colonel started")
                seconds = min(SET_SECONDS, rig.results.left() - FINISH_SECONDS)
                blocks = take_turns(engines, turns, time.monotonic() + seconds, draw)
                outcome = engines.finish() | {"seconds_to_start": round(ready, 1)}
        except (OSError, RuntimeError, ValueError, KeyError) as problem:
            outcome = {"failed": f"{type(problem).__name__}: {problem}"[:1500]}
        sets.append(blocks)
        outcomes.append(outcome)
        clocks.append(gpu_state())
        besides = max(besides, time.monotonic() - begin - max(0.0, seconds))
        found = summary(sets, turns)
        rig.results.put(
            f"{runner}_{mode}",
            {
                "ok": "failed" not in outcome and bool(found["ratios"]) and never_attached(outcome),
                "configurations": turns,
                "clocks": clocks,
                "summary": found,
                "outcomes": outcomes,
                "round_seconds": [columns(one, turns, "seconds") for one in sets],
                "median_step_seconds": [columns(one, turns, "median_step_seconds") for one in sets],
            },
        )
        print(f"set {len(sets)}: {time.monotonic() - begin:.1f} s, {len(blocks)} blocks", flush=True)
        if "failed" in outcome:
            print(f"   {outcome['failed']}", flush=True)
        table(found)
        if len(outcomes) == 2 and all("failed" in one for one in outcomes):
            break


def columns(blocks: list[dict[str, dict]], names: list[str], figure: str) -> dict[str, list[float | None]]:
    """Every round's figure, block by block; null where a configuration had no round."""
    return {name: [round(b[name][figure], 6) if name in b else None for b in blocks] for name in names}


if __name__ == "__main__":
    main()
