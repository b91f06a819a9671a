"""Demo 05 on real vLLM under each evaluator, with CUDA graphs and without: counts, times, costs; and with which
settings ncu gets through a decode of captured graphs."""

import os

from evidence import Bench
from stage_layers import Layers

EAGER = {"graphs": (), "eager": ("--eager",)}
WATCH = ["--ncu-start-timeout", "120s", "--ncu-stall-timeout", "25s"]
RUNS = {
    "cupti": [],
    "nsys": ["--evaluator", "nsys"],
    "nsys_graph": ["--evaluator", "nsys", "--nsys-cuda-graph-trace", "graph"],
    # The flavor's own settings, with a bound that fits the stage.
    "ncu": ["--evaluator", "ncu", "--ncu-launch-count", "64", *WATCH],
    "ncu_graph": ["--evaluator", "ncu", "--ncu-graph-profiling", "graph", "--ncu-launch-count", "12", *WATCH],
    "ncu_warm_and_free": [
        *["--evaluator", "ncu", "--ncu-launch-count", "64", "--ncu-cache-control", "none"],
        *["--ncu-clock-control", "none", *WATCH],
    ],
    "ncu_application": ["--evaluator", "ncu", "--ncu-replay-mode", "application", "--ncu-launch-count", "20", *WATCH],
}
# In the order of what matters most, should the time not be enough for all.
ORDER = [
    ("cupti", "graphs"),
    ("nsys", "graphs"),
    ("ncu", "graphs"),
    ("cupti", "eager"),
    ("nsys", "eager"),
    ("ncu", "eager"),
    ("ncu_graph", "graphs"),
    ("nsys_graph", "graphs"),
    ("ncu_warm_and_free", "graphs"),
    ("ncu_application", "graphs"),
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
        command = bench.rig.demo(*EAGER[mode])
        limit = min(150, max(30, bench.rig.results.left()))
        bench.step(
            step,
            lambda s=step, n=name, c=command, t=limit: bench.record(s, "vllm", RUNS[n], c, t, **environment),
        )
        for mode_done in EAGER:
            pair = (f"cupti_{mode_done}", step)
            if step != pair[0] and step.endswith(mode_done) and all(side in bench.folders for side in pair):
                bench.step(f"compare_{step}", lambda pair=pair: bench.compare(*pair))


if __name__ == "__main__":
    main()
