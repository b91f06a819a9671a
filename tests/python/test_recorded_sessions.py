"""The sessions in demos/sessions, recorded on an H100: what colonel's readers say of them is what DuckDB says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import duckdb
import pytest
from recorded import ROOT, program
from test_layers import cut_steps

SESSIONS = ROOT / "demos" / "sessions"
GRAPHS, EAGER = "bcf20ce5", "0eba63cf"
LAYERS, STEPS, KERNELS_A_LAYER = 24, 17, 12
DECODE_STEPS = 15

both = pytest.mark.parametrize("session", [GRAPHS, EAGER])


def colonel(*words: str) -> str:
    command = [program(), *words, "--sessions-dir", str(SESSIONS)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernels(session: str) -> str:
    return f"'{SESSIONS / session}/kernels/**/*.parquet'"


def test_each_is_there() -> None:
    assert sorted(path.name for path in SESSIONS.iterdir()) == sorted([GRAPHS, EAGER])


@both
def test_every_kernel_of_the_decoder_has_its_layer(session: str) -> None:
    rows = duckdb.sql(
        f"SELECT layer::INT AS number, count(*) FROM {kernels(session)} WHERE layer SIMILAR TO '[0-9]+' "
        "GROUP BY number ORDER BY number"
    ).fetchall()
    assert rows == [(layer, STEPS * KERNELS_A_LAYER) for layer in range(LAYERS)]


@both
def test_show_says_what_duckdb_says(session: str) -> None:
    shown = json.loads(colonel("show", session, "--json", "--limit", "0"))
    rows = duckdb.sql(
        "SELECT name, count(*), sum(end_ns - start_ns)::BIGINT, quantile_disc(end_ns - start_ns, 0.5) "
        f"FROM {kernels(session)} GROUP BY name"
    ).fetchall()
    said = [(row["name"], row["count"], row["total_ns"], row["median_ns"]) for row in shown["kernels"]]
    assert sorted(said) == sorted(rows)


@both
def test_every_reader_takes_it(session: str, tmp_path: Path) -> None:
    for by in ("layer", "step", "phase"):
        assert "decode" in colonel("show", session, "--by", by)
    page = tmp_path / "page.html"
    colonel("report", session, "-o", str(page))
    assert "H100" in page.read_text()
    trace = tmp_path / "trace.json"
    colonel("export", session, "--format", "chrome", "-o", str(trace))
    count = duckdb.sql(f"SELECT count(*) FROM {kernels(session)}").fetchall()[0][0]
    events = json.loads(trace.read_text())["traceEvents"]
    assert sum(event.get("cat") == "kernel" for event in events) == count


def test_the_eager_run_is_bound_by_its_launches() -> None:
    assert "launch_bound" in colonel("analyze", EAGER)


def test_the_two_compare() -> None:
    said = colonel("compare", GRAPHS, EAGER)
    assert "slower" in said.split("length of a step")[1].splitlines()[0]


def test_compare_says_what_duckdb_says() -> None:
    """Of the 15 steps of decode: the two of prefill are too few."""
    decode = "k JOIN steps USING (step) WHERE phase = 'decode'"
    found = json.loads(colonel("compare", GRAPHS, EAGER, "--json"))
    databases = {"a": cut_steps(str(SESSIONS / GRAPHS)), "b": cut_steps(str(SESSIONS / EAGER))}
    for side, db in databases.items():
        rows = db.sql("SELECT name, count(*), sum(d)::BIGINT, quantile_disc(d, 0.5) FROM k GROUP BY name").fetchall()
        kernels = [row for row in found["kernels"] if row[side]]
        names = [row["name"] if side == "a" else row["name_b"] or row["name"] for row in kernels]
        sides = [row[side] for row in kernels]
        said = [(of["count"], of["total_ns"], of["median_ns"]) for of in sides]
        assert sorted(zip(names, said, strict=True)) == sorted((row[0], row[1:]) for row in rows)
        steps = db.sql("SELECT count(*), avg(length) FROM steps WHERE phase = 'decode'").fetchall()[0]
        in_kernels = db.sql(f"SELECT sum(d) / {steps[0]} FROM {decode}").fetchall()[0][0]
        assert steps[0] == DECODE_STEPS
        assert found["in_all"]["steps"][f"{side}_ns"] == pytest.approx(steps[1])
        assert found["in_all"]["kernels"][f"{side}_ns"] == pytest.approx(in_kernels)
        per_step = dict(db.sql(f"SELECT name, sum(d) / {steps[0]} FROM {decode} GROUP BY name").fetchall())
        for name, row in zip(names, kernels, strict=True):
            if row[f"{side}_ns"] is not None:
                assert row[f"{side}_ns"] == pytest.approx(per_step.get(name, 0)), name
    layers = json.loads(colonel("compare", GRAPHS, EAGER, "--by", "layer", "--json"))["layers"]
    for row in (row for row in layers if row["name"].isdigit()):
        for side, db in databases.items():
            of_layer = db.sql(f"SELECT sum(d) / {DECODE_STEPS} FROM {decode} AND layer = {row['name']}").fetchall()
            assert row[f"{side}_ns"] == pytest.approx(of_layer[0][0])
    assert sum(row["name"].isdigit() for row in layers) == LAYERS
