#!/bin/sh
# Screenshots of a session's report at the widths of a laptop (light) and a phone (dark), for docs/images.
# Usage: scripts/report_screenshots.sh SESSION FOLDER    (needs chromium, and pngquant to make the files small)
set -eu
session=$1
folder=$2
page=$(mktemp -d)/report.html
trap 'rm -rf "$(dirname "$page")"' EXIT
"${COLONEL_BIN:-target/debug/colonel}" report "$session" -o "$page" >/dev/null
shot() { # NAME WIDTH HEIGHT OPTION...
    name=$1 width=$2 height=$3
    shift 3
    chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=8000 \
        --window-size="$width,$height" --screenshot="$folder/$name.png" "$@" "file://$page" 2>/dev/null
    pngquant --force --output "$folder/$name.png" 64 "$folder/$name.png"
}
shot report_laptop 1280 2600
# Chromium draws no window narrower than 500.
shot report_phone 500 2400 --blink-settings=preferredColorScheme=0
