#!/usr/bin/env bash
# Weeks of churn (by its own clock) in a pool of 2 GiB: 10,000 topics of all retention settings are
# filled, read, trimmed, renamed, removed and made anew; the log checkpoints, closes, dies and opens;
# every byte read is checked, all of them after each opening, and at the end nothing is left in use.
#
#   tests/churn.sh [OPERATIONS [SEED [TRIMMABLE]]]
#
# Default: 50000000 operations, seed 1; of 100 topics 45 may be trimmed when the pool is full (0: what is
# in the way of a large batch can only be moved)
#
# Takes churn from $EMBAR_BUILD_DIR (default: build/release). Prints what was done and how long it
# took; exit status 1 and a sentence when something was not as it must be.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

operations=${1:-50000000}
program=${EMBAR_BUILD_DIR:-$top/build/release}/tests/churn/churn
[ -x "$program" ] || die "no $program: build first, or say where with EMBAR_BUILD_DIR"

began=$SECONDS
"$program" "$operations" 10000 2048 "${2:-1}" $((operations < 20000000 ? operations / 10 + 1 : 2000000)) "${3:-45}"
say "$((SECONDS - began)) seconds"
