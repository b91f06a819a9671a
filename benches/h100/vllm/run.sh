#!/usr/bin/env bash
# Real vLLM on a GPU machine: bash benches/h100/vllm/run.sh STAGE[=SECONDS]...
#
#   warm      fills vLLM's compile caches, all versions and modes side by side; run it first
#   capture   demo 05 under colonel, in all combinations, against vLLM's own torch profiler
#   regions   two windows, nested and overlapping ones, an exception, everything in one process, no session
#   layers    the layer of each kernel, by colonel's ranges and by structure: full graphs, pieces, eager
#   server    the API server: /start_profile, `colonel start`, eight clients
#   ends      SIGTERM, SIGKILL, and a script that ends inside a window
#   demos     every demo as the guide shows it, and what it prints
#   overhead  rounds of decode that take turns: unprofiled, armed, capturing, a bare CUPTI client, torch
#
# Results go to $OUT (default: target/h100) as vllm_STAGE.json. PYTHON= names the Python that has torch. colonel is
# looked for in carry/bin, then target/release; its Python package in carry/python, then python/. A vLLM packed as
# carry/vllm/{unpack.sh,part-*} is unpacked first, an older one from carry/vllm/old as well; else PYTHON's own is used.
# ONLY=a,b runs the steps that have a or b in their name; MODE=eager chooses the overhead's engines.
# COLONEL_BENCH_SIM=1 tries the stages on gpu-sim and the tests' stand-in of vLLM.
set -uo pipefail
[ $# -gt 0 ] || { sed -n '4,11s/^# *//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${OUT:-$root/target/h100}
work=${WORK:-${TMPDIR:-/tmp}/colonel-vllm}
python=$(command -v "${PYTHON:-python3}") || { echo "run.sh: no \`${PYTHON:-python3}\`; name one with PYTHON="; exit 1; }
mkdir -p "$out" "$work"
build=$(mktemp -d)
export PYTHONUNBUFFERED=1 PATH="$(dirname "$python"):$PATH:/usr/local/cuda/bin"
cd "$root" || exit 1

if [ "${COLONEL_BENCH_SIM:-}" != 1 ]; then
    for part in "vllm vllm" "vllm/old vllm_old"; do
        read -r from to <<<"$part"
        [ ! -f "carry/$from/unpack.sh" ] || bash "carry/$from/unpack.sh" "$root/carry/$from" "$work/$to" || exit 1
    done
fi

# torch's own libcupti, and its headers for the bare client.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
lib=$(find "$site/nvidia" /usr/local/cuda/extras/CUPTI /usr/local/cuda/lib64 -name 'libcupti.so.1[23]' 2>/dev/null | head -1)
bare_client() {
    local include="" cuda_include="" folder
    for folder in "$site/nvidia/cu13/include" "$site/nvidia/cuda_cupti/include" /usr/local/cuda/extras/CUPTI/include; do
        [ -z "$include" ] && [ -f "$folder/cupti.h" ] && include=$folder
    done
    for folder in /usr/local/cuda/include /usr/local/cuda/targets/x86_64-linux/include "$site/nvidia/cu13/include"; do
        [ -z "$cuda_include" ] && [ -f "$folder/cuda.h" ] && [ -f "$folder/crt/host_defines.h" ] && cuda_include=$folder
    done
    [ -n "$lib" ] && [ -n "$include" ] && [ -n "$cuda_include" ] || { echo "run.sh: no CUPTI to build bare_client.c with"; return 1; }
    mkdir -p "$build/include"
    ln -sf "$include"/cupti*.h "$include"/generated_*.h "$include"/cuda_stdint.h "$build/include/" 2>/dev/null
    gcc -O2 -shared -fPIC -fvisibility=hidden -I"$build/include" -I"$cuda_include" "$here/../bare_client.c" \
        -o "$build/libbare_client.so" -Wl,--no-as-needed "$lib" "-Wl,-rpath=$(dirname "$lib")" -lpthread -ldl
}

failed=0
for asked in "$@"; do
    stage=${asked%%=*}
    seconds=540
    [[ $asked == *=* ]] && seconds=${asked#*=}
    [ -f "$here/stage_$stage.py" ] || { echo "run.sh: no stage \`$stage\`; known: warm, capture, regions, layers, server, ends, demos, overhead, sampled"; exit 2; }
    [ "$stage" != overhead ] || [ "${COLONEL_BENCH_SIM:-}" = 1 ] || bare_client
    "$python" "$here/../environment.py" "$build/environment.json" "$stage" "$lib" "bash benches/h100/vllm/run.sh $asked" || exit 1
    begin=$SECONDS
    # A stage minds its own time; this is for one that hangs.
    timeout -k 10 "$((seconds + 60))" "$python" "$here/stage_$stage.py" --build "$build" --out "$out" --root "$root" \
        --work "$work" --seconds "$seconds" ${ONLY:+--only "$ONLY"} || failed=1
    echo "-- $stage: $((SECONDS - begin)) s"
done
exit $failed
