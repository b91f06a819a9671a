"""What the mouse meets on the timeline of a report, in headless Chromium: skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from recorded import ROOT, program

sys.path.insert(0, str(ROOT / "benches/reading"))

from timeline import WATCH, WHEN_DRAWN, Page, step

SESSION = ROOT / "demos/sessions/0eba63cf"
TOOLTIP = "[...document.querySelectorAll('#timeline div')].map((element) => element.innerText).find(Boolean) ?? ''"

pytestmark = pytest.mark.skipif(not shutil.which(os.environ.get("CHROMIUM", "chromium")), reason="there is no Chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder: Path = tmp_path_factory.mktemp("timeline")
    file = folder / "page.html"
    subprocess.run([program(), "report", str(SESSION), "-o", str(file)], check=True, capture_output=True)
    with closing(Page(str(folder / "chromium"))) as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WHEN_DRAWN)
        page.call("Page.navigate", url=f"file://{file}")
        deadline = time.monotonic() + 60
        while not page.ask("window.drawnAt"):
            assert time.monotonic() < deadline, "the timeline was not drawn"
            time.sleep(0.1)
        page.ask(WATCH)
        yield page


def point(page: Page, time_ns: int, lane: int) -> tuple[float, float]:
    """Where a time of a lane is in the window."""
    x, y = page.ask(
        f"""(() => {{
          const element = document.getElementById("timeline"), {{ left, top }} = element.getBoundingClientRect();
          const chart = echarts.getInstanceByDom(element);
          const [x, y] = chart.convertToPixel({{ gridIndex: 0 }}, [{time_ns}, {lane}]);
          return [left + x, top + y];
        }})()"""
    )
    return x, y


def move(page: Page, x: float, y: float) -> None:
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    time.sleep(0.5)


def test_pointing_at_a_box_leaves_its_lane_as_it_was(page: Page) -> None:
    x, y = point(page, 300_000_000, 0)
    aside = {"x": x - 500, "y": page.ask("scrollY") + y - 8, "width": 300, "height": 16, "scale": 1}
    move(page, 1, 1)
    before = page.call("Page.captureScreenshot", clip=aside)["data"]
    move(page, x, y)
    assert page.ask(TOOLTIP)
    assert page.call("Page.captureScreenshot", clip=aside)["data"] == before


def test_each_box_says_what_it_is(page: Page) -> None:
    tables = ("kernels", "memcpys", "memsets", "nvtx_ranges")
    starts = " UNION ALL ".join(f"SELECT start_ns FROM '{SESSION}/{table}/**/*.parquet'" for table in tables)
    ranges = duckdb.sql(
        f"SELECT name, depth, ((start_ns + end_ns) // 2 - (SELECT min(start_ns) FROM ({starts})))::BIGINT "
        f"FROM '{SESSION}/nvtx_ranges/**/*.parquet' WHERE depth < 2 ORDER BY end_ns - start_ns DESC LIMIT 12"
    ).fetchall()
    for name, depth, middle in ranges:
        move(page, *point(page, middle, depth))
        lane, said, *_ = page.ask(TOOLTIP).split("\n")
        assert (lane.split(",")[0], said) == (f"NVTX {depth}", name)


def test_texts_stay_with_their_boxes(page: Page) -> None:
    x, y = point(page, 220_000_000, 3)
    for _ in range(4):
        step(page, *[("mouseWheel", x, y, {"deltaX": 0, "deltaY": -120})] * 8)
    with_text = """(() => {
      const boxes = [];
      const add = (box) => box.type === "rect" && box.getTextContent() && boxes.push(box.shape.width);
      const chart = echarts.getInstanceByDom(document.getElementById("timeline"));
      chart.getZr().storage.getRoots().forEach((root) => root.traverse?.(add));
      return boxes;
    })()"""
    widths = page.ask(with_text)
    assert widths
    assert min(widths) > 46
