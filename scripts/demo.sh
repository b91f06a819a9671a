#!/bin/sh
# make demo: profile a small CUDA workload and print its table. On a machine with a GPU the workload launches real
# kernels, elsewhere the same library records gpu-sim's. Usage: scripts/demo.sh BIN_DIR
set -eu
bin=$1
sessions=${COLONEL_SESSIONS_DIR:-.colonel/sessions}

if [ -e /dev/nvidiactl ] && [ -z "${COLONEL_DEMO_SIM:-}" ]; then
    set -- --gate process -- "$bin/demo-cuda" --graph --steps 100
    echo "demo: a CUDA graph of real kernels, launched 100 times"
else
    set -- --sim -- colonel-sim decode --steps 100 --kernels 336 --graph
    echo "demo: no GPU here, so gpu-sim plays one: a CUDA graph of 336 kernels, launched 100 times"
fi
echo "\$ colonel run $(echo "$*" | sed "s|$bin/||g")"
"$bin/colonel" run --sessions-dir "$sessions" "$@"
echo
echo "\$ colonel show"
"$bin/colonel" show --sessions-dir "$sessions" latest
