"""`colonel export`: each format's own readers find what DuckDB finds in the session."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from recorded import program
from test_session import session  # noqa: F401

Totals = dict[str, tuple[int, int]]

# As NVIDIA's report script `cuda_gpu_kern_sum` asks.
KERNEL_SUMMARY = """
    WITH summary AS (
        SELECT demangledName AS nameId, sum(end - start) AS total, count(*) AS num,
               min(end - start) AS least, max(end - start) AS most
        FROM CUPTI_ACTIVITY_KIND_KERNEL GROUP BY 1
    )
    SELECT ids.value, num, total FROM summary LEFT JOIN StringIds AS ids ON ids.id = summary.nameId ORDER BY total DESC
"""
# As `cuda_gpu_trace` does.
GPU_TRACE = """
    SELECT start, end - start, gridX, blockX, registersPerThread, gpu.name || ' (' || deviceId || ')', contextId,
           streamId, str.value, correlationId
    FROM CUPTI_ACTIVITY_KIND_KERNEL AS kernel
    LEFT JOIN StringIds AS str ON str.id = kernel.demangledName
    LEFT JOIN TARGET_INFO_GPU AS gpu ON gpu.id = kernel.deviceId ORDER BY start
"""


def export(session: Path, file: Path, *options: str) -> Path:  # noqa: F811
    subprocess.run([program(), "export", str(session), "-o", str(file), *options], check=True, capture_output=True)
    return file


@pytest.fixture(scope="module")
def kernels(session: Path) -> Totals:  # noqa: F811
    asked = (
        f"""SELECT name, count(*), sum(end_ns - start_ns)::BIGINT FROM '{session}/kernels/**/*.parquet' GROUP BY 1"""
    )
    return {name: (count, ns) for name, count, ns in duckdb.sql(asked).fetchall()}


def test_chrome(session: Path, kernels: Totals, tmp_path: Path) -> None:  # noqa: F811
    file = export(session, tmp_path / "trace.json.gz", "--format", "chrome")
    with gzip.open(file) as text:
        events = json.load(text)["traceEvents"]
    found: dict[str, list[int]] = {}
    for event in events:
        if event.get("cat") == "kernel":
            total = found.setdefault(event["name"], [0, 0])
            total[0] += 1
            total[1] += round(event["dur"] * 1000)
    assert {name: tuple(total) for name, total in found.items()} == kernels


def test_nsys_sqlite(session: Path, kernels: Totals, tmp_path: Path) -> None:  # noqa: F811
    database = sqlite3.connect(export(session, tmp_path / "report.sqlite", "--format", "nsys-sqlite"))
    summary = database.execute(KERNEL_SUMMARY).fetchall()
    assert {name: (count, ns) for name, count, ns in summary} == kernels
    trace = database.execute(GPU_TRACE).fetchall()
    assert len(trace) == sum(count for count, _ in kernels.values())
    assert all("H100" in row[5] for row in trace)


def test_csv_and_arrow(session: Path, kernels: Totals, tmp_path: Path) -> None:  # noqa: F811
    def totals(frame: pl.DataFrame) -> Totals:
        by_name = frame.group_by("name").agg(pl.len(), (pl.col("end_ns") - pl.col("start_ns")).sum())
        return {str(name): (count, ns) for name, count, ns in by_name.iter_rows()}

    folder = export(session, tmp_path / "csv", "--format", "csv")
    # All rows say what a column holds: the first layers are numbers, a later one is `norm`.
    assert totals(pl.read_csv(folder / "kernels.csv", infer_schema_length=None)) == kernels
    folder = export(session, tmp_path / "arrow", "--format", "arrow")
    assert totals(pl.read_ipc(folder / "kernels.arrow")) == kernels
    assert len(pd.read_feather(folder / "kernels.arrow")) == sum(count for count, _ in kernels.values())
    with pa.memory_map(str(folder / "kernels.arrow")) as mapped:
        assert pa.types.is_dictionary(pa.ipc.open_file(mapped).schema.field("name").type)


def test_perfetto_is_written(session: Path, kernels: Totals, tmp_path: Path) -> None:  # noqa: F811
    """What is in it is tested by `make test-tools`, with Perfetto's own definitions."""
    file = export(session, tmp_path / "trace", "--format", "perfetto")
    content = file.read_bytes()
    assert all(name.encode() in content for name in kernels)
