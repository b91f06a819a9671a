#!/usr/bin/env python3
"""Stand-in for NVIDIA's ncu: takes the same options, talks as it does, writes a report, prints its raw page.

It "profiles" the same three launches whatever the program does, or 200 with FAKE_NCU=many. FAKE_NCU says what else
goes wrong: permission, refuse, none, no_cuda (a program that never calls CUDA), hang_first, hang_later (in the second
launch, with a warning), deaf (hangs and ignores SIGINT), slow_report (writes it for a while once it is to end),
hang_pass (by application, in the second pass), hang_report (once the program has ended), crash (is killed itself;
crash_in_script: and a script that started it gives the exit code), shutdown (ends the program itself), no_log, empty,
chatty (warnings in the midst of the page), old.
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
if FAULT == "many":
    LAUNCHES = LAUNCHES[:2] * 100

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
    said = report.read_text()
    if not said:
        print("==ERROR== Failed to load report file.", file=sys.stderr)
        sys.exit(1)
    done = json.loads(said)["done"]
    print("==PROF== Connected to process 4711 (/usr/bin/python3.11)")
    if done == 0:
        print("==WARNING== No kernels were profiled.")
        return
    print(line(ABOUT + [name for name, _, _ in METRICS]))
    print(line([""] * len(ABOUT) + [unit for _, unit, _ in METRICS]))
    for number, (name, block, grid) in enumerate(LAUNCHES[:done]):
        about = [str(number), str(PID), "python3.11", "127.0.0.1", name, "1", "7", block, grid, "0", "9.0"]
        print(line(about + [values[number % len(values)] for _, _, values in METRICS]))
        if number == 0 or FAULT == "chatty":
            print("==WARNING== Found outstanding GPU clock reset, trying to revert...Success.")
        if FAULT == "chatty":
            print('a word of the "program", and another\n\n==PROF== Disconnected from process 4711')


class Talk:
    """ncu's own words, to the file of --log-file."""

    def __init__(self, path: str | None) -> None:
        self.file = open(path, "a") if path else sys.stdout  # noqa: SIM115

    def say(self, text: str, end: str = "\n") -> None:
        self.file.write(text + end)
        self.file.flush()


def short(name: str) -> str:
    return "rms_norm_kernel" if name == RMS_NORM else name


WARNING = (
    "==WARNING== Launching the workload is taking more time than expected. If this continues to hang, terminate the "
    "profile and re-try by profiling the range of all related launches using '--replay-mode range'. See "
    "https://docs.nvidia.com/nsight-compute/ProfilingGuide/index.html#replay for more details."
)
PERMISSION = (
    "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the "
    "target device 0. For instructions on enabling permissions and to get more information see "
    "https://developer.nvidia.com/ERR_NVGPUCTRPERM"
)
CONNECTED = f"==PROF== Connected to process {PID} (/usr/bin/python3.11)"
DISCONNECTED = f"==PROF== Disconnected from process {PID}"
NONE = "==WARNING== No kernels were profiled."


class Profile:
    """ncu on a command."""

    def __init__(self, options: list[str], command: list[str]) -> None:
        self.options, self.command = options, command
        output = option(options, "--export")
        assert output, options
        self.report = Path(output + ".ncu-rep")
        self.log = option(options, "--log-file")
        self.talk = Talk(self.log)
        count = option(options, "--launch-count")
        self.of = "" if count is None else f"/{count}"
        self.launches = [] if FAULT == "none" else LAUNCHES[: int(count or len(LAUNCHES))]
        self.done = 0
        self.stopped = False
        signal.signal(signal.SIGINT, signal.SIG_IGN if FAULT == "deaf" else self.stop)

    def stop(self, *_: object) -> None:
        self.stopped = True

    def keep(self) -> None:
        text = json.dumps({"options": self.options, "done": self.done})
        self.report.write_text("" if FAULT == "empty" else text)

    def start(self) -> subprocess.Popen[bytes]:
        if FAULT == "no_log":
            assert self.log
            Path(self.log).unlink()
        if FAULT != "no_cuda":
            self.talk.say(CONNECTED)
        return subprocess.Popen(self.command)

    def hang(self, target: subprocess.Popen[bytes]) -> int:
        while not self.stopped:
            time.sleep(0.02)
        self.talk.say("==PROF== Received signal\n==PROF== Trying to shutdown target application")
        target.kill()
        target.wait()
        if FAULT == "slow_report":
            for size in range(5):
                self.report.write_text(" " * size)
                time.sleep(2.5)
        self.keep()
        self.talk.say("==ERROR== The application returned an error code (9).")
        return 9

    def by_kernel(self) -> int:
        target = self.start()
        for number, (name, _, _) in enumerate(self.launches):
            if FAULT == "hang_first":
                return self.hang(target)
            of = f" ({number + 1}{self.of})" if self.of else ""
            self.talk.say(f'==PROF== Profiling "{short(name)}" - {number}{of}: 0%', end="")
            if FAULT in ("hang_later", "deaf", "slow_report") and number == 1:
                self.talk.say("\n" + WARNING)
                return self.hang(target)
            self.talk.say("....50%....100% - 8 passes")
            self.done += 1
            if FAULT in ("crash", "crash_in_script"):
                target.kill()
                target.wait()
                self.keep()
                if FAULT == "crash_in_script":
                    sys.exit(128 + signal.SIGSEGV)
                os.kill(os.getpid(), signal.SIGSEGV)
        if FAULT == "shutdown":
            target.kill()
            self.talk.say('==ERROR== Failed to profile "gemm" in process 4711')
            self.talk.say("==PROF== Trying to shutdown target application")
        while target.poll() is None:
            if self.stopped:
                return self.hang(target)
            time.sleep(0.02)
        return self.end(target.returncode)

    def by_application(self) -> int:
        """Each pass is a run of the command."""
        code = 0
        for number in range(2):
            target = self.start()
            for launch, (name, _, _) in enumerate(self.launches):
                if FAULT == "hang_pass" and number == 1 and launch == 1:
                    return self.hang(target)
                self.talk.say(f'==PROF== Profiling "{short(name)}" - {launch}: Application replay pass {number + 1}')
            self.done = len(self.launches)
            code = target.wait()
            self.talk.say(DISCONNECTED)
        self.talk.say("==PROF== Creating report from application replay data: 0%..........100%")
        self.keep()
        return code

    def end(self, code: int) -> int:
        """A signal's number stands for an exit code, and a process that was killed takes no leave."""
        if FAULT == "hang_report":
            # A process of its own is there, as the real one's are.
            helper = subprocess.Popen(["sleep", "600"])
            self.talk.say(DISCONNECTED)
            while not self.stopped:
                time.sleep(0.02)
            helper.kill()
        if self.done:
            self.keep()
        if code >= 0 and FAULT not in ("no_cuda", "shutdown", "hang_report"):
            self.talk.say(DISCONNECTED)
        if code:
            self.talk.say(f"==ERROR== The application returned an error code ({abs(code)}).")
        self.talk.say(f"==PROF== Report: {self.report}" if self.done else NONE)
        return abs(code)

    def run(self) -> int:
        if FAULT == "no_cuda":
            return self.end(self.start().wait())
        if FAULT == "permission":
            code = self.start().wait()
            self.talk.say(f"{PERMISSION}\n{DISCONNECTED}\n{NONE}")
            return code or 1
        mode = option(self.options, "--replay-mode") or "kernel"
        return self.by_application() if mode.startswith("app") else self.by_kernel()


def profile(words: list[str]) -> int:
    program = next(place for place, word in enumerate(words) if not word.startswith("-"))
    options, command = words[:program], words[program:]
    by_range = option(options, "--replay-mode") in ("range", "app-range")
    if FAULT == "refuse" or (by_range and option(options, "--profile-from-start") == "off"):
        # On stdout, whatever --log-file says.
        print("==ERROR== Option profile-from-start is not supported during range replay.")
        return 1
    return Profile(options, command).run()


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
