#!/bin/sh
# How often `colonel compare` is wrong on simulated runs, as docs/measurements keeps it: one line of JSON a kind of run.
# Usage: scripts/figures/compare.sh FILE    (5 minutes)
set -eu
COLONEL_FIGURES=$(realpath -m "$1")
export COLONEL_FIGURES
cargo test --release --lib analysis::compare::simulated::table -- --ignored --exact
