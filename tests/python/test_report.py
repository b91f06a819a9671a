"""The figures on the page of `colonel report` are what DuckDB says, on the sessions of an H100 in demos/sessions."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from recorded import ROOT, program
from test_layers import cut_steps

SESSIONS = ROOT / "demos" / "sessions"
KERNELS = 15
"""In a chart; the rest is one bar."""
BARS_AN_OCTAVE = 4
"""Bar `b` of a histogram begins at 2^(b/4) ns."""


@dataclass(frozen=True)
class Report:
    folder: Path
    text: str

    @property
    def data(self) -> dict[str, Any]:
        script = re.search(r'type="application/json">(.*?)</script>', self.text, re.DOTALL)
        assert script is not None
        data: dict[str, Any] = json.loads(script[1])
        return data

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer, where `k` stands for the kernels."""
        return duckdb.sql(f"WITH k AS (SELECT *, end_ns - start_ns AS d FROM {self.table('kernels')}) {sql}").fetchall()

    def table(self, name: str) -> str:
        return f"'{self.folder}/{name}/**/*.parquet'"


@pytest.fixture(scope="module", params=sorted(path.name for path in SESSIONS.iterdir()))
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    page = tmp_path_factory.mktemp("report") / "page.html"
    folder = SESSIONS / request.param
    subprocess.run([program(), "report", str(folder), "-o", str(page)], check=True, capture_output=True)
    return Report(folder, page.read_text())


def series(report: Report, chart: str, number: int = 0) -> list[Any]:
    values: list[Any] = report.data["charts"][chart]["series"][number]["data"]
    return values


def test_kernels(report: Report) -> None:
    rows = report.ask(
        "SELECT name, count(*), sum(d)::BIGINT AS ns FROM k GROUP BY name ORDER BY ns DESC, count(*) DESC"
    )
    totals = [ns for _, _, ns in rows]
    assert series(report, "kernels") == [*totals[:KERNELS], sum(totals[KERNELS:])]
    assert report.data["charts"]["kernels"]["yAxis"]["data"][-1] == f"{len(rows) - KERNELS} more"
    table = report.text.split('id="kernel-table"')[1].split("</table>")[0]
    cells = re.findall(r'<tr><td class="number">([^<]*)</td><td class="number">([\d,]+)</td>.*?title="([^"]*)"', table)
    found = [(html.unescape(share), int(count.replace(",", "")), html.unescape(name)) for share, count, name in cells]
    in_all = sum(totals)
    words = ["<0.1 %" if ns / in_all < 0.0005 else f"{100 * ns / in_all:.1f} %" for ns in totals]
    assert found == [(word, count, name) for word, (name, count, _) in zip(words, rows[:50], strict=False)]
    tiles = re.findall(r"<div><b>([^<]*)</b><span>([^<]*)</span></div>", report.text)
    assert (f"{sum(count for _, count, _ in rows):,}", "kernels") in tiles


def test_streams(report: Report) -> None:
    rows = report.ask("SELECT sum(d)::BIGINT AS ns FROM k GROUP BY pid, device_id, stream_id ORDER BY ns DESC")
    assert series(report, "streams") == [ns for (ns,) in rows]


def test_waits_by_length(report: Report) -> None:
    rows = report.ask(f"""
        , gaps AS (
            SELECT start_ns - max(end_ns) OVER (PARTITION BY pid, device_id ORDER BY start_ns
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gap FROM k
        )
        SELECT floor(log2(gap) * {BARS_AN_OCTAVE})::INT AS bar, count(*), sum(gap)::BIGINT
        FROM gaps WHERE gap > 0 GROUP BY bar ORDER BY bar
    """)
    chart = report.data["charts"]["waits"]
    starts = [2 ** (bar / BARS_AN_OCTAVE) for bar in range(rows[0][0], rows[-1][0] + 1)]
    assert chart["xAxis"]["data"] == pytest.approx(starts)
    found = zip(chart["counts"], series(report, "waits"), strict=True)
    assert [(count, ns) for count, ns in found if count] == [row[1:] for row in rows]


def test_durations(report: Report) -> None:
    rows = report.ask(f"""
        , names AS (
            SELECT name, row_number() OVER (ORDER BY sum(d) DESC, count(*) DESC) - 1 AS place FROM k GROUP BY name
        )
        SELECT place, floor(log2(d) * {BARS_AN_OCTAVE})::INT AS bar, count(*) FROM k JOIN names USING (name)
        WHERE place < {KERNELS} GROUP BY ALL
    """)
    first = min(bar for _, bar, _ in rows)
    found = {(place, bar + first): count for bar, place, _, count in series(report, "durations")}
    assert found == {(place, bar): count for place, bar, count in rows}


def test_waves_and_occupancy(report: Report) -> None:
    rows = report.ask("""
        SELECT avg(waves), avg(theoretical_occupancy_pct), sum(d) / (SELECT sum(d) FROM k) AS share
        FROM k GROUP BY name ORDER BY share DESC, count(*) DESC LIMIT 60
    """)
    found = [point[:3] for point in series(report, "waves")]
    assert found == [pytest.approx(list(row), rel=1e-9) for row in rows]


def test_steps_and_layers(report: Report) -> None:
    db = cut_steps(str(report.folder))
    rows = db.sql(
        "SELECT min(start_ns) - (SELECT min(start_ns) FROM k), length FROM k JOIN steps USING (step) "
        "GROUP BY step, length ORDER BY 1"
    ).fetchall()
    assert series(report, "steps") == [list(row) for row in rows]
    busy = db.sql(
        "SELECT busy FROM steps JOIN (SELECT step, min(start_ns) AS t FROM k GROUP BY step) USING (step) ORDER BY t"
    ).fetchall()
    assert [ns for _, ns in series(report, "steps", 1)] == [ns for (ns,) in busy]
    layers = db.sql(
        "SELECT layer, sum(d)::BIGINT // 14 FROM k JOIN steps USING (step) "
        "WHERE phase = 'decode' AND batch = 4 AND layer = 0 GROUP BY layer"
    ).fetchall()
    chart = report.data["charts"]["layers0"]
    found = dict(zip(chart["yAxis"]["data"], chart["series"][0]["data"], strict=True))
    assert found["layer 0"] == layers[0][1]


def numbers(packed: bytes) -> Iterator[int]:
    """LEB128."""
    value, shift = 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value, shift = 0, 0


def test_the_timeline_has_every_kernel(report: Report) -> None:
    timeline = report.data["timeline"]
    found = numbers(gzip.decompress(base64.b64decode(timeline["spans"])))
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for lane in timeline["lanes"]:
        end, of_lane = 0, []
        for _ in range(lane["spans"]):
            wait, length, name, more, idle = (next(found) for _ in range(5))
            start = end + (wait >> 1 ^ -(wait & 1))
            end = start + length
            assert (more, idle) == (0, 0), "nothing is merged in so small a session"
            of_lane.append((start, length, timeline["names"][name]))
        spans[lane["label"]] = of_lane
    assert next(found, None) is None
    first = report.ask(f"""SELECT min(start_ns) FROM (
        SELECT start_ns FROM k UNION ALL SELECT start_ns FROM {report.table("memcpys")}
        UNION ALL SELECT start_ns FROM {report.table("memsets")})""")[0][0]
    streams = report.ask("SELECT DISTINCT stream_id FROM k")
    for (stream,) in streams:
        rows = report.ask(f"SELECT start_ns - {first}, d FROM k WHERE stream_id = {stream} ORDER BY start_ns")
        assert [span[:2] for span in spans[f"stream {stream}"]] == rows
    copies = report.ask(f"""
        SELECT start_ns - {first}, end_ns - start_ns, 'copy ' || copy_kind FROM {report.table("memcpys")} UNION ALL
        SELECT start_ns - {first}, end_ns - start_ns, 'fill ' || memory_kind FROM {report.table("memsets")}
    """)
    assert sorted(spans["copies"]) == sorted(copies)
    ranges = report.ask(f"SELECT count(*) FROM {report.table('nvtx_ranges')} WHERE end_ns IS NOT NULL")
    assert sum(len(of) for label, of in spans.items() if label.startswith("NVTX")) == ranges[0][0]
