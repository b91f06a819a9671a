"""Whether the timeline of a report stays smooth: zooms and drags it in headless Chromium, as a mouse would.

    python benches/reading/timeline.py COLONEL SESSION [--repeat N] > timeline.json

`--repeat N` lays the session N times one behind the other first: 190 times one of demos/sessions is a million kernels
of a real model with their NVTX ranges (needs pyarrow). Chromium is spoken to through a pipe, by the DevTools protocol.
Of each zoom and pan it is told

- `busy_ms`: how long the page's main thread worked (`idle_ms`: as long without an event),
- `shown_ms`: how long it took from the event until the last drawing for it was done, waits for frames included,
- `longest_gap_ms`: the longest time between two frames on the way.

Then the mouse drags without a stop, and the times between frames are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import Any

WIDTH, HEIGHT = 1280, 800
ZOOMS_EACH_WAY = 25
DEPTHS, PANS_EACH = 5, 10
NOTCH = 120
"""Chromium's units of a wheel's notch, of which ECharts zooms by 1.1."""
MORE_NOTCHES = 3
"""Turned behind each that is measured, so that 25 zooms lead from seconds to microseconds."""
DRAG_S = 3.0
FRAME_S = 1 / 60

WHEN_DRAWN = """
addEventListener("DOMContentLoaded", () => {
  const shown = () => requestAnimationFrame(() => setTimeout(() => { window.drawnAt = performance.now(); }));
  const seen = () => document.body.dataset.drawn && shown();
  new MutationObserver(seen).observe(document.body, { attributes: true });
});
"""
WATCH = """
(() => {
  const element = document.getElementById("timeline");
  const chart = echarts.getInstanceByDom(element);
  let began, rendered, frames = [];
  const begin = () => { began ??= performance.now(); };
  element.addEventListener("wheel", begin, true);
  element.addEventListener("mousemove", (event) => event.buttons && begin(), true);
  chart.on("rendered", () => { rendered = performance.now(); });
  const frame = (now) => { frames.push(now); requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  const gaps = () => frames.slice(1).map((now, i) => now - frames[i]);
  window.ready = () => { began = rendered = undefined; frames = []; };
  window.nothing = () => { began = rendered = performance.now(); };
  window.gaps = gaps;
  // When nothing was drawn for a while, the drawing is done.
  window.settled = async () => {
    do await new Promise((then) => setTimeout(then, 20));
    while (rendered === undefined || performance.now() - rendered < 120);
    const { startValue, endValue } = chart.getOption().dataZoom[0];
    return { shown_ms: rendered - began, longest_gap_ms: Math.max(...gaps()),
             span_ns: endValue - startValue, shapes: chart.getZr().storage.getDisplayList().length };
  };
  const box = element.getBoundingClientRect();
  scrollTo(0, scrollY + box.top - 20);
  const { left, top, width, height } = element.getBoundingClientRect();
  const grid = chart.getModel().getComponent("grid").coordinateSystem.getRect();
  return { x: left + grid.x, y: top + grid.y, width: grid.width, height: Math.min(grid.height, innerHeight - top) };
})()
"""


class Page:
    """A page in headless Chromium, driven by the DevTools protocol over a pipe."""

    def __init__(self, folder: str) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--enable-precise-memory-info", f"--user-data-dir={folder}", f"--window-size={WIDTH},{HEIGHT}"]
        # Chromium reads from 3 and writes to 4.
        started = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        command = ["bash", "-c", started, os.environ.get("CHROMIUM", "chromium"), *options, "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self._rest, self._id, self._session = b"", 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Performance"):
            self.call(f"{domain}.enable")

    def send(self, method: str, of_browser: bool = False, **params: Any) -> int:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session and not of_browser:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._id

    def call(self, method: str, of_browser: bool = False, **params: Any) -> Any:
        asked = self.send(method, of_browser, **params)
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._read, 1 << 20)
                if not read:
                    sys.exit("Chromium ended; is it installed? CHROMIUM names another")
                self._rest += read
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == asked:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]

    def ask(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"the page: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **params: Any) -> int:
        return self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def busy_ms(self) -> float:
        """Of the main thread, so far."""
        metrics = {metric["name"]: metric["value"] for metric in self.call("Performance.getMetrics")["metrics"]}
        return 1000 * float(metrics["TaskDuration"])

    def memory(self) -> dict[str, float]:
        """MiB of JavaScript's heap, and the most that the renderer, which also has arrays of numbers, had resident."""
        heap = self.ask("performance.memory.usedJSHeapSize")
        processes = self.call("SystemInfo.getProcessInfo", of_browser=True)["processInfo"]
        pid = max((p for p in processes if p["type"] == "renderer"), key=lambda p: p["cpuTime"])["id"]
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        most = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        return {"js_heap_mib": round(heap / 2**20, 1), "renderer_most_mib": round(most / 1024)}

    def close(self) -> None:
        self.send("Browser.close", of_browser=True)
        self._process.wait(timeout=30)


def step(page: Page, *events: tuple[str, float, float, dict[str, Any]]) -> dict[str, float]:
    """What the page did for the events, when it had drawn for them."""
    page.ask("ready()")
    before = page.busy_ms()
    for kind, x, y, params in events:
        page.mouse(kind, x, y, **params)
    if not events:
        page.ask("nothing()")
    seen: dict[str, float] = page.ask("settled()")
    return {"busy_ms": round(page.busy_ms() - before, 1)} | {key: round(value, 1) for key, value in seen.items()}


def zooms(page: Page, x: float, y: float, turns: int, towards: int) -> list[dict[str, float]]:
    wheel = ("mouseWheel", x, y, {"deltaX": 0, "deltaY": towards * NOTCH})
    found = []
    for _ in range(turns):
        found.append(step(page, wheel))
        step(page, *[wheel] * MORE_NOTCHES)
    return found


def pans(page: Page, x: float, y: float, by: float) -> list[dict[str, float]]:
    """Drags to the left and back again, in pieces."""
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    found = []
    for piece in range(1, PANS_EACH + 1):
        far = min(piece, PANS_EACH - piece) * by
        found.append(step(page, ("mouseMoved", x - far, y, {"button": "left", "buttons": 1})))
    page.mouse("mouseReleased", x, y, button="left", buttons=0, clickCount=1)
    return found


def drag(page: Page, x: float, y: float, width: float) -> list[float]:
    """Milliseconds between frames while the mouse goes to and fro, a move a frame."""
    page.ask("ready()")
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    begin = time.perf_counter()
    moves = int(DRAG_S / FRAME_S)
    for move in range(moves):
        there = 2 * abs((move / moves * 4) % 1 - 0.5)
        page.mouse("mouseMoved", x - there * width, y, button="left", buttons=1)
        time.sleep(max(0, begin + (move + 1) * FRAME_S - time.perf_counter()))
    gaps: list[float] = page.ask("gaps()")
    page.mouse("mouseReleased", x, y, button="left", buttons=0, clickCount=1)
    return gaps


def of(values: list[float]) -> dict[str, float]:
    return {
        "n": len(values),
        "median": round(median(values), 1),
        "p95": round(quantiles(values, n=20, method="inclusive")[-1], 1),
        "longest": round(max(values), 1),
    }


def steps(found: list[dict[str, float]]) -> dict[str, Any]:
    columns = ("busy_ms", "shown_ms", "longest_gap_ms")
    return {column: of([one[column] for one in found]) for column in columns} | {"each": found}


def of_page(file: str, folder: str) -> dict[str, Any]:
    with closing(Page(folder)) as page:
        return of_opened(page, file)


def of_opened(page: Page, file: str) -> dict[str, Any]:
    version = page.call("Browser.getVersion", of_browser=True)["product"]
    page.call("Page.addScriptToEvaluateOnNewDocument", source=WHEN_DRAWN)
    page.call("Page.navigate", url=f"file://{file}")
    while not page.ask("window.drawnAt"):
        time.sleep(0.1)
    found: dict[str, Any] = {"chromium": version, "load_ms": round(page.ask("drawnAt")), "loaded": page.memory()}
    grid = page.ask(WATCH)
    x, y = grid["x"] + 0.6 * grid["width"], grid["y"] + 0.5 * grid["height"]
    page.ask("new Promise((then) => setTimeout(then, 1000))")

    found["idle_ms"] = of([step(page)["busy_ms"] for _ in range(10)])
    zoomed = zooms(page, x, y, ZOOMS_EACH_WAY, -1) + zooms(page, x, y, ZOOMS_EACH_WAY, 1)
    panned, dragged = [], []
    for _ in range(DEPTHS):
        zooms(page, x, y, ZOOMS_EACH_WAY // DEPTHS, -1)
        panned += pans(page, x, y, grid["width"] / 25)
        dragged += drag(page, x, y, grid["width"] / 3)
    found |= {"zoom": steps(zoomed), "pan": steps(panned), "frames_while_dragging_ms": of(dragged)}
    found["at_the_end"] = page.memory()
    return found


def repeated(session: Path, times: int, folder: str) -> Path:
    """The session, `times` times one behind the other, in one window."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    copy = Path(shutil.copytree(session, Path(folder) / session.name))
    (windows,) = copy.glob("windows/*/*.parquet")
    (window,) = pq.read_table(windows).to_pylist()
    length = window["end_ns"] - window["start_ns"] + 1_000_000
    rows = {}
    for file in copy.glob("*/*/*.parquet"):
        table = pq.read_table(file)
        if file == windows:
            ends = pc.add(table["end_ns"], length * (times - 1)).cast(table.schema.field("end_ns").type)
            table = table.set_column(table.schema.get_field_index("end_ns"), table.schema.field("end_ns"), ends)
        elif "start_ns" in table.column_names:
            later = []
            for number in range(times):
                shifted = table
                for name in ("start_ns", "end_ns"):
                    at, field = table.schema.get_field_index(name), table.schema.field(name)
                    shifted = shifted.set_column(at, field, pc.add(table[name], number * length).cast(field.type))
                later.append(shifted)
            table = pa.concat_tables(later)
        pq.write_table(table, file, compression="zstd")
        rows[file.parts[-3]] = table.num_rows
    manifest = json.loads((copy / "session.json").read_text())
    manifest["rows"] |= rows
    (copy / "session.json").write_text(json.dumps(manifest))
    return copy


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("colonel")
    parser.add_argument("session", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session = repeated(args.session, args.repeat, folder) if args.repeat > 1 else args.session
        page = f"{folder}/page.html"
        subprocess.run([args.colonel, "report", str(session), "-o", page], check=True, stdout=subprocess.DEVNULL)
        cpus = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in cpus if line.startswith("model name")), platform.machine())
        found = {
            "cpu": f"{os.cpu_count()} x {model}",
            "load_average": os.getloadavg(),
            "rows": json.loads((session / "session.json").read_text())["rows"],
            "page_bytes": Path(page).stat().st_size,
            **of_page(page, f"{folder}/chromium"),
        }
        found["load_average_after"] = os.getloadavg()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
