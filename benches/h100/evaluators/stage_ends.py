"""How colonel tells bad ends under the real nsys and ncu: hangs, crashes, and a program without CUDA. What the
profilers say there is kept for the stand-ins."""

import sys
from dataclasses import dataclass

from evidence import Bench, shared

MATMUL = (
    "import torch; a = torch.randn(1024, 1024, device='cuda'); [a @ a for _ in range(3)]; torch.cuda.synchronize(); "
)
CONTEXT = "import torch; torch.cuda.init(); torch.cuda.synchronize(); "
if shared.SIM:
    # The stand-ins profile whatever there is.
    MATMUL = CONTEXT = ""
SEGFAULT = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
# Without a choice ncu collects more than is needed here.
NCU = ("--evaluator", "ncu", "--ncu-metrics", "gpu__time_duration.sum")
LIMIT_S = 60
NSYS = ("--evaluator", "nsys")


@dataclass
class Case:
    """A program, and how colonel must tell its end."""

    options: tuple[str, ...]
    script: str
    code: int
    problems: tuple[str, ...] = ()
    # None: either will do.
    has_kernels: bool | None = True
    # What the stand-ins play, without a GPU.
    fake: str = ""


CASES = {
    "no_cuda_ncu": Case(NCU, "print(1)", 0, ("ncu_no_cuda",), has_kernels=False, fake="no_cuda"),
    "no_cuda_fails_ncu": Case(NCU, "raise SystemExit(3)", 3, (), has_kernels=False, fake="no_cuda"),
    "no_cuda_nsys": Case(NSYS, "print(1)", 0, (), has_kernels=False, fake="no_cuda"),
    "signal_ncu": Case(NCU, MATMUL + SEGFAULT, 128 + 11, ("target_crashed",)),
    "exit_code_ncu": Case(NCU, MATMUL + "raise SystemExit(11)", 11),
    # It has lost the kernels by then.
    "signal_nsys": Case(NSYS, MATMUL + SEGFAULT, 128 + 11, ("target_crashed",), has_kernels=None),
    # Each would sleep for longer than the watch allows.
    "watch_stall": Case(
        (*NCU, "--ncu-stall-timeout", "5s"), MATMUL + "import time; time.sleep(60)", 128 + 9, ("ncu_stopped",)
    ),
    "watch_start": Case(
        (*NCU, "--ncu-start-timeout", "12s"),
        CONTEXT + "import time; time.sleep(60)",
        128 + 9,
        ("ncu_stopped",),
        has_kernels=False,
        fake="hang_first",
    ),
}


def main() -> None:
    bench = Bench("ends")
    for name, case in CASES.items():
        bench.step(name, lambda n=name, c=case: told(bench, n, c))


def told(bench: Bench, name: str, case: Case) -> dict:
    command = [sys.executable, "-c", case.script]
    fakes = {"FAKE_NCU": case.fake, "FAKE_NSYS": case.fake}
    figures = bench.record(name, "generic", list(case.options), command, LIMIT_S, all_words=True, **fakes)
    codes = [problem["code"] for problem in figures["facts"]["problems"]]
    is_told = figures["code"] == case.code and set(case.problems) <= set(codes)
    return {**figures, "ok": is_told and case.has_kernels in (None, figures["kernels"] > 0), "problems": codes}


if __name__ == "__main__":
    main()
