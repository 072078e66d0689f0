#!/usr/bin/env bash
# Many crash images, over all processors: prints how many of what were looked at, a line for each kind
# of memory, and how many violations there were; exit status 1 when there was one.
#
#   tests/crash/campaign.sh [IMAGES [FIRST_SEED]]      default 100000 images, seeds from 1
#
# Takes crash-images from $EMBAR_BUILD_DIR (default: build/release), JOBS at once (default: all
# processors). A violation names its memory and its seed; the line below it, the call that takes the same
# images again.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"

images=${1:-100000}
seed=${2:-1}
program=${EMBAR_BUILD_DIR:-$top/build/release}/tests/crash/crash-images
[ -x "$program" ] || die "no $program: build first, or say where with EMBAR_BUILD_DIR"

# Parts of 5,000 images; a seed has 400 or 1,000. Of nine parts four are of the memory that promises most.
kinds=(lines hosts file lines file-machine lines process file-machine lines)
for ((part = 0; part * 5000 < images; part++)); do
    left=$((images - part * 5000))
    echo "${kinds[part % 9]} $((left < 5000 ? left : 5000)) $((part % 2 ? 1000 : 400)) $((seed + part * 20)) $scratch/$part"
done >"$scratch/parts"
# shellcheck disable=SC2016
xargs -r -P "${JOBS:-$(nproc)}" -n 5 sh -c '
    { "$0" --memory "$1" --images "$2" --each "$3" --seed "$4" ||
        echo "crash-images --memory $1 --images $2 --each $3 --seed $4: status $?"; } 2>&1 | sed "s/^/$1 /" >"$5"' \
    "$program" <"$scratch/parts"

find "$scratch" -type f -name '[0-9]*' -exec cat {} + | awk '
    $2 == "images" {
        for (i = 2; i < NF; i += 2) {
            if (!(($i, "all") in sum)) order[++n] = $i
            sum[$i, $1] += $(i + 1)
            sum[$i, "all"] += $(i + 1)
        }
        next
    }
    { print; bad++ }
    END {
        count = split("lines hosts process file file-machine all", kind, " ")
        for (k = 1; k <= count; k++) {
            if (sum["images", kind[k]] == 0) continue
            printf "%s:", kind[k]
            for (i = 1; i <= n; i++) printf " %s %d%s", order[i], sum[order[i], kind[k]], i < n ? "," : "\n"
        }
        exit bad > 0 || sum["images", "all"] == 0
    }'
