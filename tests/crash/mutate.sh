#!/usr/bin/env bash
# Would the crash images notice? Leaves out one write-back, drain, sync, checksum test or step of core at a
# time, runs crash-images, and prints who was noticed (killed) and who was not (survived).
#
#   tests/crash/mutate.sh [--note] [IMAGES]   IMAGES: a mutant and kind of memory (default 15000)
#   tests/crash/mutate.sh --only NAME [IMAGES]
#                                             changes of the source whose names begin so (a pattern
#                                             of bash goes too: '@(move|call:move)'), and no sites
#   tests/crash/mutate.sh --quick [BUILD]     a few sites, in a build that is there, if it says where its
#                                             calls stand; one of Debug or Release does not, and crash-images
#                                             is built once more as below
#
# Calls of the flush layer and syncs are left out at run time, by the address they return to: every
# call that stands in core must have been seen. Checksum tests, and calls and steps whose order is a
# protocol (mutate.checks), are changed in a copy of the tree and built there; core-hostile, which damages
# pools, core-readonly, which looks at served ones, about moves core-move, and about what waits for a sync core-rounds are
# asked too. Every comparison with a
# checksum that stands in core must be listed.
#
# A mutant is tried with what killed it the last time (mutate.killers; --note writes what did now) and
# then with slice after slice of seeds, until it is killed or IMAGES are through. mutate.known says of
# survivors why nothing can notice them; exit status 1: another one survived.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"

jobs=${JOBS:-$(nproc)}
here=$top/tests/crash
quick=
note=
only=
case ${1:-} in
--quick)
    quick=${2:-${EMBAR_BUILD_DIR:-$top/build/release}}
    shift $#
    ;;
--note)
    note=yes
    shift
    ;;
--only)
    only=${2:?a name}
    shift 2
    ;;
esac
images=${1:-15000}
listed=8000
build=$scratch/build
programs=(crash-images core-hostile core-readonly core-move core-rounds)

# Named at any optimisation: their callers do something afterwards.
quick_sites=(drain:log_announce writeback:side_store drain:control_place drain:checkpoint_begin
    writeback:piece_write writeback:piece_end sync:background_sync sync:pool_format)

# ---- One mutant ----------------------------------------------------------------------------------

# slice NUMBER KIND PROGRAM ARGUMENT...: fails, with the reason in $reason, when it notices. The same
# number is the same images. Ten seeds; short lives of a pool come first.
slice() {
    local number=$1 kind=$2 program=$3 each out
    shift 3
    if [ "$kind" = hostile ]; then
        out=$(timeout 300 "$program.hostile" 2>&1 && timeout 300 "$program.readonly" 2>&1 &&
            { [[ $program != *move* ]] || timeout 300 "$program.move" 2>&1; } &&
            { [[ $program != *-mark* ]] || timeout 300 "$program.rounds" 2>&1; }) && return 0
        reason=$(printf '%s\n' "$out" | grep -m 1 -E 'FAILED|ERROR' || echo 'it does not end well')
        return 1
    fi
    if [ "$kind" = scenes ]; then
        out=$(timeout 300 "$program" "$@" --scenes 2>&1) && return 0
        reason=$(printf '%s\n' "$out" | head -n 1)
        return 1
    fi
    each=$((number % 2 ? 600 : 150))
    out=$(timeout 300 "$program" "$@" --memory "$kind" --seed $((1 + number * 100)) \
        --images $((each * 10)) --each "$each" 2>&1) && return 0
    reason=$(printf '%s\n' "$out" | head -n 1)
    return 1
}

# verdict NAME PROGRAM KINDS ARGUMENT...: one line about a mutant.
verdict() {
    local name=$1 program=$2 kinds=$3 kind number=0 done=0 last
    shift 3
    last=$(awk -v name="$name" '$1 == name { print $2, $3 }' "$here/mutate.killers")
    if [ -n "$last" ] && ! slice "${last#* }" "${last% *}" "$program" "$@"; then
        killed "$name" "${last% *}" "${last#* }"
        return 0
    fi
    while [ "$done" -lt "$images" ]; do
        for kind in $kinds; do
            if [[ $kind == @(hostile|scenes) && $number -gt 0 ]]; then
                continue
            fi
            if ! slice "$number" "$kind" "$program" "$@"; then
                killed "$name" "$kind" "$number"
                return 0
            fi
        done
        done=$((done + (number % 2 ? 6000 : 1500)))
        number=$((number + 1))
    done
    if grep -q "^$name " "$here/mutate.known"; then
        printf 'known    %-40s %s\n' "$name" "$(sed -n "s/^$name *//p" "$here/mutate.known")"
    else
        printf 'SURVIVED %-40s %s\n' "$name" "$kinds"
    fi
}

killed() {
    printf 'killed   %-40s %s %s: %s\n' "$1" "$2" "$3" "$(printf '%s' "$reason" | cut -c 1-140)"
}

# start FILE VERDICT-ARGUMENT...: in the background, as many at once as there are processors.
start() {
    local to=$1
    shift
    while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do wait -n; done
    verdict "$@" >"$to" &
}

# ---- Call sites ----------------------------------------------------------------------------------

# site_name OFFSET: function and place of the call, past what was inlined; nothing when it is not known.
site_name() {
    addr2line -i -f -s -e "$program" "$(printf '%#x' $(($1 - 1)))" | paste -d ' ' - - |
        sed 's/ (discriminator.*//' | awk '$2 !~ /^(flush|pool)\.h:/ && $2 ~ /\.c:[0-9]+$/ { print; exit }'
}

# Does $program say where its calls stand? Not without -g, and not where the flush layer's functions are
# calls of their own.
names_sites() {
    local offset
    "$program" --memory lines --images 300 --each 300 --sites | awk '$1 == "site" { print $2 }' | while read -r offset; do
        [ -n "$(site_name "$offset")" ] || return 1
    done
}

# find_sites: $scratch/sites has a line for each call: name, place, kinds of memory that notice such
# things and come by it, and the options that leave it out.
find_sites() {
    local kind offset what where line
    for kind in lines file file-machine hosts; do
        "$program" --memory "$kind" --images "$listed" --each 400 --sites >"$scratch/seen.$kind"
    done
    "$program" --scenes --sites >"$scratch/seen.scenes"
    for kind in lines file file-machine hosts scenes; do
        awk -v kind="$kind" '$1 == "site" && !seen[$2]++ { print $2, $3, kind }' "$scratch/seen.$kind"
    done | sort | while read -r offset what kind; do
        read -r where line < <(site_name "$offset") ||
            die "nothing says where the $what at $offset of $program stands"
        printf '%s\t%s\t%s\t%s\n' "$line" "$what:$where" "$kind" "$offset"
    done | sort -t : -k 1,1 -k 2,2n | awk -F '\t' '
        { at = $1 " " $2 }
        !(at in name) { n = ++of[$2]; name[at] = $2 (n > 1 ? "#" n : ""); order[++all] = at; place[at] = $1 }
        !((at, $3) in kind) { kind[at, $3]; kinds[at] = kinds[at] (kinds[at] ? "," : "") $3 }
        !((at, $4) in skip) { skip[at, $4]; skips[at] = skips[at] " --skip " $4 }
        END { for (i = 1; i <= all; i++) print name[order[i]], place[order[i]], kinds[order[i]] skips[order[i]] }
        ' >"$scratch/sites"
}

# Calls that stand in the source and that nothing came by. fsck repairs nothing here: its own campaign does.
unseen_sites() {
    (cd "$top/core" && grep -nE '\b(flush_(writeback|drain|copy|invalidate)|region_sync)\(' ./*.c) |
        grep -vE '^./(flush|fsck)|^[^:]*:[0-9]+:(int|static|void) ' | sed 's/^\.\///; s/^\([^:]*:[0-9]*\):.*/\1/' |
        while read -r place; do
            awk -v place="$place" '$2 == place { found = 1 } END { exit !found }' "$scratch/sites" ||
                printf 'SURVIVED %-40s nothing comes by it\n' "$place"
        done
}

try_sites() {
    local name place kinds skips
    while read -r name place kinds skips; do
        if [ -n "$quick" ] && [[ " ${quick_sites[*]} " != *" $name "* ]]; then
            continue
        fi
        # shellcheck disable=SC2086
        start "$scratch/site.$name" "$name" "$program" "${kinds//,/ }" $skips
    done <"$scratch/sites"
    wait
}

# ---- Changes of the source -----------------------------------------------------------------------

# build_in TREE TARGET...: sites keep their names when nothing is inlined over them and no call is a jump.
build_in() {
    local from=$1
    shift
    if ! { { [ -f "$build/build.ninja" ] || cmake -S "$from" -B "$build" -G Ninja \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g -fno-optimize-sibling-calls"; } &&
        cmake --build "$build" --target "$@" -j "$jobs"; } >"$scratch/log" 2>&1; then
        tail -n 30 "$scratch/log" >&2
        die "$from does not build"
    fi
}

# keep NAME: what was just built, as $scratch/NAME, with .hostile, .readonly, .move and .rounds.
keep() {
    cp "$build/tests/crash/crash-images" "$scratch/$1"
    cp "$build/tests/unit/core/core-hostile" "$scratch/$1.hostile"
    cp "$build/tests/unit/core/core-readonly" "$scratch/$1.readonly"
    cp "$build/tests/unit/core/core-move" "$scratch/$1.move"
    cp "$build/tests/unit/core/core-rounds" "$scratch/$1.rounds"
}

# change TREE FILE FROM TO: the first place where FROM stands on one line.
change() {
    awk -v from="$3" -v to="$4" '
        !done && (at = index($0, from)) {
            $0 = substr($0, 1, at - 1) to substr($0, at + length(from)); done = 1
        }
        { print }
        END { exit !done }' "$1/$2" >"$scratch/changed"
}

# Lines of core that compare a checksum, and that no change is about.
unlisted_checks() {
    local line text
    (cd "$top" && grep -nE '([!=]=.*crc|crc.*[!=]=)' core/*.c) | grep -v '^core/fsck' | while read -r line; do
        text=${line#*:*:}
        awk -F @ -v file="${line%%:*}" -v text="$text" \
            '$2 == file && index(text, $3) { found = 1 } END { exit !found }' "$here/mutate.checks" ||
            printf 'SURVIVED %-40s is not in mutate.checks\n' "$(echo "${line%:"$text"}" | tr -d ' ')"
    done
}

# Each line: name, file, expression, what takes its place.
try_checks() {
    local name file from to
    while IFS='@' read -r name file from to; do
        [[ $name == $only* ]] || continue
        change "$tree" "$file" "$from" "$to" || die "$name: '$from' is not in $file"
        cp "$tree/$file" "$scratch/unchanged"
        cp "$scratch/changed" "$tree/$file"
        build_in "$tree" "${programs[@]}"
        cp "$scratch/unchanged" "$tree/$file"
        keep "mutant.$name"
        start "$scratch/check.$name" "$name" "$scratch/mutant.$name" "hostile lines file-machine file process hosts scenes"
    done <"$here/mutate.checks"
    wait
}

# ---- All of them ---------------------------------------------------------------------------------

# sum WORD PREFIX: the verdicts, and how many of them.
sum() {
    find "$scratch" -maxdepth 1 -name "$2.*" -exec cat {} + | sort | tee -a "$scratch/all"
    find "$scratch" -maxdepth 1 -name "$2.*" -exec cat {} + | awk -v what="$1" '
        { n[$1]++ }
        END {
            printf "%s: %d of %d killed, %d known to be unnoticeable, %d survived\n", what, n["killed"], NR,
                n["known"], n["SURVIVED"]
        }'
}

unlisted_checks >"$scratch/check.unlisted"
while IFS='@' read -r name file from to; do
    change "$top" "$file" "$from" "$to" || die "$name: '$from' is not in $file"
done <"$here/mutate.checks"

if [ -n "$quick" ]; then
    program=$quick/tests/crash/crash-images
    [ -x "$program" ] || die "no $program: build first"
    if ! names_sites; then
        say "$quick does not say where its calls stand: building crash-images as RelWithDebInfo"
        build_in "$top" crash-images
        program=$build/tests/crash/crash-images
    fi
    images=6000
    listed=3000
    find_sites
    try_sites
    for name in "${quick_sites[@]}"; do
        [ -f "$scratch/site.$name" ] || printf 'SURVIVED %-40s was not found\n' "$name" >"$scratch/site.$name"
    done
    sum "write-backs, drains and syncs" site
    sum "checksum tests" check
else
    tree=$scratch/tree
    mkdir "$tree"
    (cd "$top" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree")
    build_in "$tree" "${programs[@]}"
    keep program
    program=$scratch/program
    if [ -z "$only" ]; then
        find_sites
        unseen_sites >"$scratch/site.unseen"
        try_sites
        sum "write-backs, drains and syncs" site
    fi
    try_checks
    sum "checksum tests and ordering calls" check
fi
if [ -n "$note" ]; then
    awk '$1 == "killed" { sub(":", "", $4); print $2, $3, $4 }' "$scratch/all" | sort >"$here/mutate.killers"
fi
! grep -q '^SURVIVED' "$scratch/all"
