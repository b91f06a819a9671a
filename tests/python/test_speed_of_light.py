"""`Session.speed_of_light` on a session in which each rule of `colonel analyze` finds something."""

from __future__ import annotations

import colonel
import pytest
from recorded import program
from test_layers import cargo_run


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
