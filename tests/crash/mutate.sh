#!/usr/bin/env bash
# Would the crash images notice? Leaves out one write-back, drain, sync or checksum test of core at a
# time, runs crash-images, and prints who was noticed (killed) and who was not (survived).
#
#   tests/crash/mutate.sh [IMAGES]      images a mutant and kind of memory (default 30000)
#
# Calls of the flush layer and syncs are left out at run time, by the address they return to.
# Checksum tests (mutate.checks) are changed in a copy of the tree and built there; most of them
# catch damage rather than crashes, so that core-hostile, which damages pools, is asked too.
# mutate.known says of survivors why nothing can notice them; exit status 1: another one survived.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"

images=${1:-30000}
jobs=$(nproc)
known=$top/tests/crash/mutate.known
build=$scratch/build

# build_in TREE BUILD: sites keep their names when nothing is inlined over them.
build_in() {
    if ! { cmake -S "$1" -B "$2" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g -fno-optimize-sibling-calls" &&
        cmake --build "$2" --target crash-images core-hostile -j "$jobs"; } >"$scratch/log" 2>&1; then
        tail -n 30 "$scratch/log" >&2
        die "$1 does not build"
    fi
}

# verdict NAME PROGRAM ARGUMENT...: run it over the kinds of memory until one notices.
verdict() {
    local name=$1 kind status out
    shift
    for kind in lines file-machine file process; do
        status=0
        out=$(timeout 900 "$@" --memory "$kind" --images "$images" --each 400 2>&1) || status=$?
        if [ "$status" -ne 0 ]; then
            printf 'killed   %-46s %s: %s\n' "$name" "$kind" \
                "$(printf '%s\n' "$out" | head -n 1 | cut -c 1-150)"
            return 0
        fi
    done
    if [ -x "$1.hostile" ] && ! out=$(timeout 300 "$1.hostile" 2>&1); then
        printf 'killed   %-46s %s\n' "$name" \
            "core-hostile: $(printf '%s\n' "$out" | grep -m 1 -E 'FAILED|ERROR' | cut -c 1-100)"
        return 0
    fi
    if grep -q "^$name " "$known"; then
        printf 'known    %-46s %s\n' "$name" "$(sed -n "s/^$name *//p" "$known")"
    else
        printf 'SURVIVED %-46s\n' "$name"
    fi
}

# site_name OFFSET: function and place of the call, past what was inlined.
site_name() {
    addr2line -i -f -s -e "$program" "$(printf '%#x' $(($1 - 1)))" | paste -d ' ' - - |
        sed 's/ (discriminator.*//' | grep -v ' flush\.h:' | head -n 1
}

build_in "$top" "$build"
program=$build/tests/crash/crash-images

say "== flush and sync call sites"
for kind in lines file file-machine; do
    "$program" --memory "$kind" --images 3000 --sites
done | awk '$1 == "site" && !seen[$2]++ { print $2, $3 }' | while read -r offset what; do
    read -r where line < <(site_name "$offset")
    printf '%s\t%s\t%s\n' "$line" "$what:$where" "$offset"
done | sort -t : -k 1,1 -k 2,2n | awk -F '\t' '{ n = ++seen[$2]; print $2 (n > 1 ? "#" n : ""), $3 }' >"$scratch/sites"

while read -r name offset; do
    while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n; done
    verdict "$name" "$program" --skip "$offset" >"$scratch/verdict.$name" &
done <"$scratch/sites"
wait
cat "$scratch"/verdict.* | sort

say "== checksum tests"
# Each line: name, file, expression, what takes its place.
while IFS='@' read -r name file from to; do
    [ -n "$name" ] || continue
    tree=$scratch/tree
    rm -rf "$tree"
    mkdir "$tree"
    (cd "$top" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree")
    awk -v from="$from" -v to="$to" '
        !done && (at = index($0, from)) {
            $0 = substr($0, 1, at - 1) to substr($0, at + length(from)); done = 1
        }
        { print }
        END { exit !done }' "$tree/$file" >"$scratch/mutant" || die "$name: '$from' is not in $file"
    cp "$scratch/mutant" "$tree/$file"
    build_in "$tree" "$scratch/build.mutant"
    cp "$scratch/build.mutant/tests/crash/crash-images" "$scratch/mutant.$name"
    cp "$scratch/build.mutant/tests/unit/core/core-hostile" "$scratch/mutant.$name.hostile"
    while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n; done
    verdict "$name" "$scratch/mutant.$name" >"$scratch/check.$name" &
done <"$top/tests/crash/mutate.checks"
wait
cat "$scratch"/check.* | sort

cat "$scratch"/verdict.* "$scratch"/check.* | awk '
    { n[$1]++ }
    END {
        printf "%d killed, %d known to be unnoticeable, %d survived\n", n["killed"], n["known"], n["SURVIVED"]
        exit n["SURVIVED"] > 0
    }'
