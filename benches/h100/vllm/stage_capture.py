"""Is what colonel records of real vLLM what ran? Demo 05 in all combinations, against vLLM's torch profiler.

Each configuration is a fresh `colonel run` of the demo; the torch profiler traces the same engine and the same
`generate` without colonel, thirty times over, since which prompts share a step is up to chance: the nearest round
counts.
"""

import collections
import functools

import names
import rig as shared
from rig import BESIDE, EAGER, LAYERS, SIM, Rig, common

TORCH_ROUNDS = 30
LEAST_STEPS = 16  # 16 tokens: the prefill and 15 steps of decode, and one more where a prompt came late


class Capture:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.traces: dict[str, list[dict]] = {}

    def torch(self, runner: str, mode: str) -> dict:
        """Rounds under vLLM's own torch profiler."""
        folder = self.rig.scratch / f"traces_{runner}_{mode}"
        command = self.rig.engine(
            "--num-prompts", "4", "--max-tokens", "16", *EAGER[mode], "--torch-profile", str(folder)
        )
        command += ["--rounds", str(TORCH_ROUNDS)]
        ran = self.rig.run(f"torch_{runner}_{mode}", command, 200, self.rig.environment(runner))
        rounds = ran.line.get("rounds", [])
        self.traces[f"{runner}_{mode}"] = rounds
        counts = [collections.Counter(one["names"]) for one in rounds]
        figures = ran.figures()
        return {
            "ok": ran.code == 0 and len(rounds) == TORCH_ROUNDS,
            "steps": [names.per_layer_step(one, LAYERS)["steps"] for one in counts],
            "kernels": [sum(one.values()) for one in counts],
            "names": [dict(one.most_common()) for one in counts[:1]],
            **figures,
        }

    def recorded(self, runner: str, mode: str, method: str, *more: str) -> dict:
        """The demo under colonel; once more where the engine did not start."""
        figures = self.once(runner, mode, method, *more)
        if figures["code"] != 0 and self.rig.results.left() > 60:
            figures = self.once(runner, mode, method, *more) | {"first_try": figures}
        return figures

    def once(self, runner: str, mode: str, method: str, *more: str) -> dict:
        name = f"{runner}_{mode}_{method}_{len(more)}"
        summary = self.rig.scratch / f"{name}.json"
        command, sessions = self.rig.recorded(
            self.rig.demo(*EAGER[mode], *more), ["--no-analyze", "--json", str(summary)]
        )
        ran = self.rig.run(name, command, 200, self.rig.environment(runner, method))
        session = common.session_in(sessions)
        says = [line for line in ran.out.splitlines() if line.startswith(("decode:", "recorded as"))]
        figures: dict = {"ok": False, **ran.figures(), "says": says}
        if session is None:
            return figures
        windows = shared.window_kernels(session)
        counts = sum(windows.values(), collections.Counter())
        layers = names.per_layer_step(counts, LAYERS)
        processes = shared.captured(session)
        figures |= {
            "processes": processes,
            "kernels": sum(counts.values()),
            "windows": [[pid, window, sum(one.values())] for (pid, window), one in windows.items()],
            "layers": layers,
            "names": dict(counts.most_common()),
            "facts": session.figures(),
            "summary_written": summary.exists(),
        }
        rounds = self.traces.get(f"{runner}_{mode}")
        if rounds:
            best, by_name = names.nearest(counts, [collections.Counter(one["names"]) for one in rounds])
            theirs = collections.Counter({tuple(key): n for key, n in rounds[best]["shapes"]})
            figures["torch"] = {
                "round": best,
                "by_name": by_name,
                "by_name_grid_and_block": names.difference(shared.window_shapes(session), theirs),
            }
        problems = self.problems(figures, session, bool(rounds))
        return figures | {"ok": not problems, "why": problems}

    def problems(self, figures: dict, session: common.Session, compared: bool) -> list[str]:
        """What is not as it must be."""
        processes, layers = figures["processes"], figures["layers"]
        found = []
        if figures["code"] != 0:
            found.append(f"exit code {figures['code']}")
        if len(processes) != 1 or len(figures["windows"]) != 1:
            found.append(
                f"{len(processes)} processes, {len(figures['windows'])} windows with kernels; expected 1 and 1"
            )
        elif str(processes[0]["pid"]) not in " ".join(figures["says"]):
            found.append("the captured process is not the one that the demo names")
        if session.manifest.get("losses") or session.manifest.get("problems"):
            found.append("losses or problems")
        if SIM:
            return found
        if not layers["ok"] or layers["steps"] < LEAST_STEPS:
            found.append("layers and steps do not add up")
        if not compared:
            found.append("no torch trace")
        elif not figures["torch"]["by_name"]["equal"]:
            found.append("not equal to torch's kernels")
        return found


def main() -> None:
    rig = Rig("capture")
    capture = Capture(rig)
    torch = {
        f"torch_{runner}_{mode}": functools.partial(capture.torch, runner, mode)
        for runner in rig.runners()
        for mode in EAGER
        if not SIM
    }
    beside = {
        f"{runner}_{mode}_{method}": functools.partial(capture.recorded, runner, mode, method, *BESIDE)
        for runner in rig.runners()
        for mode in EAGER
        for method in ("fork", "spawn")
    }
    # Word for word the command of the guide, which sizes its memory itself: nothing may run beside it.
    alone = {
        f"{runner}_{mode}_exact": functools.partial(capture.recorded, runner, mode, "fork")
        for runner in list(rig.runners())[:1]
        for mode in EAGER
    }
    rig.together(torch)
    found = rig.together(beside) | rig.together(alone, at_once=1)
    equal = [name for name, figures in found.items() if figures.get("torch", {}).get("by_name", {}).get("equal")]
    print(f"{sum(bool(f.get('ok')) for f in found.values())} of {len(found)} ok; equal to torch: {', '.join(equal)}")


if __name__ == "__main__":
    main()
