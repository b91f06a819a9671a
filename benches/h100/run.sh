#!/usr/bin/env bash
# One stage of the measurements on a GPU machine: bash benches/h100/run.sh probe|ranges|capture|overhead|sampled|layers|hosts
#
# Builds the C parts against the machine's own CUPTI, writes what the machine is into environment.json, and leaves
# the results in $OUT (default: target/h100). The colonel binaries are looked for in carry/bin, then target/release.
set -uo pipefail
stage=${1:?usage: run.sh probe|ranges|capture|overhead|sampled|layers|hosts}
shift
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${OUT:-$root/target/h100}
build=$(mktemp -d)
mkdir -p "$out"
export PYTHONUNBUFFERED=1

python=${PYTHON:-python3}
export PATH="$PATH:/usr/local/cuda/bin"

# libcupti: torch's own, so that no second copy is ever loaded; its headers beside it, else the toolkit's.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
lib=$(find "$site/nvidia" /usr/local/cuda/extras/CUPTI /usr/local/cuda/lib64 -name 'libcupti.so.1[23]' 2>/dev/null | head -1)
include=""
for folder in "$site/nvidia/cu13/include" "$site/nvidia/cuda_cupti/include" /usr/local/cuda/extras/CUPTI/include /usr/local/cuda/include; do
    [ -z "$include" ] && [ -f "$folder/cupti.h" ] && include=$folder
done
cuda_include=""
for folder in /usr/local/cuda/include /usr/local/cuda/targets/x86_64-linux/include "$site/nvidia/cu13/include" "$site/nvidia/cuda_runtime/include"; do
    [ -z "$cuda_include" ] && [ -f "$folder/cuda.h" ] && [ -f "$folder/crt/host_defines.h" ] && cuda_include=$folder
done
[ -n "$lib" ] && [ -n "$include" ] && [ -n "$cuda_include" ] || { echo "run.sh: no libcupti ($lib), cupti.h ($include) or cuda.h ($cuda_include) found"; exit 1; }
echo "libcupti: $lib  cupti.h: $include  cuda.h: $cuda_include"

# Only CUPTI's own headers from the wheel: nvcc brings the rest.
mkdir "$build/include"
ln -s "$include"/cupti*.h "$include"/generated_*.h "$include"/cuda_stdint.h "$build/include/" 2>/dev/null
rpath="-rpath=$(dirname "$lib")"

gcc -O2 -shared -fPIC -fvisibility=hidden -I"$build/include" -I"$cuda_include" "$here/bare_client.c" \
    -o "$build/libbare_client.so" -Wl,--no-as-needed "$lib" "-Wl,$rpath" -lpthread -ldl || exit 1

if [ "$stage" = capture ] || [ "$stage" = overhead ] || [ "$stage" = sampled ]; then
    for runtime in shared static; do
        nvcc -O2 -std=c++17 -arch=sm_90 -cudart $runtime -o "$build/loop_$runtime" "$here/loop.cu" -Xlinker "$rpath" || exit 1
    done
fi
source=""
[ "$stage" != probe ] || source=probe
[ "$stage" != ranges ] || source=probe_ranges
if [ -n "$source" ]; then
    nvcc -O2 -std=c++17 -arch=sm_90 -I"$build/include" -o "$build/$source" "$here/$source.cu" \
        -Xlinker "$lib" -Xlinker "$rpath" -ldl -lpthread || exit 1
fi

"$python" "$here/environment.py" "$build/environment.json" "$stage" "$lib" "bash benches/h100/run.sh $stage" || exit 1

case $stage in
ranges)
    # A line a question, the machine first.
    tr -d '\n' <"$build/environment.json" >"$out/ranges.jsonl"
    echo >>"$out/ranges.jsonl"
    for mode in node_ids captured launched; do
        timeout 60 "$build/probe_ranges" "$mode" >>"$out/ranges.jsonl" || echo "{\"q\":\"$mode\",\"exit\":$?}" >>"$out/ranges.jsonl"
    done
    tail -n +2 "$out/ranges.jsonl"
    ;;
probe) "$python" "$here/probe.py" "$build" "$out" ;;
capture | overhead | sampled | layers | hosts) "$python" "$here/$stage.py" --build "$build" --out "$out" --root "$root" --libcupti "$lib" "$@" ;;
*) echo "run.sh: unknown stage \`$stage\`, expected probe, ranges, capture, overhead, sampled, layers or hosts"; exit 2 ;;
esac
