"""The C++ loop and a torch matmul under each evaluator: does each see every kernel, at what cost, and how ncu replays
CUDA graphs."""

import sys

from evidence import Bench, common

STEPS = 100
PLANS = {"graph": "idle:graph:1x20,window:graph:2x50", "eager": "idle:eager:1x20,window:eager:2x50"}
NSYS = {
    "nsys_node": ["--nsys-cuda-graph-trace", "node"],
    "nsys_graph": ["--nsys-cuda-graph-trace", "graph"],
}
# A small window, since ncu runs each kernel many times over.
FEW = "window:graph:1x2"
NCU = {
    "ncu_kernel_node": ["--ncu-replay-mode", "kernel", "--ncu-graph-profiling", "node"],
    "ncu_kernel_graph": ["--ncu-replay-mode", "kernel", "--ncu-graph-profiling", "graph"],
    "ncu_application": ["--ncu-replay-mode", "application", "--ncu-graph-profiling", "node"],
    # Which must be told: launches of CUDA graphs can't be replayed so.
    "ncu_range": ["--ncu-replay-mode", "range"],
    "ncu_app_range": ["--ncu-replay-mode", "app-range"],
    "ncu_warm_and_free": ["--ncu-cache-control", "none", "--ncu-clock-control", "none"],
}
MATMUL = (
    "import torch; a = torch.randn(2048, 2048, device='cuda', dtype=torch.float16);"
    "[a @ a for _ in range(20)]; torch.cuda.synchronize()"
)
WATCH = ["--ncu-start-timeout", "60s", "--ncu-stall-timeout", "20s"]


def main() -> None:
    bench = Bench("loop")
    loop = str(bench.rig.build / "loop")

    def plain(mode: str) -> dict:
        ran = common.run([loop, "--plan", PLANS[mode]], 60)
        return {"ok": ran.code == 0, "seconds": round(ran.seconds, 2), "step_us": step_us(ran)}

    def counted(name: str, mode: str, options: list[str]) -> dict:
        figures_of = bench.record(name, "generic", ["--gate", "profiler", *options], [loop, "--plan", PLANS[mode]], 90)
        expected = STEPS * 336
        whole = "nsys_graph" in name and mode == "graph"
        got = figures_of["kernels"]
        return {**figures_of, "expected": expected, "ok": (got == 0) if whole else got == expected}

    for mode in PLANS:
        bench.step(f"plain_{mode}", lambda mode=mode: plain(mode))
        bench.step(f"cupti_{mode}", lambda mode=mode: counted(f"cupti_{mode}", mode, []))
        for name, options in NSYS.items():
            chosen = ["--evaluator", "nsys", *options]
            bench.step(f"{name}_{mode}", lambda n=f"{name}_{mode}", m=mode, o=chosen: counted(n, m, o))
        bench.step(f"compare_{mode}", lambda mode=mode: bench.compare(f"cupti_{mode}", f"nsys_node_{mode}"))

    matmul = [sys.executable, "-c", MATMUL]
    for evaluator in ("cupti", "nsys", "ncu"):
        few = ["--ncu-launch-count", "30", *WATCH] if evaluator == "ncu" else []
        options = ["--evaluator", evaluator, *few]
        bench.step(
            f"matmul_{evaluator}",
            lambda n=f"matmul_{evaluator}", o=options: bench.record(n, "generic", o, matmul, 120),
        )
    bench.step("compare_matmul_nsys", lambda: bench.compare("matmul_cupti", "matmul_nsys"))
    bench.step("compare_matmul_ncu", lambda: bench.compare("matmul_cupti", "matmul_ncu"))

    for name, options in NCU.items():
        chosen = ["--gate", "profiler", "--evaluator", "ncu", "--ncu-section", "SpeedOfLight", *WATCH, *options]
        command = [loop, "--kernels", "8", "--plan", FEW]
        bench.step(name, lambda n=name, o=chosen, c=command: bench.record(n, "generic", o, c, 100))
    # What a user sees who asks for what is not there.
    bad = ["--evaluator", "ncu", "--ncu-metrics", "sm__no_such_metric.sum", *WATCH]
    bench.step("ncu_no_such_metric", lambda: told(bench.record("ncu_no_such_metric", "generic", bad, matmul, 60)))


def told(figures: dict) -> dict:
    codes = [problem["code"] for problem in figures["facts"]["problems"]]
    return {**figures, "ok": "ncu_unknown_metric" in codes, "codes": codes}


def step_us(ran) -> list[float]:
    """Medians of the last phase, the window."""
    phases = ran.line.get("phases") or [{}]
    return phases[-1].get("rounds_us", [])


if __name__ == "__main__":
    main()
