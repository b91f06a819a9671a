#!/usr/bin/env bash
# Windows that `colonel start` and `stop` open in a loop that was recorded from its start: bash benches/h100/windows.sh LIBCUPTI...
# For each library: what the guest logs, kernels and graph launches (of 336) of each window, what lay outside of them.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${OUT:-$root/target/h100}
work=$(mktemp -d)
mkdir -p "$out"
bin=$root/carry/bin
[ -x "$bin/colonel" ] || bin=$root/target/release
nvcc -O2 -std=c++17 -arch=sm_90 -cudart shared -o "$work/loop" "$here/loop.cu" || exit 1
for library in "$@"; do
    sessions=$(mktemp -d -p "$work")
    COLONEL_LOG=1 COLONEL_CUPTI=$library timeout 40 "$bin/colonel" run --no-analyze --sessions-dir "$sessions" -- \
        "$work/loop" --plan idle:graph:40x300 >"$work/log" 2>&1 &
    sleep 3
    for _ in 1 2 3; do
        "$bin/colonel" stop --sessions-dir "$sessions" 2>&1 | tail -2
        sleep 0.7
        "$bin/colonel" start --sessions-dir "$sessions" 2>&1 | tail -1
        sleep 0.3
    done
    "$bin/colonel" stop --sessions-dir "$sessions" | tail -1
    wait
    grep -E "window|records|mark" "$work/log" | tail -14
    "${PYTHON:-python3}" - "$sessions" <<'END'
import collections, glob, json, sys
import pyarrow.parquet as pq

kernels = collections.Counter()
for file in glob.glob(f"{sys.argv[1]}/*/kernels/**/*.parquet", recursive=True):
    kernels.update(pq.ParquetFile(file).read(columns=["window"])["window"].to_pylist())
print({window: (count, count / 336) for window, count in sorted(kernels.items())})
for file in glob.glob(f"{sys.argv[1]}/*/session.json"):
    session = json.load(open(file))
    outside = [process.get("outside_windows") for process in session["processes"]]
    problems = [problem["code"] for process in session["processes"] for problem in process["problems"]]
    print(outside, problems, session.get("losses"))
END
done 2>&1 | tee "$out/windows.txt"
