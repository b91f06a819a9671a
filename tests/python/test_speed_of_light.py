"""`Session.speed_of_light` on a session in which each rule of `colonel analyze` finds something."""

from __future__ import annotations

import colonel
import matplotlib
import pytest
from recorded import ROOT, program
from test_layers import cargo_run

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program under test is the one on the PATH."""
    monkeypatch.setattr("colonel.program.find_program", program)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> colonel.Session:
    folder = tmp_path_factory.mktemp("sessions")
    return colonel.open(cargo_run("--example", "synthetic_bottlenecks", "--", str(folder)).strip())


def test_figures_come_by_kernel_and_metric(session: colonel.Session) -> None:
    speed = session.speed_of_light()
    assert len(speed.devices) == 1
    table = speed.table()
    assert table.num_rows == len(speed.rows) == 2 * len(speed.devices[0]["kernels"])
    product = [row for row in speed.rows if row["name"] == "gemm_1_2_waves" and row["metric"] == "dram_throughput"]
    assert len(product) == 1
    assert product[0]["low"] <= 81 <= product[0]["high"]
    assert (product[0]["bound"], product[0]["trust"]) == ("memory", "good")
    rare = [row for row in speed.rows if row["short_name"] == "spin"]
    assert {row["trust"] for row in rare} == {"few_samples"}
    assert all(row["value"] is None for row in rare)
    assert "1 devices" in repr(speed)


def test_a_window_that_is_not_there_is_said(session: colonel.Session) -> None:
    with pytest.raises(colonel.ColonelError):
        session.speed_of_light(window="nonsense")


def test_a_roofline_has_each_kernel_with_figures(session: colonel.Session) -> None:
    ax = session.plot.roofline()
    kernels = session.speed_of_light().devices[0]["kernels"]
    told = [kernel for kernel in kernels if kernel["roofline"]]
    assert 0 < len(told) < len(kernels)
    points = [tuple(point) for point in ax.collections[0].get_offsets().tolist()]
    assert points == [(kernel["roofline"]["memory_pct"], kernel["roofline"]["compute_pct"]) for kernel in told]
    sizes = ax.collections[0].get_sizes().tolist()
    assert sizes == sorted(sizes, reverse=True), "the longest in total is the largest"
    legend = ax.get_legend()
    assert legend
    assert legend.get_texts()[0].get_text() == "1  gemm_1_2_waves: memory"
    assert [text.get_text() for text in ax.texts] == [str(number + 1) for number in range(len(told))]
    assert ax.get_title(loc="left").endswith(f"{len(told)} kernels; {len(kernels) - len(told)} can't be told")
    assert ax.get_xlabel() == "device memory, % of 3350 GB/s"


def test_a_roofline_needs_counters(session: colonel.Session) -> None:
    without = colonel.open(ROOT / "demos" / "sessions" / "bcf20ce5")
    with pytest.raises(colonel.SessionReadError, match="--counters"):
        without.plot.roofline()
    with pytest.raises(colonel.ColonelError, match="`device` is 0 to 0, not 3"):
        session.plot.roofline(device=3)
