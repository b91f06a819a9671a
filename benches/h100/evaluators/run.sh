#!/usr/bin/env bash
# nsys and ncu beside colonel's own evaluator: bash benches/h100/evaluators/run.sh STAGE[=SECONDS]...
#
#   loop   the C++ loop, graphs and eager, and a torch matmul: kernels counted, times compared, what each costs; how ncu
#          replays CUDA graphs, with a watch over it
#   scripts  NVIDIA's report scripts on an exported session: the same launches and times?
#   ends   programs that hang, crash or use no CUDA under nsys and ncu: is it told, and what do these say? 100 s
#   vllm   demo 05 on real vLLM, graphs and eager, under cupti, nsys and ncu; run benches/h100/vllm/run.sh warm first.
#          With ONLY=, by how long each took or may take: nsys_graph_graphs 50 s, ncu_graph_graphs and ncu_graph_by_name
#          70, ncu_application 60 a pass, ncu_warm_and_free 90, ncu_default_bound 6 min
#
# Each stage takes 250 s at most unless told otherwise; ONLY=a,b runs the steps that have a or b in their name. Results go
# to $OUT (default: target/h100): evaluators_STAGE.json, what people read in evaluators_STAGE.txt, and what the profilers
# say and write, for the stand-ins in tests/nsight to be held against, in evaluators_words/.
# colonel, its Python package and vLLM are looked for as benches/h100/vllm/run.sh does. carry/lib is put on
# LD_LIBRARY_PATH: nsys needs a libdw.so.1 that GPU images may lack.
set -uo pipefail
[ $# -gt 0 ] || { sed -n '4,14s/^# *//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${OUT:-$root/target/h100}
work=${WORK:-${TMPDIR:-/tmp}/colonel-vllm}
python=$(command -v "${PYTHON:-python3}") || { echo "run.sh: no \`${PYTHON:-python3}\`; name one with PYTHON="; exit 1; }
mkdir -p "$out" "$work"
build=$(mktemp -d)
export PYTHONUNBUFFERED=1 PATH="$(dirname "$python"):$PATH:/usr/local/cuda/bin"
[ ! -d "$root/carry/lib" ] || export LD_LIBRARY_PATH="$root/carry/lib:${LD_LIBRARY_PATH:-}"
cd "$root" || exit 1

failed=0
for asked in "$@"; do
    stage=${asked%%=*}
    seconds=235
    [[ $asked == *=* ]] && seconds=${asked#*=}
    [ -f "$here/stage_$stage.py" ] || { echo "run.sh: no stage \`$stage\`; known: loop, scripts, ends, vllm"; exit 2; }
    if [ "$stage" = vllm ] && [ -f carry/vllm/unpack.sh ]; then
        bash carry/vllm/unpack.sh "$root/carry/vllm" "$work/vllm" || exit 1
    fi
    if [ "$stage" = loop ]; then
        nvcc -O2 -std=c++17 -arch=sm_90 -cudart shared -o "$build/loop" "$here/../loop.cu" \
            -Xlinker -rpath=/usr/local/cuda/lib64 || exit 1
    fi
    "$python" "$here/../environment.py" "$build/environment.json" "evaluators $stage" "" \
        "bash benches/h100/evaluators/run.sh $asked" || exit 1
    timeout -k 10 "$((seconds + 60))" "$python" "$here/stage_$stage.py" --build "$build" --out "$out" --root "$root" \
        --work "$work" --seconds "$seconds" ${ONLY:+--only "$ONLY"} || failed=1
done
exit $failed
