"""What the machine is: `environment.py FILE STAGE LIBCUPTI COMMAND` writes it as JSON, and prints it."""

import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "triton",
    "nvidia-cuda-cupti",
    "nvidia-cuda-runtime",
    "cupy-cuda13x",
    "jax",
    "pyarrow",
    "transformers",
    "vllm",
)


def shell(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except OSError as problem:
        return str(problem)


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cupti_version(library: str) -> int | None:
    if not library:
        return None
    number = ctypes.c_uint32()
    ctypes.CDLL(library).cuptiGetVersion(ctypes.byref(number))
    return number.value


def main() -> None:
    path, stage, library, command = sys.argv[1:]
    query = "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm"
    with open("/proc/cpuinfo") as lines:
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")
    facts = {
        "stage": stage,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "gpu": shell("nvidia-smi", query, "--format=csv,noheader"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu": cpu,
        "libcupti": library.split("site-packages/")[-1],
        "cupti_api_version": cupti_version(library),
        "python": platform.python_version(),
        "nvcc": shell("nvcc", "--version").splitlines()[-2:],
        "packages": {name: installed(name) for name in PACKAGES},
    }
    with open(path, "w") as file:
        json.dump(facts, file, indent=1)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
