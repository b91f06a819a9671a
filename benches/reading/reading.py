"""How long readers take on sessions of many kernels, DuckDB's same group-by beside it, and a trace in JSON of fewer.

    python benches/reading/reading.py COLONEL SESSION... [--json-of SESSION] > reading.json

Sessions are made by `cargo run --release --example synthetic_session -- FOLDER KERNELS`. A trace in JSON, as torch's
profiler writes it, is exported from the session after `--json-of`, loaded by Python's json, and read by
`colonel import`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DUCKDB = """
import duckdb, sys
duckdb.sql("SET threads = 2")
print(duckdb.sql(f'''
    SELECT name, count(*), sum(d)::BIGINT, avg(d), quantile_disc(d, [0.5, 0.95]), min(d), max(d)
    FROM (SELECT name, end_ns - start_ns AS d FROM '{sys.argv[1]}/kernels/**/*.parquet') GROUP BY name
''').fetchall()[0])
"""
JSON_LOAD = "import json, sys; print(len(json.load(open(sys.argv[1]))['traceEvents']))"


def measured(*command: str) -> dict[str, float]:
    """Wall and CPU seconds and MiB at most of a command, which must succeed."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if status != 0:
        sys.exit(f"{command}: {said.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "mib": round(usage.ru_maxrss / 1024)}


def of_session(colonel: str, session: str, folder: str) -> dict[str, Any]:
    manifest = json.loads((Path(session) / "session.json").read_text())
    page = f"{folder}/page.html"
    found = {
        "kernels": manifest["rows"]["kernels"],
        "bytes": sum(file.stat().st_size for file in Path(session).rglob("*.parquet")),
        "load_average": os.getloadavg(),
        "show": measured(colonel, "show", session),
        "duckdb": measured(sys.executable, "-c", DUCKDB, session),
        "show_by_layer": measured(colonel, "show", session, "--by", "layer"),
        "analyze": measured(colonel, "analyze", session),
        "report": measured(colonel, "report", session, "-o", page, "--force"),
    }
    return found | {"page_bytes": Path(page).stat().st_size}


def of_json(colonel: str, session: str, folder: str) -> dict[str, Any]:
    trace = f"{folder}/trace.json"
    found: dict[str, Any] = {"kernels": json.loads((Path(session) / "session.json").read_text())["rows"]["kernels"]}
    found["export"] = measured(colonel, "export", session, "--format", "chrome", "-o", trace)
    found["bytes"] = Path(trace).stat().st_size
    found["json_load"] = measured(sys.executable, "-c", JSON_LOAD, trace)
    found["colonel_import"] = measured(colonel, "import", trace, "--sessions-dir", folder)
    return found


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("colonel")
    parser.add_argument("sessions", nargs="+")
    parser.add_argument("--json-of")
    args = parser.parse_args()
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in cpus if line.startswith("model name")), platform.machine())
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "cpu": f"{os.cpu_count()} x {model}",
            "sessions": [of_session(args.colonel, session, folder) for session in args.sessions],
            "json": of_json(args.colonel, args.json_of, folder) if args.json_of else None,
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
