#!/usr/bin/env bash
# Many crash images, over all processors: prints how many of what were looked at and how many
# violations there were; exit status 1 when there was one.
#
#   tests/crash/campaign.sh [IMAGES [FIRST_SEED]]      default 100000 images, seeds from 1
#
# Takes crash-images from $EMBAR_BUILD_DIR (default: build/release). A violation names its seed:
# crash-images --seed N --images 1000 takes the same images again.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"

images=${1:-100000}
seed=${2:-1}
program=${EMBAR_BUILD_DIR:-$top/build/release}/tests/crash/crash-images
[ -x "$program" ] || die "no $program: build first, or say where with EMBAR_BUILD_DIR"

# Parts of 10,000 images, ten seeds each.
for ((part = 0; part * 10000 < images; part++)); do
    left=$((images - part * 10000))
    echo "$((left < 10000 ? left : 10000)) $((seed + part * 11)) $scratch/$part"
done >"$scratch/parts"
# shellcheck disable=SC2016
xargs -r -P "$(nproc)" -n 3 sh -c '
    "$0" --images "$1" --seed "$2" >"$3" 2>&1 || echo "crash-images --images $1 --seed $2: status $?" >>"$3"' \
    "$program" <"$scratch/parts"

find "$scratch" -type f -name '[0-9]*' -exec cat {} + | awk '
    $1 == "images" { for (i = 1; i < NF; i += 2) { if (!($i in sum)) order[++n] = $i; sum[$i] += $(i + 1) } next }
    { print; bad++ }
    END {
        for (i = 1; i <= n; i++) printf "%s%s %d", i > 1 ? ", " : "", order[i], sum[order[i]]
        print ""
        exit bad > 0 || sum["images"] == 0
    }'
