"""The host-bound loop: a few hundred small PyTorch kernels a step, launched and waited for, as LLM decode does.

    loop.py --plan idle:graph:1x20,window:graph:1x100,idle:graph:1x20

A plan is phases of KIND:MODE:ROUNDSxSTEPS. KIND `window` runs between cudaProfilerStart and cudaProfilerStop, `idle`
outside; in `takeover` torch.profiler starts within such a window, in `kineto` it runs alone. MODE is `eager` or
`graph`. The CUDA graph is captured before the first phase. The last line on stdout is JSON: what was launched a phase,
and the median step of each round. With --serve phases come one a line on stdin, and each is answered by a line.
loop.cu is its twin without Python.
"""

import argparse
import collections
import ctypes
import gc
import json
import mmap
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch


class Work:
    """Operations of one kernel each, on buffers that stay."""

    def __init__(self, kernels: int, copies: bool) -> None:
        device = torch.device("cuda")
        self.x = torch.ones(4096, device=device)
        self.y = torch.ones(4096, device=device)
        self.half = torch.ones(4096, device=device, dtype=torch.float16)
        self.matrix = torch.ones(32, 128, device=device)
        self.sums = torch.empty(32, device=device)
        self.shares = torch.empty(32, 128, device=device)
        self.copy = torch.empty(4096, device=device)
        self.operations = [
            lambda: self.x.add_(0.001),
            lambda: self.y.mul_(0.999),
            lambda: self.x.tanh_(),
            lambda: self.half.copy_(self.x),
            lambda: torch.sum(self.matrix, 1, out=self.sums),
            lambda: torch.softmax(self.matrix, 1, out=self.shares),
        ]
        self.kernels = kernels
        self.copies = copies
        self.runtime = ctypes.CDLL("libcudart.so.13") if copies else None
        self.graph: torch.cuda.CUDAGraph | None = None

    def eager(self) -> None:
        operations = self.operations
        for index in range(self.kernels):
            operations[index % len(operations)]()
        if self.copies:
            self.copy.copy_(self.y)  # one cudaMemcpyAsync
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            self.runtime.cudaMemsetAsync(ctypes.c_void_p(self.copy.data_ptr()), 0, ctypes.c_size_t(16384), stream)

    def capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.eager()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.eager()
        torch.cuda.synchronize()

    def kernels_a_step(self, mode: str) -> int:
        """A copy or a fill that is a node of a graph runs as a kernel, and CUPTI records it as one."""
        return self.kernels + (2 if self.copies and mode == "graph" else 0)

    def step(self, mode: str) -> None:
        if mode == "graph":
            self.graph.replay()
        else:
            self.eager()


class Progress:
    """Counts that outlive a SIGKILL: pid; kernels launched in windows and when; kernels completed and when."""

    def __init__(self, path: str | None) -> None:
        self.map = None
        if path:
            with open(path, "wb+") as file:
                file.truncate(64)
                self.map = mmap.mmap(file.fileno(), 64)
            struct.pack_into("<Q", self.map, 0, os.getpid())

    def put(self, offset: int, count: int) -> None:
        if self.map:
            struct.pack_into("<QQ", self.map, offset, count, time.time_ns())


def profiler_calls(by: str):
    """cudaProfilerStart and Stop as different programs reach them."""
    if by == "torch":
        runtime = torch.cuda.cudart()
        return runtime.cudaProfilerStart, runtime.cudaProfilerStop
    if by == "ctypes":
        runtime = ctypes.CDLL("libcudart.so.13")
        return runtime.cudaProfilerStart, runtime.cudaProfilerStop
    if by == "cuda-python":
        from cuda.bindings import runtime

        return runtime.cudaProfilerStart, runtime.cudaProfilerStop
    return (lambda: None), (lambda: None)


def kineto_counts(profiler) -> dict:
    """What torch.profiler saw: kernels, copies and fills, as multisets."""
    path = Path(tempfile.mkstemp(suffix=".json")[1])
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    path.unlink()
    kernels: collections.Counter = collections.Counter()
    others: collections.Counter = collections.Counter()
    streams: collections.Counter = collections.Counter()
    for event in events:
        category, arguments = event.get("cat"), event.get("args", {})
        if category == "kernel":
            shape = [*arguments["grid"], *arguments["block"], arguments["device"]]
            kernels[json.dumps([event["name"], *shape])] += 1
            streams[str(arguments["stream"])] += 1
        elif category in ("gpu_memcpy", "gpu_memset"):
            others[category] += 1
    return {"total": sum(kernels.values()), "kernels": kernels, "streams": streams, **others}


def parse_plan(text: str) -> list[tuple[str, str, int, int]]:
    phases = []
    for phase in text.split(","):
        kind, mode, size = phase.split(":")
        rounds, steps = size.split("x")
        if kind not in ("idle", "window", "takeover", "kineto") or mode not in ("eager", "graph"):
            raise SystemExit(f"loop.py: bad phase `{phase}`, expected idle|window:eager|graph:ROUNDSxSTEPS")
        phases.append((kind, mode, int(rounds), int(steps)))
    return phases


def phases_asked() -> Iterator[tuple[str, str, int, int]]:
    print('{"ready": true}', flush=True)
    for line in sys.stdin:
        yield from parse_plan(line.strip())


class Loop:
    """Runs the phases and keeps what was launched."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.work = Work(arguments.kernels, arguments.copies)
        self.start, self.stop = profiler_calls("none" if arguments.torch_profiler else arguments.gate)
        self.progress = Progress(arguments.progress)
        self.launched = 0
        self.in_windows = 0

    def warm_up(self) -> None:
        for _ in range(3):
            self.work.eager()
        torch.cuda.synchronize()
        self.work.capture()
        for _ in range(3):
            self.work.step("graph")
        torch.cuda.synchronize()
        self.launched += 7 * self.arguments.kernels
        gc.disable()

    def round(self, mode: str, steps: int, window: bool, count: int) -> float:
        """The median step, in microseconds."""
        times = []
        for _ in range(steps):
            before = time.perf_counter_ns()
            self.work.step(mode)
            count += self.work.kernels_a_step(mode)
            if window:
                self.progress.put(8, self.in_windows + count)
            if not self.arguments.asynchronous:
                torch.cuda.synchronize()
                if window:
                    self.progress.put(24, self.in_windows + count)
            times.append(time.perf_counter_ns() - before)
        return round(statistics.median(times) / 1e3, 3)

    def phase(self, kind: str, mode: str, rounds: int, steps: int) -> dict:
        window = kind in ("window", "takeover")
        phase = {"kind": kind, "mode": mode, "steps": rounds * steps, "rounds_us": [], "start_ns": time.time_ns()}
        kineto = kineto_profiler() if kind == "kineto" or (window and self.arguments.torch_profiler) else None
        other = kineto_profiler() if kind == "takeover" else None
        if kineto:
            kineto.start()
        begin = time.perf_counter_ns()
        if window:
            self.start()
        phase["start_us"] = (time.perf_counter_ns() - begin) / 1e3
        count = 0
        if self.arguments.asynchronous:
            torch.cuda._sleep(20_000_000)  # about 10 ms of GPU: what follows queues up behind it
            count += 1
        for index in range(rounds):
            if other and index == rounds // 3:
                other.start()
            if other and index == 2 * rounds // 3:
                other.stop()
                phase["torch_kernels"] = kineto_counts(other)["total"]
            phase["rounds_us"].append(self.round(mode, steps, window, count))
            count += steps * self.work.kernels_a_step(mode)
        if self.arguments.asynchronous:
            torch.cuda._sleep(20_000_000)  # runs when the phase has ended
            count += 1
            phase["running_at_stop"] = not torch.cuda.current_stream().query()
        begin = time.perf_counter_ns()
        if window:
            self.stop()
        phase["stop_us"] = (time.perf_counter_ns() - begin) / 1e3
        if kineto:
            kineto.stop()
            phase["kineto"] = kineto_counts(kineto)
        phase["kernels"] = count
        self.launched += count
        self.in_windows += count if window else 0
        return phase


def kineto_profiler():
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", type=parse_plan)
    what.add_argument("--serve", action="store_true", help="take phases from stdin")
    parser.add_argument("--kernels", type=int, default=336)
    parser.add_argument("--copies", action="store_true", help="one memcpy and one memset a step as well")
    parser.add_argument("--gate", default="torch", choices=["torch", "ctypes", "cuda-python", "none"])
    parser.add_argument("--async", dest="asynchronous", action="store_true", help="wait for nothing, even at the stop")
    parser.add_argument("--torch-profiler", action="store_true", help="windows are torch.profiler's, and are listed")
    parser.add_argument("--progress", help="file of counts that outlive a SIGKILL")
    parser.add_argument("--end", default="exit", choices=["exit", "os-exit"], help="os-exit: after the last phase")
    parser.add_argument("--json", help="file for the last line, too")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    loop = Loop(arguments)
    loop.warm_up()
    phases = []
    for phase in arguments.plan or phases_asked():
        phases.append(loop.phase(*phase))
        if arguments.serve:
            print(json.dumps(phases[-1]), flush=True)
    if arguments.end == "exit":
        torch.cuda.synchronize()
    result = {
        "pid": os.getpid(),
        "per_step": arguments.kernels,
        "phases": phases,
        "kernels": loop.launched,
        "kernels_in_windows": loop.in_windows,
    }
    text = json.dumps(result)
    if arguments.json:
        Path(arguments.json).write_text(text)
    print(text, flush=True)
    if arguments.end == "os-exit":
        os._exit(0)


if __name__ == "__main__":
    main()
