#!/usr/bin/env bash
# Which kernels of a graph are recorded, by when it was made: bash benches/h100/probe_toggle.sh LIBCUPTI...
# One line for each library, set of kinds and script; see probe_toggle.cu for what the letters do.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/../../target/h100}
build=$(mktemp -d)
mkdir -p "$out"
export PATH="$PATH:/usr/local/cuda/bin"
nvcc -O2 -std=c++17 -arch=sm_90 -cudart static -o "$build/probe" "$here/probe_toggle.cu" -ldl -lpthread -Xlinker --export-dynamic || exit 1
gcc -shared -fPIC -x c -o "$build/libinjected.so" - <<'END' || exit 1
#include <dlfcn.h>
int InitializeInjection(void) {
    void (*within)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "within_cu_init");
    if (within) within();
    return 1;
}
END
export CUDA_INJECTION64_PATH="$build/libinjected.so"
read -ra scripts <<<"${SCRIPTS:-}"
[ ${#scripts[@]} -gt 0 ] || scripts=(
    CISELDLEL SECIDEL SECILDEL SECIDLEL SECILDLELDLEL SECIDUEL SECIDLELDLELDLEL SECIDLEDEL SECIDLEDELDEL
    SECDIEL SECDIELDLEL SCEIDEL SCEIDLELDLEL SEDCILEL SEKDCILEL SEKDKEKDK SECILCILDLELEADEADLEAL SECIDLECILAEKDEALK
    YXSCIELDELDEL YSXCIELDELDEL YSEXCILDELDEL YSEXCILDLEL JYXCILDELDEL JYXDCILELDEL JYXCILDLELDEL
    YBXQCILDELDEL YBXQCILDLELDEL YBXQCILDRELDEL YBXQCILDrELDEL JYXCILDRELDEL JYXCILDrELDEL YBXQDCILELDEL
    "hY{X}CI(WDWEW)DEL" "hYD{X}CI(WEWDWEW)DEL" "YBXQCI(WDWEW)ELDEL" "JYXCI(WDWEW)ELDEL" "YXSCI(WEWDWEW)ELDEL"
    "SECI(WDWEW)DEL" "SECI(WDWEW)DLELDLEL" "CISE(WDWEW)DLEL" "SECI(WDW)EL(WDW)EL"
)
one() {
    timeout 20 "$build/probe" "$@" 2>"$(mktemp -p "$build" errors.XXXX)" && return
    local code=$?
    echo "{\"library\":\"$(basename "$(dirname "$1")")\",\"kinds\":\"$2\",\"script\":\"$3\",\"exit\":$code}"
}
export -f one
export build
for library in "$@"; do
    for kinds in ${KINDS:-kernel all}; do
        printf '%s\0' "${scripts[@]}" | xargs -0 -P 6 -I{} bash -c 'one "$@"' one "$library" "$kinds" {} >>"$out/toggle.jsonl"
    done
done
cat "$build"/errors.* >"$out/toggle-hangs.txt"
