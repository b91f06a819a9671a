"""A PyTorch module whose parts lie in NVTX ranges, launched and waited for as LLM decode is.

    ranged.py --record     windows of graph replays and of eager steps; says which ranges each kernel lies in
    ranged.py --serve      takes `MODE:STEPS`, one a line on stdin, and answers with the median of a step in us

Called by layers.py. Each operation is one kernel, all on one stream, so the order of the kernels is known.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.cuda import nvtx

LAYERS = 24
# Operations of a layer's parts; a kernel in none of them follows each layer.
PARTS = {"norm": 2, "attn": 6, "mlp": 5}
KERNELS = LAYERS * (sum(PARTS.values()) + 1)
RANGES_A_STEP = 24
PAIRS = 2_000
BIG_GRAPH = 2_500


@contextmanager
def in_range(name: str) -> Iterator[None]:
    nvtx.range_push(name)
    try:
        yield
    finally:
        nvtx.range_pop()


class Model:
    """Layers of one-kernel operations, and what they are called."""

    def __init__(self) -> None:
        device = torch.device("cuda")
        self.x = torch.ones(4096, device=device)
        self.half = torch.ones(4096, device=device, dtype=torch.float16)
        matrix = torch.ones(32, 128, device=device)
        sums, shares = torch.empty(32, device=device), torch.empty(32, 128, device=device)
        self.operations: list[Callable[[], object]] = [
            lambda: self.x.add_(0.001),
            lambda: self.x.tanh_(),
            lambda: self.half.copy_(self.x),
            lambda: torch.sum(matrix, 1, out=sums),
            lambda: torch.softmax(matrix, 1, out=shares),
        ]

    def run(self, count: int, first: int = 0) -> None:
        for index in range(first, first + count):
            self.operations[index % len(self.operations)]()

    def layer(self, number: int) -> None:
        with in_range(f"layers.{number}"):
            for part, count in PARTS.items():
                with in_range(part):
                    self.run(count)
        self.run(1)

    def forward(self) -> None:
        for number in range(LAYERS):
            self.layer(number)

    def run_in(self, ranges: int, kernels: int) -> None:
        """So many kernels in so many ranges that follow each other."""
        each = kernels // ranges if ranges else kernels
        for number in range(max(1, ranges)):
            if ranges:
                nvtx.range_push("part")
            self.run(each, number * each)
            if ranges:
                nvtx.range_pop()


def expected(outer: str) -> list[str]:
    """Path of each kernel of a forward pass; empty for none."""

    def within(path: str) -> str:
        return f"{outer}/{path}" if outer else path

    paths = []
    for number in range(LAYERS):
        for part, count in PARTS.items():
            paths += [within(f"layers.{number}/{part}")] * count
        paths.append(outer)
    return paths


def captured(*works: Callable[[], object]) -> list[torch.cuda.CUDAGraph]:
    """One graph for each."""
    graphs = []
    for work in works:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        graphs.append(graph)
    torch.cuda.synchronize()
    return graphs


def record() -> dict:
    """One window a way to launch, each of some steps."""
    model = Model()
    for _ in range(3):
        model.forward()
    torch.cuda.synchronize()
    layers = [lambda number=number: model.layer(number) for number in range(LAYERS)]
    with in_range("captured"):
        whole = captured(model.forward)
    pieces = captured(*layers)
    windows = []

    def window(way: str, steps: int, launch: Callable[[], object], paths: list[str], launched_in: str | None) -> None:
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStart()
        for _ in range(steps):
            with in_range("step"):
                launch()
            torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStop()
        windows.append({"way": way, "steps": steps, "paths": paths, "launched_in": launched_in})

    def replay(graphs: list[torch.cuda.CUDAGraph]) -> Callable[[], object]:
        return lambda: [graph.replay() for graph in graphs]

    window("one graph", 20, replay(whole), expected("captured"), "step")
    window("a graph a layer", 20, replay(pieces), expected(""), "step")
    window("eager", 20, model.forward, expected("step"), None)
    window("one graph again", 20, replay(whole), expected("captured"), "step")
    # Captured while CUPTI is attached, no window open; the pieces of before are gone.
    pieces = captured(*layers)
    window("graphs captured after a window", 20, replay(pieces), expected(""), "step")

    def capture_and_replay() -> None:
        replay(captured(model.forward))()

    window("captured in the window", 3, capture_and_replay, expected("step"), "step")
    return {"pid": os.getpid(), "windows": windows}


class Timed:
    """What is timed, by its name. Each gives microseconds."""

    def __init__(self) -> None:
        self.model = Model()
        self.side = torch.cuda.Stream()
        self.plain = captured(lambda: self.model.run_in(0, KERNELS))[0]
        # Its capture is in ranges, so that an armed process keeps them.
        self.ranged = captured(self.model.forward)[0]
        self.modes: dict[str, Callable[[], object]] = {
            "graph": self.ranged.replay,
            "graph, plain capture": self.plain.replay,
            "graph, 24 ranges": self.graph_in_ranges,
            "eager": lambda: self.model.run_in(0, KERNELS),
            "eager, 24 ranges": lambda: self.model.run_in(RANGES_A_STEP, KERNELS),
            "pair": self.pairs,
            "capture": lambda: self.capture(0),
            "capture, 500 ranges": lambda: self.capture(500),
        }

    def graph_in_ranges(self) -> None:
        for _ in range(RANGES_A_STEP - 1):
            nvtx.range_push("step")
            nvtx.range_pop()
        nvtx.range_push("step")
        self.ranged.replay()
        nvtx.range_pop()

    def pairs(self) -> None:
        push, pop = torch._C._nvtx.rangePushA, torch._C._nvtx.rangePop
        for _ in range(PAIRS):
            push("a range of some length")
            pop()

    def capture(self, ranges: int) -> None:
        """Begin, nodes, end and instantiation, without the collection of garbage that torch.cuda.graph begins with."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.side):
            graph.capture_begin()
            self.model.run_in(ranges, BIG_GRAPH)
            graph.capture_end()

    def block(self, mode: str, steps: int) -> float:
        step, times = self.modes[mode], []
        for _ in range(steps):
            before = time.perf_counter_ns()
            step()
            torch.cuda.synchronize()
            times.append(time.perf_counter_ns() - before)
        per = PAIRS if mode == "pair" else 1
        return statistics.median(times) / 1e3 / per


def serve() -> None:
    timed = Timed()
    gc.disable()
    print('{"ready": true}', flush=True)
    for line in sys.stdin:
        mode, _, steps = line.strip().rpartition(":")
        print(json.dumps({"us": timed.block(mode, int(steps))}), flush=True)
    print(json.dumps({"pid": os.getpid()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", action="store_true")
    what.add_argument("--serve", action="store_true")
    if parser.parse_args().serve:
        serve()
    else:
        print(json.dumps(record()), flush=True)


if __name__ == "__main__":
    main()
