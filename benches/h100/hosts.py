"""The test programs of tests/guest/hosts on a real driver: their kernel is compiled by nvcc, all else is as in CI.

A signal handler that calls CUDA comes over colonel's own code (interrupted.c). Each runs without colonel first, where
the handler does nothing: what it does not survive alone says nothing of colonel.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import common

KERNEL = """
#include <cuda_runtime.h>
__global__ void step_kernel() {}
extern "C" int launch_real(const void *, dim3 grid, dim3 block, void **words, size_t shared, void *stream) {
    return cudaLaunchKernel((const void *)step_kernel, grid, block, words, shared, (cudaStream_t)stream);
}
// The programs' own registration is for gpu-sim's runtime; nvcc has made the real one.
extern "C" void **no_binary(void *) { return 0; }
extern "C" void no_function(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *) {}
"""
NAMES = {
    "__cudaRegisterFatBinary": "no_binary",
    "__cudaRegisterFunction": "no_function",
    "cudaLaunchKernel": "launch_real",
}
REAL = [f"-D{name}={real}" for name, real in NAMES.items()]
CASES = {
    "interrupted_stream": ("interrupted.c", ["stream"]),
    "interrupted_context": ("interrupted.c", ["context"]),
    "interrupted_update": ("interrupted.c", ["update"]),
    "interrupted_reset": ("interrupted.c", ["reset"]),
}


def build(root: Path, folder: Path, source: str) -> Path:
    hosts = root / "tests" / "guest" / "hosts"
    program = folder / source.removesuffix(".c")
    (folder / "kernel.cu").write_text(KERNEL)
    steps = [
        ["nvcc", "-O2", "-arch=sm_90", "-c", "kernel.cu", "-o", "kernel.o"],
        ["gcc", "-O1", "-w", "-c", *REAL, str(hosts / source), "-o", f"{source}.o"],
        ["nvcc", "-cudart", "shared", f"{source}.o", "kernel.o", "-o", str(program), "-ldl", "-lpthread"],
    ]
    for step in steps:
        subprocess.run(step, cwd=folder, check=True)
    return program


def once(colonel: common.Colonel, program: Path, words: list[str]) -> dict:
    alone = common.run([str(program), *words], 110)
    ran, session = colonel.run(["--gate", "profiler", "--trace", "nvtx"], [str(program), *words], 200)
    figures = {
        "alone": {"code": alone.code, "stdout": alone.out[-200:], "stderr": alone.err[-200:]},
        "code": ran.code,
        "stdout": ran.out[-200:],
        "stderr": ran.err[-400:],
    }
    if session:
        rows = session.table("kernels", ["start_ns", "nvtx_path"]).sort_values("start_ns")
        figures |= {
            "paths": rows["nvtx_path"].astype(object).where(rows["nvtx_path"].notna(), "").tolist()[-20:],
            "kernels": len(rows),
            "losses": session.manifest.get("losses"),
            "problems": session.figures()["problems"],
        }
    return figures | {"ok": ran.code == alone.code == 0}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("build", "out", "root"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--libcupti", help="for processes that have none mapped")
    parser.add_argument("--only", help="names of cases, by commas")
    arguments = parser.parse_args()
    environment = json.loads((arguments.build / "environment.json").read_text())
    results = common.Results(arguments.out / "hosts.json", environment, 300, arguments.root)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        colonel = common.Colonel(arguments.root.resolve(), scratch, arguments.libcupti)
        for name in arguments.only.split(",") if arguments.only else CASES:
            source, words = CASES[name]
            results.step(name, lambda s=source, w=words: once(colonel, build(arguments.root.resolve(), scratch, s), w))


if __name__ == "__main__":
    main()
