"""What Python shows of a session: pictures, summaries and tables, equal to what DuckDB says of the same files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import colonel
import duckdb
import matplotlib
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from colonel.lanes import CELLS, Lane
from colonel.plots import Plots
from matplotlib.axes import Axes
from matplotlib.text import Text
from recorded import ROOT, program

matplotlib.use("Agg")

SESSION = ROOT / "demos" / "sessions" / "bcf20ce5"
KERNELS = f"'{SESSION}/kernels/**/*.parquet'"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program under test is the one on the PATH."""
    monkeypatch.setattr("colonel.program.find_program", program)


@pytest.fixture
def session() -> colonel.Session:
    return colonel.open(SESSION)


def boxes(ax: Axes) -> list[tuple[float, float, float]]:
    """Left, right and middle of what is drawn in lanes, in ms."""
    extents = [path.get_extents() for lane in ax.collections for path in lane.get_paths()]
    return [(extent.x0, extent.x1, (extent.y0 + extent.y1) / 2) for extent in extents]


def test_bars_are_the_kernels_times(session: colonel.Session) -> None:
    ax = session.plot.kernels(limit=5)
    rows = duckdb.sql(
        f"SELECT name, sum(end_ns - start_ns)::BIGINT AS ns, count(*) FROM {KERNELS} GROUP BY name ORDER BY ns DESC"
    ).fetchall()
    assert [bar.get_width() for bar in ax.patches] == [pytest.approx(ns / 1e6) for _, ns, _ in rows[:5]]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == rows[0][0]
    in_all = sum(ns for _, ns, _ in rows)
    assert ax.texts[0].get_text().strip() == f"{100 * rows[0][1] / in_all:.1f} %, {rows[0][2]} launches"
    assert "44 kernels" in ax.get_title(loc="left")


def test_a_timeline_covers_exactly_when_something_ran(session: colonel.Session) -> None:
    ax = session.plot.timeline()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-2:] == ["GPU 0, stream 7", "GPU 0, copies"]
    ended = f"'{SESSION}/nvtx_ranges/**/*.parquet' WHERE end_ns IS NOT NULL"
    zero, depths = duckdb.sql(f"SELECT min(start_ns), count(DISTINCT depth) FROM {ended}").fetchall()[0]
    assert len(labels) == depths + 2
    first, last = duckdb.sql(f"SELECT min(start_ns), max(end_ns) FROM {KERNELS}").fetchall()[0]
    stream = [box for box in boxes(ax) if round(box[2]) == len(labels) - 2]
    assert 0 < len(stream) <= CELLS
    assert stream[0][0] == pytest.approx((first - zero) / 1e6)
    assert stream[-1][1] == pytest.approx((last - zero) / 1e6)


def test_a_timeline_zoomed_in_has_each_kernel(session: colonel.Session) -> None:
    start, end = 80.0, 81.0
    ax = session.plot.timeline((start, end))
    assert ax.get_xlim() == (start, end)
    zero = duckdb.sql(f"SELECT min(start_ns) FROM '{SESSION}/nvtx_ranges/**/*.parquet'").fetchall()[0][0]
    seen = f"end_ns > {zero} + {int(start * 1e6)} AND start_ns < {zero} + {int(end * 1e6)}"
    rows = duckdb.sql(f"SELECT start_ns, end_ns FROM {KERNELS} WHERE {seen} ORDER BY start_ns").fetchall()
    stream = len(ax.get_yticklabels()) - 2
    drawn = [(left, right) for left, right, y in boxes(ax) if round(y) == stream]
    assert len(rows) > 100
    assert drawn == [(pytest.approx((a - zero) / 1e6), pytest.approx((b - zero) / 1e6)) for a, b in rows]


def test_many_become_few_boxes_that_keep_the_ends_and_the_longest() -> None:
    count = 100_000
    starts = np.arange(count, dtype=np.int64) * 100
    lengths = np.where(np.arange(count) % 10 == 3, 60, 5).astype(np.int64)
    names = np.where(lengths == 60, "long", "short").astype(object)
    drawn = Lane("stream", False, starts, starts + lengths, names).boxes(0, count * 100)
    assert len(drawn.start_ns) == CELLS
    assert set(drawn.names) == {"long"}
    assert (drawn.start_ns[0], drawn.end_ns[-1]) == (0, starts[-1] + lengths[-1])
    assert (np.diff(drawn.start_ns) > 0).all()
    assert len(Lane("none", False, starts[:0], starts[:0], names[:0]).boxes(0, 1).start_ns) == 0


class OfOneKernel:
    """As much of a session as pictures ask for."""

    id = "5e27fc0e"
    tables = ("kernels",)

    def __init__(self, name: str, end_ns: int) -> None:
        row = {"pid": 7, "device_id": 0, "stream_id": 7, "name": name, "start_ns": 5, "end_ns": end_ns}
        self.rows = pa.Table.from_pylist([row, row])

    def table(self, _name: str, columns: list[str], **_only: object) -> pa.Table:
        return self.rows.select(columns)

    def kernels(self, columns: list[str], **_only: object) -> pa.Table:
        return self.rows.select(columns)


@pytest.mark.parametrize(("name", "end_ns"), [("f(int)::$_0::operator()::$_1", 9), ("a mark", 5)])
def test_a_name_is_no_formula_and_an_instant_has_a_picture(name: str, end_ns: int) -> None:
    plots = Plots(cast("colonel.Session", OfOneKernel(name, end_ns)))
    for draw in (plots.kernels, plots.timeline):
        ax = draw()
        assert ax.figure is not None
        ax.figure.canvas.draw()
        texts = ax.findobj(Text)
        assert name in [text.get_text() for text in texts]
        assert not any(text.get_parse_math() for text in texts)


def test_what_can_not_be_drawn_says_why(session: colonel.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(colonel.ColonelError, match="`between` is two times in ms, the earlier first"):
        session.plot.timeline((9, 3))
    with pytest.raises(colonel.SessionReadError, match="has no window `nope`"):
        session.plot.kernels(window="nope")
    with pytest.raises(colonel.SessionReadError, match="has no kernels to draw"):
        session.plot.kernels(pid=1)
    with pytest.raises(colonel.SessionReadError, match="has nothing to draw"):
        session.plot.timeline(pid=1)
    monkeypatch.delitem(sys.modules, "colonel.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(colonel.ColonelError, match=r"pip install matplotlib"):
        _ = session.plot


@pytest.mark.parametrize(
    ("by", "rows", "word"), [("kernel", 44, "360"), ("phase", 2, "decode"), ("step", 4, "batch 4")]
)
def test_a_summary_is_a_table(session: colonel.Session, by: str, rows: int, word: str) -> None:
    summary = session.summary(by)
    assert repr(summary) == f"colonel.Summary(bcf20ce5, by {by}: 5,266 kernels, 19.07 ms of GPU time)"
    assert len(summary.rows) == summary.table().num_rows == rows
    page = summary._repr_html_()
    assert page.count("<tr>") == 1 + min(rows, 20)
    assert word in page
    assert "<void" not in page, "names are escaped"


def test_layers_and_ranges_have_every_kernel(session: colonel.Session) -> None:
    in_all = session.summary().figures["kernel_count"]
    ranges = session.summary("nvtx", window="decode").table()
    assert sum(ranges["own_kernels"].to_pylist()) == in_all
    own = dict(zip(ranges["nvtx_path"].to_pylist(), ranges["own_ns"].to_pylist(), strict=True))
    # The ranges of the launch, and within them those of the capture.
    path = "nullif(concat_ws('/', nullif(launch_nvtx_path, nvtx_path), nvtx_path), '')"
    rows = duckdb.sql(f"SELECT {path}, sum(end_ns - start_ns)::BIGINT FROM {KERNELS} GROUP BY 1").fetchall()
    assert {path: ns for path, ns in own.items() if ns} == dict(rows)
    layers = session.summary("layer").table()
    assert {"phase", "batch", "per_step_median_ns", "slowest_name"} <= set(layers.column_names)


def test_what_can_not_be_summed_up_says_why(session: colonel.Session) -> None:
    with pytest.raises(colonel.ColonelError, match="`by` is one of kernel, layer, step, phase, nvtx, not `grid`"):
        session.summary("grid")
    with pytest.raises(colonel.ColonelError, match="has no window `nope`"):
        session.summary(window="nope")


def test_tables_as_polars_and_pandas_have_them(session: colonel.Session) -> None:
    length = (pl.col("end_ns") - pl.col("start_ns")).sum()
    by_name = session.lazy("kernels").group_by("name").agg(length.alias("ns")).collect()
    rows = duckdb.sql(f"SELECT name, sum(end_ns - start_ns)::BIGINT FROM {KERNELS} GROUP BY name").fetchall()
    assert {str(name): ns for name, ns in by_name.iter_rows()} == dict(rows)
    frame = session.pandas("kernels", ["name", "start_ns", "end_ns"], window="decode")
    sums = (frame["end_ns"] - frame["start_ns"]).groupby(frame["name"], observed=True).sum()
    assert sums.to_dict() == dict(rows)
    with pytest.raises(colonel.SessionReadError, match="no table `counters`"):
        session.lazy("counters")


def test_a_session_in_a_notebook(session: colonel.Session, tmp_path: Path) -> None:
    page = session._repr_html_()
    for text in ("bcf20ce5", "NVIDIA H100 80GB HBM3", "vllm 0.26.0", "1 (decode)", "5,266 kernels"):
        assert text in page
    empty = tmp_path / "0000aaaa"
    empty.mkdir()
    (empty / "session.json").write_text('{"id": "0000aaaa", "command": ["<b>"]}')
    assert "&lt;b&gt;" in colonel.open(empty)._repr_html_()
