#!/usr/bin/env bash
# Hardware counters on a GPU machine: bash benches/h100/counters/run.sh STAGE[=SECONDS]...
#
#   first   does it work and what does it cost: kernels of known behaviour, counters alone and with records; intervals and
#           sets; the loop's step against unprofiled, in turns; two samplers at once; CPU time of sampling and evaluation.
#           Its step `parts` (45 s) tells where the time of a sample goes, by set and metrics
#   truth   known kernels and a decode step of PyTorch's, sampled live and replayed by ncu: sessions for the estimator
#
# What is wanted most, in 8 minutes:
#   ONLY=kept,alone,parts,records,copy_alone,cost bash benches/h100/counters/run.sh first=190 truth=230
#
# Each stage takes 400 s at most unless told otherwise; ONLY=a,b runs the steps of `first` that have a or b in their name.
# Results go to $OUT (default: target/h100): counters_STAGE.json, a small session with its raw samples, counters_session.tar,
# and the sessions of `truth`, counters_truth_N.tar, of 16 MB at most each.
# The colonel binaries are looked for in carry/bin, then target/release, then target/debug.
set -uo pipefail
[ $# -gt 0 ] || { sed -n '3,10s/^# *//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${OUT:-$root/target/h100}
python=$(command -v "${PYTHON:-python3}") || { echo "run.sh: no \`${PYTHON:-python3}\`; name one with PYTHON="; exit 1; }
mkdir -p "$out"
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
export PYTHONUNBUFFERED=1 PATH="$PATH:/usr/local/cuda/bin"

site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
lib=$(find "$site/nvidia" /usr/local/cuda/extras/CUPTI /usr/local/cuda/lib64 -name 'libcupti.so.1[23]' 2>/dev/null | head -1)
[ -n "$lib" ] || { echo "run.sh: no libcupti.so.12 or .13 in $site/nvidia or /usr/local/cuda"; exit 1; }
ls "$(dirname "$lib")"/libnvperf_*.so || echo "run.sh: no libnvperf beside $lib: counters will be refused"

for source in counters/known loop; do
    nvcc -O2 -std=c++17 -arch=sm_90 -cudart shared -o "$build/$(basename "$source")" "$here/../$source.cu" \
        -Xlinker -rpath=/usr/local/cuda/lib64 || exit 1
done

failed=0
for asked in "$@"; do
    stage=${asked%%=*}
    seconds=400
    [[ $asked == *=* ]] && seconds=${asked#*=}
    [ -f "$here/stage_$stage.py" ] || { echo "run.sh: no stage \`$stage\`; known: first, truth"; exit 2; }
    "$python" "$here/../environment.py" "$build/environment.json" "counters $stage" "$lib" \
        "bash benches/h100/counters/run.sh $asked" || exit 1
    timeout -k 10 "$((seconds + 60))" "$python" "$here/stage_$stage.py" --build "$build" --out "$out" --root "$root" \
        --libcupti "$lib" --seconds "$seconds" ${ONLY:+--only "$ONLY"} || failed=1
done
exit $failed
