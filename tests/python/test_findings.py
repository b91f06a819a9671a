"""Each figure of each finding is what DuckDB gives for the finding's own SQL.

Runs on a session in which every rule finds something, on the language model of `synthetic_model`, on the sessions
recorded on an H100 in demos/sessions, and on those named by COLONEL_TEST_FINDINGS (folders of compacted sessions, with
`:` between).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parents[2]
RULES = {path.stem for path in (ROOT / "src/analysis/findings/rules").glob("*.rs")} - {"mod"}
RECORDED = sorted(str(path) for path in (ROOT / "demos/sessions").iterdir())
GIVEN = RECORDED + [path for path in os.environ.get("COLONEL_TEST_FINDINGS", "").split(":") if path]


def cargo_run(*args: str) -> str:
    command = ["cargo", "run", "--quiet", *args]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def analyze(session: str, *options: str) -> dict:
    args = ["analyze", session, "--json", *options]
    program = os.environ.get("COLONEL_BIN")
    if program is None:
        return json.loads(cargo_run("--bin", "colonel", "--", *args))
    return json.loads(subprocess.run([program, *args], check=True, stdout=subprocess.PIPE).stdout)


@pytest.fixture(scope="module", params=["bottlenecks", "full", "eager", *GIVEN])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param in GIVEN:
        return request.param
    folder = str(tmp_path_factory.mktemp("sessions"))
    if request.param == "bottlenecks":
        return cargo_run("--example", "synthetic_bottlenecks", "--", folder).strip()
    made = cargo_run("--example", "synthetic_model", "--", folder, "30000", request.param, "compacted", "ranges")
    return json.loads(made)["session"]


def test_the_sql_gives_the_figures(session: str) -> None:
    compare(session, analyze(session)["findings"])


def test_the_sql_of_a_window_gives_the_figures_of_the_window(tmp_path: Path) -> None:
    """Once with all rules, and once where other windows have other rows."""
    bottlenecks = cargo_run("--example", "synthetic_bottlenecks", "--", str(tmp_path)).strip()
    found = analyze(bottlenecks, "--window", "1")["findings"]
    assert {finding["rule"] for finding in found} == RULES
    compare(bottlenecks, found)
    three = json.loads(cargo_run("--example", "synthetic_session", "--", str(tmp_path), "20000"))["session"]
    compare(three, analyze(three, "--window", "2")["findings"])


def compare(session: str, found: list[dict]) -> None:
    """What DuckDB gives for the SQL of findings with their figures."""
    db = duckdb.connect()
    for table in Path(session).iterdir():
        if next(table.glob("*/*.parquet"), None):
            db.sql(f"create view {table.name} as from '{table}/**/*.parquet'")
    assert found
    for finding in found:
        result = db.sql(finding["sql"])
        rows = result.fetchall()
        assert len(rows) == 1, finding["rule"]
        figures = {figure["name"]: figure["value"] for figure in finding["figures"]}
        assert result.columns == list(figures), finding["rule"]
        for name, value in zip(result.columns, rows[0], strict=True):
            assert float(value) == pytest.approx(figures[name], rel=1e-9), (finding["rule"], name)


def test_every_rule_finds_what_was_put_in(tmp_path: Path) -> None:
    made = cargo_run("--example", "synthetic_bottlenecks", "--", str(tmp_path)).strip()
    found = analyze(made)["findings"]
    assert {finding["rule"] for finding in found} == RULES
    figures = {finding["rule"]: {figure["name"]: figure["value"] for figure in finding["figures"]} for finding in found}
    assert figures["outlier_steps"]["outliers"] == 2, "one step hangs, on both ranks"
    assert figures["rank_skew"]["ranks"] == 2
    assert figures["copies_in_loop"]["pageable_copies"] == figures["copies_in_loop"]["copies"] == 2 * 16 * 3
    assert figures["interruptions"]["interruptions"] == 1, "one prefill"
