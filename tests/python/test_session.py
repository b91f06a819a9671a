"""A session is a plain Parquet dataset, and `colonel show` says what DuckDB says about it.

Runs on the session named by COLONEL_TEST_SESSION, else on synthetic ones made by the example `synthetic_session` and on
those recorded on an H100 in demos/sessions.
COLONEL_BIN names the program; by default it is built by cargo.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = 30_000
ENDS = ["sealed", "compacted", "cut-off"]
RECORDED = sorted(path.name for path in (ROOT / "demos/sessions").iterdir())


def cargo_run(*args: str) -> str:
    command = ["cargo", "run", "--quiet", *args]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="session", params=["given"] if "COLONEL_TEST_SESSION" in os.environ else ENDS + RECORDED)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "given":
        return Path(os.environ["COLONEL_TEST_SESSION"])
    if request.param in RECORDED:
        return ROOT / "demos/sessions" / request.param
    folder = tmp_path_factory.mktemp("sessions")
    made = cargo_run("--example", "synthetic_session", "--", str(folder), str(KERNELS), request.param)
    return Path(json.loads(made)["session"])


@pytest.fixture(scope="session")
def shown(session: Path) -> dict:
    args = ["show", str(session), "--json"]
    program = os.environ.get("COLONEL_BIN")
    if program is None:
        return json.loads(cargo_run("--bin", "colonel", "--", *args))
    return json.loads(subprocess.run([program, *args], check=True, stdout=subprocess.PIPE).stdout)


def files(session: Path, table: str) -> str:
    return f"{session}/{table}/**/*.parquet"


def test_polars_opens_a_table(session: Path, shown: dict) -> None:
    kernels = pl.scan_parquet(files(session, "kernels"))
    total = kernels.select((pl.col("end_ns") - pl.col("start_ns")).sum()).collect().item()
    assert kernels.select(pl.len()).collect().item() == shown["kernel_count"]
    assert total == shown["kernels_ns"]
    by_name = kernels.group_by("name").len().collect()
    assert dict(by_name.iter_rows()) == {kernel["name"]: kernel["count"] for kernel in shown["kernels"]}


def test_pandas_opens_a_table_by_its_folder(session: Path, shown: dict) -> None:
    kernels = pd.read_parquet(session / "kernels")
    assert len(kernels) == shown["kernel_count"]
    assert int((kernels["end_ns"] - kernels["start_ns"]).sum()) == shown["kernels_ns"]
    assert kernels["start_ns"].dtype == "int64"
    assert set(kernels["name"].unique()) == {kernel["name"] for kernel in shown["kernels"]}


def test_pyarrow_opens_every_table(session: Path, shown: dict) -> None:
    for table, rows in shown["rows"].items():
        dataset = ds.dataset(session / table, format="parquet")
        assert dataset.count_rows() == rows, table


def test_kernels_are_what_duckdb_says(session: Path, shown: dict) -> None:
    rows = duckdb.sql(f"""
        select name, count(*), sum(d)::hugeint, avg(d), quantile_disc(d, 0.5), quantile_disc(d, 0.95), min(d), max(d)
        from (select name, end_ns - start_ns as d from '{files(session, "kernels")}')
        group by name order by sum(d) desc, count(*) desc, name
    """).fetchall()
    fields = ["name", "count", "total_ns", "mean_ns", "median_ns", "p95_ns", "min_ns", "max_ns"]
    assert [tuple(kernel[field] for field in fields) for kernel in shown["kernels"]] == rows
    assert shown["kernel_count"] == sum(row[1] for row in rows)
    assert shown["kernels_ns"] == sum(row[2] for row in rows)
    for kernel in shown["kernels"]:
        assert kernel["share"] == pytest.approx(kernel["total_ns"] / shown["kernels_ns"])


def test_shapes_are_what_duckdb_says(session: Path, shown: dict) -> None:
    columns = "grid_x, grid_y, grid_z, block_x, block_y, block_z"
    rows = duckdb.sql(f"""
        select name, {columns}, count(*) as launches, count(*) over (partition by name)
        from '{files(session, "kernels")}' group by name, {columns}
        qualify row_number() over (partition by name order by launches desc, {columns}) = 1
    """).fetchall()
    expected = {row[0]: (list(row[1:4]), list(row[4:7]), row[7], row[8]) for row in rows}
    for kernel in shown["kernels"]:
        shape = kernel["shape"]
        found = (shape["grid"], shape["block"], kernel["shape_count"], kernel["shapes"])
        assert found == expected[kernel["name"]]


@pytest.mark.parametrize(("table", "by"), [("memcpys", "copy_kind"), ("memsets", "memory_kind")])
def test_copies_and_fills_are_what_duckdb_says(session: Path, shown: dict, table: str, by: str) -> None:
    rows = []
    if any((session / table).glob("**/*.parquet")):
        rows = duckdb.sql(f"""
            select {by}, count(*), sum(bytes)::hugeint, sum(end_ns - start_ns)::hugeint
            from '{files(session, table)}' group by {by}
        """).fetchall()
    found = {kind: (sums["count"], sums["bytes"], sums["total_ns"]) for kind, sums in shown[table].items()}
    assert found == {row[0]: row[1:] for row in rows}


def test_busy_time_is_what_duckdb_says(session: Path, shown: dict) -> None:
    tables = [name for name in ("kernels", "memcpys", "memsets") if shown["rows"].get(name)]
    work = " union all ".join(
        f"select pid, device_id, start_ns, end_ns from '{files(session, name)}'" for name in tables
    )
    # The windows of these sessions touch, so they are one stretch of time; tests/nested.rs has others.
    # Rows in order of start: what is new of each is what lies after the latest end so far.
    rows = duckdb.sql(f"""
        with work as ({work}),
        ends as (
            select *, max(end_ns) over (
                partition by pid, device_id order by start_ns, end_ns
                rows between unbounded preceding and 1 preceding
            ) as latest from work
        )
        select pid, device_id,
            sum(greatest(end_ns - greatest(start_ns, coalesce(latest, start_ns)), 0))::hugeint,
            max(greatest(start_ns - coalesce(latest, start_ns), 0))
        from ends group by pid, device_id order by pid, device_id
    """).fetchall()
    found = [(d["pid"], d["device_id"], d["busy_ns"], d["longest_gap_ns"]) for d in shown["devices"]]
    assert found == rows
    assert all(device["busy_ns"] + device["idle_ns"] == device["span_ns"] for device in shown["devices"])


def test_a_compacted_table_is_sorted_and_complete(session: Path, shown: dict) -> None:
    if shown["state"] != "compacted":
        pytest.skip("not compacted")
    for folder in (session / "kernels").iterdir():
        (file,) = folder.iterdir()
        kernels = pq.read_table(file)
        starts = kernels["start_ns"].to_numpy()
        assert (starts[1:] >= starts[:-1]).all()
        assert kernels.schema.field("end_ns").type == "int64"
        column = pq.ParquetFile(file).metadata.row_group(0).column(kernels.schema.get_field_index("start_ns"))
        assert "DELTA_BINARY_PACKED" in column.encodings
        assert kernels["waves"].null_count == 0
