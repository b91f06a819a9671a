"""Demo 05 on real vLLM under each evaluator, with CUDA graphs and without: counts, times, costs; and with which
settings ncu gets through a decode of captured graphs."""

import os
from dataclasses import dataclass

from evidence import Bench
from stage_layers import Layers

MODES = {"graphs": (), "eager": ("--eager",)}
WATCH = ("--ncu-start-timeout", "120s", "--ncu-stall-timeout", "25s")


@dataclass
class Case:
    """A run of demo 05: options of colonel's and of the demo's."""

    options: tuple[str, ...] = ()
    demo: tuple[str, ...] = ()
    seconds: float = 150
    # A kernel name that must be among the rows.
    expected: str | None = None


def ncu(*options: str, **more) -> Case:
    return Case(("--evaluator", "ncu", *options, *WATCH), **more)


# Of one prompt, the prefill is one step of some 310 launches, and each further step one graph among 20 others: the 24
# launches after the 400th have a graph.
ONE_PROMPT = ("--num-prompts", "1")
IN_A_GRAPH = ("--ncu-launch-skip", "700", "--ncu-launch-count", "24")
BY_GRAPH = ("--ncu-graph-profiling", "graph")
RUNS = {
    "cupti": Case(),
    "nsys": Case(("--evaluator", "nsys")),
    "nsys_graph": Case(("--evaluator", "nsys", "--nsys-cuda-graph-trace", "graph")),
    # The flavor's own settings, with a bound that fits the stage.
    "ncu": ncu("--ncu-launch-count", "64"),
    "ncu_graph": ncu(
        *BY_GRAPH, "--ncu-launch-skip", "400", "--ncu-launch-count", "24", demo=ONE_PROMPT, expected="graph"
    ),
    # The same without counting, if ncu's filter knows graphs by this name.
    "ncu_graph_by_name": ncu(
        *BY_GRAPH, "--ncu-kernel", "graph", "--ncu-launch-count", "3", demo=ONE_PROMPT, expected="graph"
    ),
    # Of four prompts, the first graph is launch 637 of the window, of 290 kernels: all 24 are of graphs.
    "ncu_decode": Case(("--evaluator", "ncu", *IN_A_GRAPH, "--ncu-stall-timeout", "60s"), seconds=240),
    "ncu_warm_and_free": ncu(*IN_A_GRAPH, "--ncu-cache-control", "none", "--ncu-clock-control", "none"),
    # Each pass is a start of vLLM: as few as there can be, so a section that needs none.
    "ncu_application": ncu(
        "--ncu-replay-mode", "application", "--ncu-section", "LaunchStats", "--ncu-launch-count", "20", seconds=200
    ),
    # The flavor as it is: 128 launches, 0.6 s each.
    "ncu_default_bound": ncu(seconds=240),
}
# In the order of what matters most, should the time not be enough for all.
ORDER = [
    ("cupti", "graphs"),
    ("nsys", "graphs"),
    ("ncu", "graphs"),
    ("cupti", "eager"),
    ("nsys", "eager"),
    ("ncu", "eager"),
    ("ncu_decode", "graphs"),
    ("ncu_graph", "graphs"),
    ("nsys_graph", "graphs"),
    ("ncu_warm_and_free", "graphs"),
    ("ncu_application", "graphs"),
    ("ncu_graph_by_name", "graphs"),
    ("ncu_default_bound", "graphs"),
]


def main() -> None:
    bench = Bench("vllm")
    runner = next(iter(bench.rig.runners()))
    environment = bench.rig.environment(runner)
    # Under nsys and ncu the workers get their profiler calls from colonel's plugin.
    plugin = Layers(bench.rig).plugin
    environment["PYTHONPATH"] = os.pathsep.join([*plugin, environment["PYTHONPATH"]])
    for name, mode in ORDER:
        step = f"{name}_{mode}"
        case = RUNS[name]
        command = bench.rig.demo(*MODES[mode], *case.demo)
        bench.step(step, lambda s=step, c=case, w=command: recorded(bench, s, c, w, environment))
        for mode_done in MODES:
            pair = (f"cupti_{mode_done}", step)
            if step != pair[0] and step.endswith(mode_done) and all(side in bench.folders for side in pair):
                bench.step(f"compare_{step}", lambda pair=pair: bench.compare(*pair))


def recorded(bench: Bench, name: str, case: Case, command: list[str], environment: dict[str, str]) -> dict:
    limit = min(case.seconds, max(30, bench.rig.results.left()))
    figures = bench.record(name, "vllm", list(case.options), command, limit, **environment)
    is_there = case.expected is None or case.expected in figures["by_name"]
    return {**figures, "ok": figures["ok"] and is_there}


if __name__ == "__main__":
    main()
