#!/usr/bin/env python3
"""Stand-in for NVIDIA's ncu: takes the same options, talks as it does, writes a report, prints its raw page.

It "profiles" the same three launches whatever the program does. FAKE_NCU says what goes wrong: permission, refuse,
none, hang_first, hang_later, deaf (hangs and ignores SIGINT), crash, no_report, old.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FAULT = os.environ.get("FAKE_NCU", "")
RELEASE = "2019.4.0.0" if FAULT == "old" else "2025.3.1.0"
PID = 4711

RMS_NORM = "_ZN4vllm15rms_norm_kernelIfEEvPT_i"
GEMM = "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT"
LAUNCHES = [
    (RMS_NORM, "(128, 1, 1)", "(4, 1, 1)"),
    (GEMM, "(384, 1, 1)", "(132, 1, 1)"),
    (RMS_NORM, "(128, 1, 1)", "(4, 1, 1)"),
]

ABOUT = [
    "ID",
    "Process ID",
    "Process Name",
    "Host Name",
    "Kernel Name",
    "Context",
    "Stream",
    "Block Size",
    "Grid Size",
    "Device",
    "CC",
]
METRICS = [
    ("dram__throughput.avg.pct_of_peak_sustained_elapsed", "%", ["12.50", "65.13", "12.75"]),
    ("gpu__time_duration.sum", "ns", ["2,304", "8,128", "2,272"]),
    ("launch__func_cache_config", "", ["CachePreferNone", "CachePreferNone", "CachePreferNone"]),
    ("launch__registers_per_thread", "register/thread", ["32", "168", "32"]),
    ("launch__shared_mem_per_block_dynamic", "byte/block", ["0", "213,248", "0"]),
    ("launch__shared_mem_per_block_static", "byte/block", ["64", "0", "64"]),
    ("sm__inst_executed_pipe_tensor.sum", "inst", ["n/a", "4,096", "(!) nan"]),
]


def option(words: list[str], *names: str) -> str | None:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else words[place + 1]
    return None


def line(cells: list[str]) -> str:
    return ",".join(f'"{cell}"' for cell in cells)


def page(report: Path) -> None:
    done = json.loads(report.read_text())["done"]
    print("==PROF== Connected to process 4711 (/usr/bin/python3.11)")
    if done == 0:
        print("==WARNING== No kernels were profiled.")
        return
    print(line(ABOUT + [name for name, _, _ in METRICS]))
    print(line([""] * len(ABOUT) + [unit for _, unit, _ in METRICS]))
    for number, (name, block, grid) in enumerate(LAUNCHES[:done]):
        about = [str(number), str(PID), "python3.11", "127.0.0.1", name, "1", "7", block, grid, "0", "9.0"]
        print(line(about + [values[number] for _, _, values in METRICS]))
        if number == 0:
            print("==WARNING== Found outstanding GPU clock reset, trying to revert...Success.")


class Talk:
    """ncu's own words, to the file of --log-file."""

    def __init__(self, path: str | None) -> None:
        self.file = open(path, "a") if path else sys.stdout  # noqa: SIM115

    def say(self, text: str, end: str = "\n") -> None:
        self.file.write(text + end)
        self.file.flush()


def short(name: str) -> str:
    return "rms_norm_kernel" if name == RMS_NORM else name


def profile(words: list[str]) -> int:
    program = next(place for place, word in enumerate(words) if not word.startswith("-"))
    options, command = words[:program], words[program:]
    by_range = option(options, "--replay-mode") in ("range", "app-range")
    if FAULT == "refuse" or (by_range and option(options, "--profile-from-start") == "off"):
        # On stdout, whatever --log-file says.
        print("==ERROR== Option profile-from-start is not supported during range replay.")
        return 1
    output = option(options, "--export")
    assert output, options
    report = Path(output + ".ncu-rep")
    talk = Talk(option(options, "--log-file"))
    limit = int(option(options, "--launch-count") or len(LAUNCHES))
    done = 0
    stopped = False

    def keep() -> None:
        if FAULT != "no_report":
            report.write_text(json.dumps({"options": options, "done": done}))

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, signal.SIG_IGN if FAULT == "deaf" else stop)
    talk.say(f"==PROF== Connected to process {PID} (/usr/bin/python3.11)")
    target = subprocess.Popen(command)
    errors = {
        "permission": "ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters "
        "on the target device 0. For instructions on enabling permissions and to get more information see "
        "https://developer.nvidia.com/ERR_NVGPUCTRPERM",
    }
    if FAULT in errors:
        code = target.wait()
        talk.say(
            f"==ERROR== {errors[FAULT]}\n==PROF== Disconnected from process {PID}\n"
            "==WARNING== No kernels were profiled."
        )
        return code or 1

    def hang() -> int:
        while not stopped:
            time.sleep(0.02)
        talk.say("==WARNING== Received signal")
        target.kill()
        target.wait()
        keep()
        return 1

    for number, (name, _, _) in enumerate(LAUNCHES[: 0 if FAULT == "none" else limit]):
        if FAULT == "hang_first":
            return hang()
        of = f" ({number + 1}/{limit})" if option(options, "--launch-count") else ""
        talk.say(f'==PROF== Profiling "{short(name)}" - {number}{of}: 0%', end="")
        if FAULT in ("hang_later", "deaf") and number == 1:
            return hang()
        talk.say("....50%....100% - 8 passes")
        done += 1
    code = target.wait()
    keep()
    if FAULT == "crash":
        code = -signal.SIGSEGV
    if code:
        talk.say(f"==ERROR== The application returned an error code ({code if code > 0 else -code}).")
    talk.say(f"==PROF== Disconnected from process {PID}")
    talk.say(f"==PROF== Report: {report}" if done else "==WARNING== No kernels were profiled.")
    return code if code >= 0 else 128 - code


def main() -> int:
    words = sys.argv[1:]
    if words == ["--version"]:
        print("NVIDIA (R) Nsight Compute Command Line Profiler\nCopyright (c) 2018-2025 NVIDIA Corporation")
        print(f"Version {RELEASE} (build 36398880) (public-release)")
        return 0
    imported = option(words, "--import")
    if imported:
        page(Path(imported))
        return 0
    return profile(words)


if __name__ == "__main__":
    sys.exit(main())
