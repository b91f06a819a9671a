"""Runs a query of `colonel query` in DuckDB's Python package. stdin has the job as JSON; stdout gets the answer.

`src/query/engine.rs` passes this text to a python, which need not have the package `colonel`.
"""

from __future__ import annotations

import json
import sys

# `python -c` looks into the current folder first, where anything may be called `duckdb`.
if sys.path[0] == "":
    del sys.path[0]

import duckdb

COPIES = {
    "csv": "(FORMAT csv, HEADER, USE_TMP_FILE false)",
    "table": "(FORMAT csv, HEADER, NULLSTR 'NULL', USE_TMP_FILE false)",
    "json": "(FORMAT json, ARRAY true, USE_TMP_FILE false)",
    "parquet": "(FORMAT parquet)",
}


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation | None:
    """The answer, not computed yet; None for a statement without one."""
    try:
        return connection.sql(sql)
    except (duckdb.BinderException, duckdb.CatalogException):
        # This one says where in the text the error is; the text did not run.
        connection.execute(sql)
        raise


def main() -> None:
    """Answers the job."""
    job = json.load(sys.stdin)
    connection = duckdb.connect()
    connection.execute(job["views"])
    answer = ask(connection, job["sql"])
    if answer is None:
        return
    connection.register("colonel_answer", answer)
    target = (job["out"] or "/dev/stdout").replace("'", "''")
    connection.execute(f"COPY (FROM colonel_answer) TO '{target}' {COPIES[job['format']]}")


try:
    main()
except duckdb.Error as error:
    sys.exit(f"colonel: {error}")
