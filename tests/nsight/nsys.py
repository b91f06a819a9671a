#!/usr/bin/env python3
"""Stand-in for NVIDIA's nsys: takes the same options, writes a report, exports it to a database of the real schema.

What it "recorded" is always the same: two processes, a CUDA graph replayed twice, copies, a fill, waits, calls, ranges.
FAKE_NSYS says what goes wrong: crash, no_libdw, empty, no_cuda, no_report, old, graphs, warns, closes (descriptors),
hang (once the program has ended, until a SIGINT comes), killed (itself, as it makes its report).
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

SCHEMA = Path(__file__).with_name("nsys_3_28.sql")
FAULT = os.environ.get("FAKE_NSYS", "")
RELEASE = "2019.3.1.94-e0a4d1e" if FAULT == "old" else "2025.3.1.90-253135822126v0"

EPOCH_NS = 1_700_000_000_000_000_000
PARENT, ENGINE = 4700, 4711
GLOBAL = 0x01000000_00000000
NAMES = [
    "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEviT0_",
    "_ZN4vllm15rms_norm_kernelIfEEvPT_i",
    "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT",
]


def global_pid(pid: int) -> int:
    return GLOBAL | pid << 24


class Report:
    """Fills the database."""

    def __init__(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        self.database = sqlite3.connect(path)
        self.database.executescript(SCHEMA.read_text())
        self.strings: dict[str, int] = {}
        self.correlation = 100

    def string(self, text: str) -> int:
        if text not in self.strings:
            self.strings[text] = len(self.strings) + 1
            self.insert("StringIds", id=self.strings[text], value=text)
        return self.strings[text]

    def insert(self, table: str, **values: object) -> None:
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" for _ in values)
        self.database.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values()))

    def call(self, pid: int, tid: int, name: str, start: int, end: int, driver: bool = False) -> int:
        self.correlation += 1
        self.insert(
            "CUPTI_ACTIVITY_KIND_RUNTIME",
            start=start,
            end=end,
            eventClass=int(driver),
            globalTid=global_pid(pid) | tid,
            correlationId=self.correlation,
            nameId=self.string(name),
            returnValue=0,
        )
        return self.correlation

    def kernel(self, pid: int, name: str, start: int, end: int, correlation: int, node: int | None = None) -> None:
        text = self.string(name)
        self.insert(
            "CUPTI_ACTIVITY_KIND_KERNEL",
            start=start,
            end=end,
            deviceId=0,
            contextId=1,
            streamId=7,
            correlationId=correlation,
            globalPid=global_pid(pid),
            demangledName=self.string("demangled by nsys: " + name),
            shortName=text,
            mangledName=text,
            registersPerThread=32,
            gridX=128,
            gridY=1,
            gridZ=1,
            blockX=256,
            blockY=1,
            blockZ=1,
            staticSharedMemory=0,
            dynamicSharedMemory=1024,
            localMemoryPerThread=0,
            localMemoryTotal=0,
            gridId=correlation,
            graphNodeId=node,
            clusterX=0,
            clusterY=0,
            clusterZ=0,
            tensorSizeMinusOneElements="",
        )

    def copy(self, start: int, kind: int, source: int, target: int, size: int, correlation: int) -> None:
        self.insert(
            "CUPTI_ACTIVITY_KIND_MEMCPY",
            start=start,
            end=start + 1_500,
            deviceId=0,
            contextId=1,
            streamId=7,
            correlationId=correlation,
            globalPid=global_pid(ENGINE),
            bytes=size,
            copyKind=kind,
            srcKind=source,
            dstKind=target,
        )

    def range(self, tid: int, text: str, start: int, end: int | None, kind: int = 59, **more: object) -> None:
        self.insert(
            "NVTX_EVENTS",
            start=start,
            end=end,
            eventType=kind,
            textId=self.string(text),
            globalTid=global_pid(ENGINE) | tid,
            **{"domainId": 0, **more},
        )

    def machine(self) -> None:
        self.insert("META_DATA_EXPORT", name="EXPORT_SCHEMA_VERSION", value="3.28.1")
        self.insert("TARGET_INFO_SESSION_START_TIME", utcEpochNs=EPOCH_NS)
        self.insert("ANALYSIS_DETAILS", globalVid=GLOBAL, duration=9_000_000, startTime=1_000_000, stopTime=10_000_000)
        # As it was started: a shell that became another program.
        self.insert("PROCESSES", globalPid=global_pid(PARENT), pid=PARENT, name="/bin/sh")
        for tid, name in ((PARENT, "python3.11"), (PARENT + 1, "[NSys]")):
            self.insert("ThreadNames", nameId=self.string(name), priority=20, globalTid=global_pid(PARENT) | tid)
        self.insert("PROCESSES", globalPid=global_pid(ENGINE), pid=ENGINE, name="VLLM::EngineCore")
        self.insert("PROCESSES", globalPid=global_pid(1), pid=1, name="/sbin/init")
        self.insert("TARGET_INFO_CUDA_DEVICE", gpuId=3, cudaId=0, pid=ENGINE, uuid="aa", numMultiprocessors=132)
        self.insert(
            "TARGET_INFO_GPU",
            id=3,
            name="NVIDIA H100 80GB HBM3",
            uuid="12345678-1234-1234-1234-123456789abc",
            smCount=132,
            threadsPerWarp=32,
            maxWarpsPerSm=64,
            maxBlocksPerSm=32,
            maxRegistersPerSm=65536,
            maxShmemPerSm=233472,
            l2CacheSize=52428800,
            totalMemory=85899345920,
            memoryBandwidth=3352320000000,
            clockRate=1980000000,
            computeMajor=9,
            computeMinor=0,
        )
        for level, name in enumerate(["Unknown", "Information", "Warning", "Error"]):
            self.insert("ENUM_DIAGNOSTIC_SEVERITY_LEVEL", id=level, name=name, label=name)
        self.insert("DIAGNOSTIC_EVENT", timestamp=1, severity=1, text="Profiling has started.", globalPid=0)
        if FAULT == "warns":
            text = "Not all CUDA events might have been collected."
            self.insert("DIAGNOSTIC_EVENT", timestamp=2, severity=2, text=text, globalPid=0)
            self.insert("DIAGNOSTIC_EVENT", timestamp=3, severity=2, text=text, globalPid=0)
        # As on the H100, whatever the program is.
        for text in (
            "Not all OpenGL events might have been collected.",
            "No NVTX events collected. Does the process use NVTX?",
            "Not all OS runtime libraries events might have been collected.",
        ):
            self.insert("DIAGNOSTIC_EVENT", timestamp=4, severity=2, text=text, globalPid=0)

    def work(self) -> None:
        tid = ENGINE
        self.range(tid, "vllm", 0, None, 75, domainId=2)
        self.range(tid, "step", 1_000_000, 4_000_000)
        self.range(tid, "layer0", 1_100_000, 2_000_000, domainId=2, int32Value=17)
        self.range(tid, "here", 1_200_000, None, 34)
        id_ = self.call(ENGINE, tid, "cudaLaunchKernel_v7000", 1_300_000, 1_305_000)
        self.kernel(ENGINE, NAMES[0], 1_310_000, 1_312_000, id_)
        # Another thread, without a range of its own.
        id_ = self.call(ENGINE, tid + 1, "cuLaunchKernelEx", 1_320_000, 1_325_000, driver=True)
        self.kernel(ENGINE, NAMES[2], 1_330_000, 1_334_000, id_)
        for replay in range(2):
            start = 2_100_000 + replay * 1_000_000
            id_ = self.call(ENGINE, tid, "cudaGraphLaunch_v10000", start, start + 20_000)
            if FAULT == "graphs":
                self.insert(
                    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
                    start=start,
                    end=start + 9_000,
                    deviceId=0,
                    contextId=1,
                    streamId=7,
                    correlationId=id_,
                    globalPid=global_pid(ENGINE),
                    graphId=5,
                    graphExecId=6,
                )
                continue
            for node, name in enumerate(NAMES[1:]):
                begin = start + 30_000 + node * 4_000
                self.kernel(ENGINE, name, begin, begin + 3_000, id_, 6 << 32 | node)
        self.kernel(ENGINE, NAMES[0], 5_000_000, 4_000_000, 9)
        self.copy(6_000_000, 1, 1, 2, 4096, self.call(ENGINE, tid, "cudaMemcpyAsync_v3020", 5_990_000, 5_995_000))
        self.copy(6_100_000, 2, 2, 0, 1024, self.call(ENGINE, tid, "cudaMemcpy_v3020", 6_090_000, 6_105_000))
        common = {"deviceId": 0, "contextId": 1, "streamId": 7, "globalPid": global_pid(ENGINE)}
        self.insert(
            "CUPTI_ACTIVITY_KIND_MEMSET",
            start=6_200_000,
            end=6_201_000,
            correlationId=self.call(ENGINE, tid, "cudaMemsetAsync_v3020", 6_190_000, 6_195_000),
            value=0,
            bytes=512,
            memKind=2,
            **common,
        )
        self.insert(
            "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
            start=6_300_000,
            end=6_400_000,
            correlationId=self.call(ENGINE, tid, "cudaStreamSynchronize_v3020", 6_300_000, 6_400_000),
            syncType=3,
            **common,
        )
        self.call(PARENT, PARENT, "cudaGetDeviceCount_v3020", 1_500_000, 1_600_000)

    def close(self) -> None:
        # As the real one: tables are there only where they have rows.
        tables = self.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if not self.database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
                self.database.execute(f"DROP TABLE {table}")
        self.database.commit()
        self.database.close()


def option(words: list[str], *names: str) -> str | None:
    """The value of an option, as `--name=value`, `--name value` or `-n value`."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else words[place + 1]
    return None


def profile(words: list[str]) -> int:
    """Options have the form `--name=value`; the first other word is the program."""
    program = next(place for place, word in enumerate(words) if not word.startswith("-"))
    options, command = words[:program], words[program:]
    output = option(options, "--output")
    assert output, options
    print("Collecting data...", flush=True)
    code = subprocess.call(command, close_fds=FAULT == "closes")
    if FAULT == "crash":
        print("The target application terminated with signal 11 (SIGSEGV)", flush=True)
        code = 128 + signal.SIGSEGV
    elif code < 0:
        # Without a word, as 2025.3.1 did on the H100.
        code = 128 - code
    print("Generating '/tmp/nsys-report-2f4b.qdstrm'", flush=True)
    if FAULT == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT == "hang":
        stopped: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
        while not stopped:
            time.sleep(0.02)
    if FAULT == "no_libdw":
        Path(output + ".qdstrm").write_text("events")
        print(
            "Importer error status: Importation failed.\n"
            "/opt/nvidia/host-linux-x64/QdstrmImporter: error while loading shared libraries: libdw.so.1: "
            "cannot open shared object file: No such file or directory",
            file=sys.stderr,
        )
    elif FAULT != "no_report":
        Path(output + ".nsys-rep").write_text(json.dumps({"options": options, "environment": sorted(os.environ)}))
        print(f"[1/1] [========================100%] report.nsys-rep\nGenerated:\n    {output}.nsys-rep")
    return code


def export(words: list[str]) -> int:
    output = option(words, "--output")
    assert output, words
    assert option(words, "--type") == "sqlite"
    report = Report(output)
    report.machine()
    if FAULT not in ("empty", "no_cuda"):
        report.work()
    report.close()
    return 0


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"NVIDIA Nsight Systems version {RELEASE}")
        return 0
    verbs = {"profile": profile, "export": export}
    return verbs[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
