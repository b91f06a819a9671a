"""`colonel compare` and `colonel.compare` say what DuckDB says of the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import colonel
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from recorded import program
from test_layers import cargo_run, cut_steps

SIDES = ["a", "b"]
SLOWER = "reshape_and_cache_flash_kernel"
"""What takes 5 % longer in the second session."""
RENAMED = ("triton_poi_fused_mul_silu_slice_1", "swiglu_kernel")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program under test is the one on the PATH."""
    monkeypatch.setattr("colonel.program.find_program", program)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two of a model, the second shorter, with other noise, a slower kernel, and another that was renamed."""
    folder = tmp_path_factory.mktemp("sessions")
    made = []
    for kernels in (150_000, 115_000):
        args = [str(folder), str(kernels), "full", "compacted", "ranges"]
        made.append(json.loads(cargo_run("--example", "synthetic_model", "--", *args))["session"])
    rewrite(Path(made[1]))
    return made


def rewrite(session: Path) -> None:
    for file in (session / "kernels").rglob("*.parquet"):
        table = pq.read_table(file)
        names = table["name"].cast(pa.string())
        durations = pc.subtract(table["end_ns"], table["start_ns"]).to_numpy()
        slower = pc.match_substring(names, SLOWER).to_numpy(zero_copy_only=False)
        # Numbers that look random: up to 1 % longer.
        noise = [1 + (row * 7919 % 101) / 10_000 for row in range(len(table))]
        longer = (durations * noise * (1 + 0.05 * slower)).astype("int64")
        ends = pc.add(table["start_ns"], pa.array(longer))
        table = table.set_column(table.schema.get_field_index("end_ns"), table.schema.field("end_ns"), ends)
        renamed = pc.replace_substring(names, *RENAMED)
        field = table.schema.field("name")
        table = table.set_column(table.schema.get_field_index("name"), field, renamed.cast(field.type))
        pq.write_table(table, file, compression="zstd")


@pytest.fixture(scope="module")
def databases(sessions: list[str]) -> list[duckdb.DuckDBPyConnection]:
    databases = [cut_steps(session) for session in sessions]
    for db in databases:
        db.sql("create table steps_of as select k.*, phase, batch from k join steps using (step)")
    return databases


def steps_by_phase(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return dict(db.sql("select phase, count(*) from steps group by phase").fetchall())


def per_step(databases: list[duckdb.DuckDBPyConnection], side: int, what: str, where: str) -> float:
    """Time a step, each phase by its share in the first session."""
    steps_a, steps = steps_by_phase(databases[0]), steps_by_phase(databases[side])
    assert min(*steps_a.values(), *steps.values()) >= 6, "all phases are compared"
    query = f"select phase, sum({what})::bigint from steps_of where {where} group by phase"
    sums = dict(databases[side].sql(query).fetchall())
    return sum(steps_a[phase] * ns / steps[phase] for phase, ns in sums.items()) / sum(steps_a.values())


def check_change(row: dict[str, Any], a: float, b: float) -> None:
    assert row["a_ns"] == pytest.approx(a, rel=1e-9)
    assert row["b_ns"] == pytest.approx(b, rel=1e-9)
    assert row["difference_ns"] == pytest.approx(b - a, rel=1e-6, abs=1e-6)
    assert row["relative"] == pytest.approx(b / a - 1, rel=1e-6, abs=1e-9)
    assert row["low"] <= row["relative"] <= row["high"]


def test_kernels(sessions: list[str], databases: list[duckdb.DuckDBPyConnection]) -> None:
    found = colonel.compare(*sessions)
    totals = "select name, count(*), sum(d)::bigint, quantile_disc(d, 0.5) from k group by name"
    expected = [{row[0]: row[1:] for row in db.sql(totals).fetchall()} for db in databases]
    for side, names in zip(SIDES, expected, strict=True):
        rows = [row for row in found.rows if row[side]]
        name = {row["name"] if side == "a" else row["name_b"] or row["name"]: row[side] for row in rows}
        got = {key: (of["count"], of["total_ns"], of["median_ns"]) for key, of in name.items()}
        assert got == names
    assert all(row["verdict"] is None for row in found.rows if row["match"] in ("only_a", "only_b"))
    for row in (row for row in found.rows if row["a"] and row["b"]):
        names = [row["name"], row["name_b"] or row["name"]]
        quoted = [name.replace("'", "''") for name in names]
        a, b = (per_step(databases, side, "d", f"name = '{quoted[side]}'") for side in (0, 1))
        total_a, total_b = (expected[side][names[side]][1] for side in (0, 1))
        assert row["total_difference_ns"] == total_b - total_a
        check_change(row, a, b)
        assert row["contribution_ns"] == row["difference_ns"]
    in_all = found.figures["in_all"]
    check_change(in_all["kernels"], *(per_step(databases, side, "d", "true") for side in (0, 1)))
    assert sum(row["difference_ns"] for row in found.rows) == pytest.approx(in_all["kernels"]["difference_ns"])
    contributions = [abs(row["contribution_ns"]) for row in found.rows]
    assert contributions == sorted(contributions, reverse=True)


def test_what_was_put_in_is_found(sessions: list[str]) -> None:
    found = colonel.compare(*sessions)
    slower = [row for row in found.rows if row["verdict"] == "slower"]
    assert [SLOWER in row["name"] for row in slower] == [True]
    assert slower[0]["relative"] == pytest.approx(0.05, abs=0.01)
    renamed = [(row["name"], row["name_b"], row["match"]) for row in found.rows if row["name_b"]]
    assert renamed == [(*RENAMED, "renamed")]
    assert found.verdict == "no_difference", "less than 1 % in all"


def test_layers(sessions: list[str], databases: list[duckdb.DuckDBPyConnection]) -> None:
    found = colonel.compare(*sessions, by="layer").rows
    assert {row["name"] for row in found} >= {str(layer) for layer in range(24)}
    for row in (row for row in found if row["name"].isdigit()):
        where = f"layer = {row['name']}"
        check_change(row, *(per_step(databases, side, "d", where) for side in (0, 1)))
        for side, db in zip(SIDES, databases, strict=True):
            query = f"select count(*), sum(d)::bigint from k where {where}"
            assert (row[side]["count"], row[side]["total_ns"]) == db.sql(query).fetchall()[0]
            median = (
                f"select quantile_disc(ns, 0.5) from (select sum(d)::bigint as ns from k where {where} group by step)"
            )
            assert (row[side]["median_ns"],) == db.sql(median).fetchall()[0]


def test_steps(sessions: list[str], databases: list[duckdb.DuckDBPyConnection]) -> None:
    found = colonel.compare(*sessions, by="step")
    query = """
        select phase || ', batch ' || batch, count(*), sum(length)::bigint, quantile_disc(length, 0.5)
        from steps group by phase, batch
    """
    for side, db in zip(SIDES, databases, strict=True):
        rows = [(row["name"], row[side]) for row in found.rows if row[side]]
        got = {(name, of["count"], of["total_ns"], of["median_ns"]) for name, of in rows}
        assert got == set(db.sql(query).fetchall())
    for row in found.rows:
        if row["low"] is not None:
            check_change(row, row["a"]["mean_ns"], row["b"]["mean_ns"])
    steps_a = steps_by_phase(databases[0])
    lengths = [dict(db.sql("select phase, avg(length) from steps group by phase").fetchall()) for db in databases]
    means = [sum(steps_a[phase] * of[phase] for phase in of) / sum(steps_a.values()) for of in lengths]
    check_change(found.figures["in_all"]["steps"], *means)
    counts = {row["phase"]: (row["a"], row["b"]) for row in found.figures["phases"]}
    assert counts == {phase: tuple(steps_by_phase(db)[phase] for db in databases) for phase in steps_a}


def test_without_steps_times_are_of_launches(tmp_path: Path) -> None:
    made = []
    for seed in (3_000, 2_000):
        made.append(cargo_run("--example", "synthetic_session", "--", str(tmp_path), str(seed), "compacted").strip())
    if not (Path(made[0]) / "session.json").is_file():
        made = sorted(str(path.parent) for path in tmp_path.glob("*/session.json"))
    found = colonel.compare(*made)
    assert found.figures["unit"] == "launch"
    query = "select name, count(*), avg(end_ns - start_ns) from '{}/kernels/**/*.parquet' group by name"
    a, b = ({row[0]: row[1:] for row in duckdb.sql(query.format(path)).fetchall()} for path in made)
    for row in found.rows:
        check_change(row, a[row["name"]][1], b[row["name"]][1])
    in_all = [sum(a[name][0] * side[name][1] for name in a) for side in (a, b)]
    check_change(found.figures["in_all"]["kernels"], *in_all)


def test_it_is_readable_in_a_notebook_and_as_a_table(sessions: list[str], tmp_path: Path) -> None:
    found = colonel.compare(colonel.open(sessions[0]), Path(sessions[1]))
    assert repr(found).startswith("colonel.Comparison(")
    assert "no difference" in repr(found)
    page = found._repr_html_()
    assert page.count("<tr>") == 3 + min(20, len(found.rows))
    assert "splitKreduce_kernel&lt;32" in page, "names are escaped"
    table = found.table()
    assert table.num_rows == len(found.rows)
    assert table["total_ns_a"].to_pylist() == [row["a"]["total_ns"] for row in found.rows]


def test_what_cannot_be_compared_says_why(sessions: list[str], tmp_path: Path) -> None:
    with pytest.raises(colonel.ColonelError, match="`by` is one of kernel, layer, step, not `grid`"):
        colonel.compare(*sessions, by="grid")
    with pytest.raises(colonel.ColonelError, match="A and B are both session"):
        colonel.compare(sessions[0], sessions[0])
    with pytest.raises(colonel.ColonelError, match="has no window `warm`"):
        colonel.compare(*sessions, window_b="warm")
    with pytest.raises(colonel.SessionNotFoundError):
        colonel.compare(sessions[0], tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(sessions[0], copy)
    same = colonel.compare(sessions[0], copy)
    assert same.verdict == "no_difference"
    assert same.figures["in_all"]["kernels"]["relative"] == 0
