"""Ranges of the real `nvtx` package, whose own loader finds the guest, in a Python program under gpu-sim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as parquet
from recorded import Run

ColonelRun = Callable[..., Run]

SCRIPT = """
import nvtx
from vllm.gpu import Gpu
from vllm.kernels import RMS_NORM

def launch(count):
    for _ in range(count):
        gpu.launch(RMS_NORM, 1)

with nvtx.annotate("before CUDA"):
    gpu = Gpu(0)
launch(1)

@nvtx.annotate(domain="model", category="block")
def layer():
    launch(3)

for step in range(4):
    with nvtx.annotate(f"step {step}", payload=step):
        layer()
        nvtx.push_range("sampling")
        launch(2)
        nvtx.pop_range()
        nvtx.mark("done", category="note")
shared = nvtx.start_range("shared", color="blue")
launch(5)
nvtx.end_range(shared)
gpu.synchronize()
print(gpu.launched)
"""


def rows(run: Run, table: str) -> list[dict]:
    return parquet.read_table(Path(run.session) / table).to_pylist()


def test_annotated_python(colonel_run: ColonelRun) -> None:
    run = colonel_run(SCRIPT, "--trace", "nvtx")
    assert run.summary["lost"] == 0
    kernels = Counter(kernel["nvtx_path"] for kernel in rows(run, "kernels"))
    expected: dict[str | None, int] = {None: 1, "shared": 5}
    for step in range(4):
        expected |= {f"step {step}/layer": 3, f"step {step}/sampling": 2}
    assert kernels == expected
    assert sum(kernels.values()) == run.told
    ranges = {(row["kind"], row["path"]): row for row in rows(run, "nvtx_ranges")}
    assert ranges["push_pop", "step 3"]["payload"] == "3"
    layer = ranges["push_pop", "step 0/layer"]
    assert (layer["domain"], layer["category"], layer["depth"]) == ("model", "block", 1)
    assert ranges["mark", "step 0/done"]["category"] == "note"
    assert ranges["start_end", "shared"]["end_ns"] > ranges["start_end", "shared"]["start_ns"]
    assert ("push_pop", "before CUDA") in ranges, "it was open as the window opened"


def test_ranges_open_windows(colonel_run: ColonelRun) -> None:
    run = colonel_run(SCRIPT, "--gate", "nvtx:step [12]")
    assert rows_of_windows(run) == []
    run = colonel_run(SCRIPT, "--gate", "nvtx:step ?")
    assert rows_of_windows(run) == [(f"step {step}", 5) for step in range(4)]
    run = colonel_run(SCRIPT, "--gate", "nvtx:lay*@mod*")
    assert rows_of_windows(run) == [("layer", 3)] * 4


def rows_of_windows(run: Run) -> list[tuple[str, int]]:
    if not (run.session / "windows").exists():
        return []
    kernels = Counter(kernel["window"] for kernel in rows(run, "kernels"))
    windows = sorted(rows(run, "windows"), key=lambda row: row["window"])
    return [(window["name"], kernels[window["window"]]) for window in windows]


def test_a_program_alone_is_as_before(colonel_run: ColonelRun) -> None:
    script = "import nvtx\nwith nvtx.annotate('a'):\n    print(nvtx.enabled())"
    run = colonel_run(script)
    assert run.stdout == "True\n"
    assert "no process of this command initialised CUDA" in run.stderr
