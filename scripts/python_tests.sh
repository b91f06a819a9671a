#!/bin/sh
# The Python side of `make test`: pandas, polars, pyarrow and DuckDB open a session that gpu-sim filled.
# Usage: scripts/python_tests.sh PYTHON
set -eu
python=$1
sessions=$(mktemp -d)
trap 'rm -rf "$sessions"' EXIT
target/debug/colonel run --sim --sessions-dir "$sessions" --json "$sessions/run.json" -- \
    colonel-sim decode --steps 100 --kernels 336 --graph >"$sessions/workload.txt" 2>/dev/null
COLONEL_TEST_SESSION=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["path"])' "$sessions/run.json")
COLONEL_TEST_WORKLOAD=$(tail -n 1 "$sessions/workload.txt")
COLONEL_BIN=target/debug/colonel
export COLONEL_TEST_SESSION COLONEL_TEST_WORKLOAD COLONEL_BIN
"$python" -m pytest -q tests/python/test_session.py
# On synthetic sessions then, sealed, compacted and cut off; and all the rest.
unset COLONEL_TEST_SESSION
"$python" -m pytest -q tests/python
