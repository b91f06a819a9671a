#!/bin/sh
# Fetches what the CUPTI tests compare with: NVIDIA's headers and libraries, from their wheels, and libclang.
# Usage: tests/cupti/fetch_wheels.sh [--all] [DIR]   (default: $COLONEL_WHEELS, else .wheels in the repository, ignored
# by git). --all fetches the releases in between, too, for `cargo test -p cupti-sys --features bindgen -- --ignored`.
#
# Each wheel is unpacked to DIR/PACKAGE-VERSION. Nothing of it may be committed: the licence allows no copies.
# What is there already is not fetched again; about 110 MB to fetch, 370 MB unpacked.
set -eu

releases_12="12.4.127 12.8.90 12.9.79"
releases_13="13.0.85 13.3.75 13.5.25"
if [ "${1:-}" = --all ]; then
    shift
    releases_12="$releases_12 12.5.82 12.6.80 12.9.19"
    releases_13="$releases_13 13.1.115 13.2.23 13.2.86 13.4.92"
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-${COLONEL_WHEELS:-$root/.wheels}}
mkdir -p "$dir"

# fetch NAME PACKAGE REQUIREMENT: unpacks to DIR/NAME.
fetch() {
    [ -d "$dir/$1" ] && return
    echo "fetching $2 $3" >&2
    work=$(mktemp -d "$dir/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$work" "$2==$3"
    mkdir "$work/unpacked"
    python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
    # Renamed last, so that what is there is whole; another run may have been quicker.
    mv -T "$work/unpacked" "$dir/$1" 2>/dev/null || [ -d "$dir/$1" ]
    rm -rf "$work"
}

# cupti PACKAGE_ENDING RELEASE...: the release, and the runtime of its minor for cuda.h.
cupti() {
    ending=$1
    shift
    for release in "$@"; do
        fetch "cupti-$release" "nvidia-cuda-cupti$ending" "$release"
        minor=${release%.*}
        fetch "runtime-$minor" "nvidia-cuda-runtime$ending" "$minor.*"
    done
}

# shellcheck disable=SC2086 # lists of words
cupti -cu12 $releases_12
# shellcheck disable=SC2086
cupti "" $releases_13
fetch libclang libclang 18.1.1
