"""Which layer each kernel has, under colonel's ranges and by structure alone: full graphs, graphs of pieces, eager.

Each is one `colonel run --flavor vllm` of an engine with one window of 16 tokens for 4 prompts, once with colonel's
ranges and once with COLONEL_VLLM_ENABLE_NVTX=0. `layers.py` has the rule that both are held against, which itself is
held against the eager run's ranges. All sessions come back as sessions.txz.
"""

import functools
import importlib.metadata
import os
import tarfile
from pathlib import Path

import layers as rule
import rig as shared
from rig import LAYERS, SIM, Rig

MODES = {
    "graphs": (),
    "piecewise": ("--compilation-config", '{"cudagraph_mode": "PIECEWISE"}'),
    "eager": ("--eager",),
}
RANGES = {"ranges": "1", "structure": "0"}
ENOUGH = 0.99
MOST_BYTES = 14_000_000
COLUMNS = ["start_ns", "pid", "window", "short_name", "layer", "layer_source", "nvtx_path"]
PLUGIN = "[vllm.general_plugins]\ncolonel = colonel.profiling.vllm.plugin:register\n"


class Layers:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.judged: dict[str, dict] = {}
        self.sessions: dict[str, Path] = {}
        self.plugin = self.installed()

    def installed(self) -> list[str]:
        """Where vLLM finds colonel's plugin: as installed, else in a folder made for it."""
        folders = [*self.rig.path().split(os.pathsep), ""]
        if any(list(Path(folder).glob("colonel*.dist-info")) for folder in folders if folder):
            return []
        try:
            importlib.metadata.version("colonel")
        except importlib.metadata.PackageNotFoundError:
            folder = self.rig.scratch / "installed"
            info = folder / "colonel-0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colonel\nVersion: 0\n")
            (info / "entry_points.txt").write_text(PLUGIN)
            return [str(folder)]
        return []

    def recorded(self, runner: str, mode: str, ranges: str) -> dict:
        """One session, against the rule; once more where the engine did not start."""
        figures = self.once(runner, mode, ranges)
        if figures["code"] != 0 and self.rig.results.left() > 60:
            figures = self.once(runner, mode, ranges) | {"first_try": figures}
        return figures

    def once(self, runner: str, mode: str, ranges: str) -> dict:
        name = f"{runner}_{mode}_{ranges}"
        job = self.rig.engine("--num-prompts", "4", "--max-tokens", "16", *MODES[mode], "--record")
        command, sessions = self.rig.recorded(job)
        environment = self.rig.environment(runner)
        environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], *self.plugin])
        environment["COLONEL_VLLM_ENABLE_NVTX"] = RANGES[ranges]
        ran = self.rig.run(name, command, 150, environment)
        warnings = [line for line in ran.err.splitlines() if "colonel: ranges in vLLM" in line]
        figures: dict = {"ok": False, **ran.figures(), "warnings": warnings}
        session = shared.common.session_in(sessions)
        if session is None or ran.code != 0:
            return figures
        self.sessions[name] = session.folder
        judged = rule.judged(session.table("kernels", COLUMNS), LAYERS)
        self.judged[name] = judged
        figures |= {key: value for key, value in judged.items() if key != "columns"}
        figures["facts"] = session.figures()
        figures["ranges"] = session.count("nvtx_ranges")
        why = self.problems(judged, figures, ranges)
        return figures | {"ok": not why, "why": why}

    def problems(self, judged: dict, figures: dict, ranges: str) -> list[str]:
        """What is not as it must be."""
        found = []
        if not judged["passes"] or judged["passes"] != judged["whole"]:
            found.append(f"{judged['whole']} of {judged['passes']} passes have {LAYERS} layers")
        if (judged["share"] or 0) < ENOUGH:
            found.append(f"{judged['share']} of the layers' kernels have the right layer")
        if (figures["ranges"] > 0) != (ranges == "ranges"):
            found.append(f"{figures['ranges']} NVTX ranges were recorded")
        if figures["warnings"]:
            found.append("vLLM has moved, see `warnings`")
        if figures["facts"]["losses"]:
            found.append("losses")
        return found

    def agree(self, runner: str, mode: str) -> dict:
        """Both routes, kernel by kernel."""
        one, other = (self.judged.get(f"{runner}_{mode}_{ranges}") for ranges in RANGES)
        if one is None or other is None:
            return {"ok": False, "why": "a session is missing"}
        figures = rule.agreement(one, other)
        return {"ok": (figures["share"] or 0) >= ENOUGH, **figures}

    def pack(self) -> dict:
        """All sessions in one file, the largest left out where it would be too large."""
        file = self.rig.out / "sessions.txz"
        names = sorted(self.sessions, key=lambda name: size(self.sessions[name]))
        left_out = []
        while names:
            with tarfile.open(file, "w:xz", preset=6) as archive:
                for name in names:
                    archive.add(self.sessions[name], f"{name}/{self.sessions[name].name}")
            if file.stat().st_size < MOST_BYTES:
                break
            left_out.append(names.pop())
        return {"ok": bool(names) and not left_out, "sessions": names, "left_out": left_out}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    rig = Rig("layers")
    runs = Layers(rig)
    pairs = [(runner, mode) for runner in rig.runners() for mode in MODES]
    # Those with ranges first: the time may end before the others.
    steps = {
        f"{runner}_{mode}_{ranges}": functools.partial(runs.recorded, runner, mode, ranges)
        for ranges in RANGES
        for runner, mode in pairs
    }
    found = rig.together(steps)
    found |= rig.together(
        {f"{runner}_{mode}_agreement": functools.partial(runs.agree, runner, mode) for runner, mode in pairs}, at_once=1
    )
    found |= rig.together({"sessions": runs.pack}, at_once=1)
    for name, figures in found.items():
        print(f"{name:28} {figures.get('share')} {figures.get('sources', '')} {figures.get('beside_the_layers', '')}")
    print(f"{sum(bool(figures.get('ok')) for figures in found.values())} of {len(found)} ok{' (gpu-sim)' * SIM}")


if __name__ == "__main__":
    main()
