"""`colonel show --by` says what DuckDB says: layers, steps, phases and ranges, of synthetic sessions of a model and of
those recorded on an H100 in demos/sessions."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDED = sorted(path.name for path in (ROOT / "demos/sessions").iterdir())
KERNELS = 65_000


def cargo_run(*args: str) -> str:
    command = ["cargo", "run", "--quiet", *args]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module", params=["full", "piecewise", "eager", *RECORDED])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    if request.param in RECORDED:
        return {"session": str(ROOT / "demos/sessions" / request.param)}
    folder = tmp_path_factory.mktemp("sessions")
    args = [str(folder), str(KERNELS), request.param, "compacted", "ranges"]
    return json.loads(cargo_run("--example", "synthetic_model", "--", *args))


def show(made: dict, by: str) -> dict:
    args = ["show", made["session"], "--by", by, "--json"]
    program = os.environ.get("COLONEL_BIN")
    if program is None:
        return json.loads(cargo_run("--bin", "colonel", "--", *args))
    return json.loads(subprocess.run([program, *args], check=True, stdout=subprocess.PIPE).stdout)


@pytest.fixture(scope="module")
def kernels(made: dict) -> duckdb.DuckDBPyConnection:
    return cut_steps(made["session"])


def cut_steps(session: str) -> duckdb.DuckDBPyConnection:
    """Table `k`: kernels in order of start, with number of layer and step.

    A pass begins where the layer falls; between two passes, the longest wait begins the next step.
    """
    db = duckdb.connect()
    db.sql(f"""
        create table rows as
        select row_number() over (order by start_ns) as rn, start_ns, end_ns, end_ns - start_ns as d, name,
            try_cast(layer as int) as layer, graph_id,
            nullif(concat_ws('/', nullif(launch_nvtx_path, nvtx_path), nvtx_path), '') as nvtx_path,
            start_ns - max(end_ns) over (order by start_ns rows between unbounded preceding and 1 preceding) as gap
        from '{session}/kernels/**/*.parquet'
    """)
    db.sql("""
        create table passes as
        select first, coalesce(lead(first) over (order by first), 1000000000) as next, last from (
            select min(rn) as first, max(rn) as last from (
                select rn, sum(begins) over (order by rn) as pass from (
                    select rn, (layer < lag(layer, 1, 999) over (order by rn) - 1)::int as begins
                    from rows where layer is not null
                )
            ) group by pass
        )
    """)
    db.sql("""
        create table borders as
        select arg_max(rn, (gap, -rn)) as rn from rows join passes on rn > last and rn <= next
        where next < 1000000000 group by first
    """)
    db.sql("""
        create table k as
        select rows.*, sum((borders.rn is not null)::int) over (order by rows.rn) as step
        from rows left join borders using (rn)
    """)
    db.sql("""
        create table steps as
        select step, regexp_extract(min(nvtx_path) filter (layer is not null), '^[a-z]+') as phase,
            regexp_extract(min(nvtx_path) filter (layer is not null), '[0-9]+')::int as batch,
            count(*) as kernels, sum(d)::bigint as ns, max(end_ns) - min(start_ns) as length,
            sum(new_ns)::bigint as busy
        from (
            select *, greatest(end_ns - greatest(start_ns, coalesce(latest, start_ns)), 0) as new_ns from (
                select *, max(end_ns) over (
                    partition by step order by rn rows between unbounded preceding and 1 preceding
                ) as latest from k
            )
        ) group by step
    """)
    return db


STATS = (
    "count({0}), sum({0})::bigint, quantile_disc({0}, 0.5), quantile_disc({0}, 0.95), min({0})::bigint, "
    "max({0})::bigint"
)
FIELDS = ["count", "total_ns", "median_ns", "p95_ns", "min_ns", "max_ns"]


def stats(found: dict) -> tuple:
    return tuple(found[field] for field in FIELDS)


def test_nearly_every_kernel_has_its_layer(made: dict, kernels: duckdb.DuckDBPyConnection) -> None:
    if "right" not in made:
        pytest.skip("test_recorded_sessions counts those of a recorded session")
    assert made["right"] >= 0.99 * made["of_layers"]
    numbered = kernels.sql("select count(*) from k where layer is not null").fetchall()[0][0]
    files = f"{made['session']}/kernels/**/*.parquet"
    norms = kernels.sql(f"select count(*) from '{files}' where layer = 'norm'").fetchall()[0][0]
    assert norms > 0, "the final norm of a step has its name"
    assert show(made, "layer")["layered_by_structure"] == numbered + norms
    assert numbered + norms == made["right"] + made["wrong_outside"]


def test_steps_are_what_duckdb_says(made: dict, kernels: duckdb.DuckDBPyConnection) -> None:
    rows = kernels.sql(f"""
        select phase, batch, sum(kernels)::bigint, sum(ns)::bigint, {STATS.format("length")}, {STATS.format("busy")}
        from steps group by phase, batch
    """).fetchall()
    found = [
        (s["phase"], s["batch"], s["kernels"], s["kernels_ns"], *stats(s["durations"]), *stats(s["busy"]))
        for s in show(made, "step")["steps"]
    ]
    assert len(rows) == (8 if "right" in made else 4)
    assert sorted(found) == sorted(rows)


def test_gaps_are_what_duckdb_says(made: dict, kernels: duckdb.DuckDBPyConnection) -> None:
    rows = kernels.sql(f"""
        select phase, batch, {STATS.format("gap")} from k join steps using (step)
        where gap > 0 and rn not in (select rn from borders) group by phase, batch
    """).fetchall()
    found = [(s["phase"], s["batch"], *stats(s["gaps"])) for s in show(made, "step")["steps"]]
    assert sorted(found) == sorted(rows)
    rows = kernels.sql(f"""
        select phase, batch, {STATS.format("gap")} from k join steps using (step)
        where rn in (select rn from borders) group by phase, batch
    """).fetchall()
    # Nothing comes before the first step.
    steps = [s for s in show(made, "step")["steps"] if s["between"]]
    found = [(s["phase"], s["batch"], *stats(s["between"])) for s in steps]
    assert sorted(found) == sorted(rows)


def test_layers_are_what_duckdb_says(made: dict, kernels: duckdb.DuckDBPyConnection) -> None:
    for step in show(made, "layer")["steps"]:
        covered: list[int] = []
        for part in step["parts"]:
            first, last = part["first_layer"], part["last_layer"]
            if first is None:
                continue
            covered += range(first, last + 1)
            where = f"phase = '{step['phase']}' and batch = {step['batch']} and k.layer between {first} and {last}"
            total = kernels.sql(f"""
                select sum(n)::bigint, {STATS.format("ns")} from (
                    select count(*) as n, sum(d)::bigint as ns from k join steps using (step)
                    where {where} group by step, k.layer
                )
            """).fetchall()[0]
            assert (part["kernels"], *stats(part["per_step"])) == total
            assert part["kernels_ns"] == total[2]
            slowest = kernels.sql(f"""
                select name, count(*), sum(d)::bigint from k join steps using (step)
                where {where} group by name order by avg(d) desc, name limit 1
            """).fetchall()[0]
            assert tuple(part["slowest"].values()) == slowest
        assert covered == list(range(24))


def test_phases_are_what_duckdb_says(made: dict, kernels: duckdb.DuckDBPyConnection) -> None:
    rows = kernels.sql("""
        select phase, count(*), sum(kernels)::bigint, sum(ns)::bigint, sum(length)::bigint from steps group by phase
    """).fetchall()
    found = [
        (p["phase"], p["steps"], p["kernels"], p["kernels_ns"], p["steps_ns"]) for p in show(made, "phase")["phases"]
    ]
    assert sorted(found) == sorted(rows)


def test_ranges_are_what_duckdb_says(made: dict, kernels: duckdb.DuckDBPyConnection) -> None:
    rows = kernels.sql(f"""
        with parts as (select d, nvtx_path, string_split(nvtx_path, '/') as names from k),
        around as (
            select d, nvtx_path, unnest([array_to_string(names[:n], '/') for n in range(1, len(names) + 1)]) as path
            from parts where nvtx_path is not null
            union all select d, null, null from parts where nvtx_path is null
        )
        select path, count(*) filter (path is not distinct from nvtx_path), {STATS.format("d")}
        from around group by path
    """).fetchall()
    ranges = show(made, "nvtx")["ranges"]
    assert len(rows) == len(ranges) >= 8
    assert {(r["nvtx_path"], r["own_kernels"], *stats(r)) for r in ranges} == set(rows)
    # A range comes before those within it.
    places = {r["nvtx_path"]: place for place, r in enumerate(ranges)}
    for path, place in places.items():
        if path and "/" in path:
            assert places[path.rsplit("/", 1)[0]] < place
