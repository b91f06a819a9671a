#!/bin/sh
# Screenshots of a session's report, and of its comparison with another, at the widths of a laptop (light) and a phone
# (dark), for docs/images.
# Usage: scripts/report_screenshots.sh SESSION OTHER FOLDER    (needs chromium, and pngquant to make the files small)
set -eu
session=$1
other=$2
folder=$3
colonel=${COLONEL_BIN:-target/debug/colonel}
pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT
"$colonel" report "$session" -o "$pages/report.html" >/dev/null
"$colonel" compare "$session" "$other" --by layer --format html -o "$pages/compare.html" >/dev/null
shot() { # PAGE WHERE WIDTH HEIGHT OPTION...
    page=$pages/$1.html name=$1_$2 width=$3 height=$4
    shift 4
    chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=8000 \
        --window-size="$width,$height" --screenshot="$folder/$name.png" "$@" "file://$page" 2>/dev/null
    pngquant --force --output "$folder/$name.png" 64 "$folder/$name.png"
}
shot report laptop 1280 2600
shot compare laptop 1280 1800
# Chromium draws no window narrower than 500.
shot report phone 500 2400 --blink-settings=preferredColorScheme=0
shot compare phone 500 2000 --blink-settings=preferredColorScheme=0
