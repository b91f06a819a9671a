"""Compare two halves of real sessions, as they are and with a kernel made 5 % longer, and runs of the same name.

    python scripts/figures/compare_sessions.py FILE SESSION...

Each session is copied with its kernels in two windows, cut between two steps in the middle, and `colonel compare` is
run on both. Then the same with the kernel that has most time made 5 % longer in the second window. Sessions whose
parent folders have one name (`v1_graphs_ranges`) are runs of one program, and are compared pair by pair. FILE gets a
line of JSON for each comparison. COLONEL_BIN names the program.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PROGRAM = os.environ.get("COLONEL_BIN", "target/debug/colonel")
PLANTED = 1.05


def middle(kernels: pa.Table) -> int | None:
    """Row at which the second half of the steps begins; none where there are no layers."""
    layers = [int(layer) if layer and layer.isdigit() else None for layer in kernels["layer"].to_pylist()]
    passes, last = [], None
    for row, layer in enumerate(layers):
        if layer is None:
            continue
        if last is None or layer < last - 1:
            passes.append([row, row])
        passes[-1][1] = row
        last = layer
    if len(passes) < 4:
        return None
    half = len(passes) // 2
    starts, ends = kernels["start_ns"].to_pylist(), kernels["end_ns"].to_pylist()
    between = range(passes[half - 1][1] + 1, passes[half][0] + 1)
    return max(between, key=lambda row: starts[row] - max(ends[:row]))


def in_halves(session: Path, folder: Path, slowdown: float) -> tuple[Path, str] | None:
    """A copy with two windows, and the kernel that takes `slowdown` as long in the second."""
    files = list((session / "kernels").rglob("*.parquet"))
    if len(files) != 1:
        return None
    kernels = pq.read_table(files[0])
    cut = middle(kernels)
    if cut is None:
        return None
    copy = folder / session.name
    shutil.copytree(session, copy)
    rows = len(kernels)
    window = pa.array([1] * cut + [2] * (rows - cut), pa.uint32())
    kernels = set_column(kernels, "window", window)
    durations = pc.subtract(kernels["end_ns"], kernels["start_ns"]).to_pylist()
    names = kernels["name"].to_pylist()
    totals: dict[str, int] = defaultdict(int)
    for name, ns in zip(names, durations, strict=True):
        totals[name] += ns
    planted = max(totals, key=lambda name: totals[name])
    longer = [
        round(ns * slowdown) if row >= cut and name == planted else ns
        for row, (name, ns) in enumerate(zip(names, durations, strict=True))
    ]
    ends = pc.add(kernels["start_ns"], pa.array(longer, pa.int64()))
    kernels = set_column(kernels, "end_ns", ends)
    pq.write_table(kernels, copy / files[0].relative_to(session), compression="zstd")
    border = kernels["start_ns"][cut].as_py()
    for path in [copy / "session.json", *(copy / "processes").glob("*.json")]:
        described = json.loads(path.read_text())
        for process in described.get("processes", [described]):
            for first in process.get("windows", [])[:1]:
                second = {**first, "number": 2, "start_ns": border}
                process["windows"] = [{**first, "end_ns": border - 1}, second]
        path.write_text(json.dumps(described))
    return copy, planted


def set_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), values)


def compare(a: Path, b: Path, *options: str) -> dict:
    command = [PROGRAM, "compare", str(a), str(b), "--json", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def told(found: dict) -> dict:
    """What a comparison comes to."""
    in_all, steps = found["in_all"]["kernels"], found["in_all"]["steps"]
    differ = [row for row in found["kernels"] if row["verdict"] in ("slower", "faster")]
    return {
        "steps": [[phase["a"], phase["b"]] for phase in found["phases"] if phase["is_compared"]],
        "relative": in_all["relative"],
        "interval": [in_all["low"], in_all["high"]],
        "verdict": found["verdict"],
        "steps_verdict": steps and steps["verdict"],
        "rows": sum(row["verdict"] is not None for row in found["kernels"]),
        "rows_that_differ": [[row["name"][:60], round(row["relative"], 4)] for row in differ],
    }


def halves(session: Path) -> list[dict]:
    lines = []
    for slowdown in (1.0, PLANTED):
        with tempfile.TemporaryDirectory() as folder:
            made = in_halves(session, Path(folder), slowdown)
            if made is None:
                return []
            copy, planted = made
            found = compare(copy, copy, "--window-a", "1", "--window-b", "2")
        line = {
            "what": "halves",
            "session": f"{session.parent.name}/{session.name}",
            "slowdown": slowdown,
            **told(found),
        }
        if slowdown > 1:
            row = next(row for row in found["kernels"] if row["name"] == planted)
            line |= {"planted": planted[:60], "found": row["verdict"] == "slower", "found_relative": row["relative"]}
        lines.append(line)
    return lines


def main() -> None:
    file, *names = sys.argv[1:]
    sessions = [Path(name) for name in names]
    lines = [line for session in sessions for line in halves(session)]
    runs = defaultdict(list)
    for session in sessions:
        runs[session.parent.name].append(session)
    for name, of_name in runs.items():
        for a, b in combinations(of_name, 2):
            found = compare(a, b)
            if found["unit"] == "step":
                lines.append({"what": "runs", "session": name, "ids": [a.name, b.name], **told(found)})
    Path(file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    report(lines)


def report(lines: list[dict]) -> None:
    def count(which: list[dict], is_so: str) -> str:
        return f"{sum(line['verdict'] == is_so for line in which)} of {len(which)}"

    same = [line for line in lines if line["what"] == "halves" and line["slowdown"] == 1]
    slower = [line for line in lines if line["what"] == "halves" and line["slowdown"] > 1]
    again = [line for line in lines if line["what"] == "runs"]
    print(f"halves without difference in all: {count(same, 'no_difference')}")
    differ = sum(len(line["rows_that_differ"]) for line in same)
    print(f"rows that differ: {differ} of {sum(line['rows'] for line in same)}")
    print(f"halves with such a row: {sum(bool(line['rows_that_differ']) for line in same)} of {len(same)}")
    print(f"planted kernel found: {sum(line['found'] for line in slower)} of {len(slower)}")
    print(f"runs of one name without difference in all: {count(again, 'no_difference')}")


if __name__ == "__main__":
    main()
