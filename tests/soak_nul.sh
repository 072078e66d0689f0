#!/usr/bin/env bash
# Four readers on topics that grow, each with another way to read: no pass may show a byte that was
# not published (NUL bytes are what a page cache would add), and each pass is a prefix of the topic.
#
#   tests/soak_nul.sh [SECONDS]     default 60
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
# shellcheck source=tests/corpus.sh
. "$top/tests/corpus.sh"
use_build "${EMBAR_BIN_DIR:-$top/build/release/bin}"

seconds=${1:-60}
mnt=$scratch/mnt
stop=$scratch/stop

need_fuse || skip "$fuse_missing"
mkdir "$mnt"

say "input: real text of this machine"
make_corpus "$scratch/corpus" $((seconds * 4000000 + 8000000))
# One topic has one publisher, so that its content is known in advance; one has three.
split -n l/1/2 "$scratch/corpus" >"$scratch/alone"
split -n l/2/2 "$scratch/corpus" >"$scratch/rest"
for i in 1 2 3; do
    tagged_part "$scratch/rest" "p$i" "$i" 3 >"$scratch/p$i"
done
rm "$scratch/corpus" "$scratch/rest"

mount_start "$mnt" --cxl "$scratch/pool" --size $((seconds * 8 + 512))M --listen 127.0.0.1:0
touch "$mnt/alone" "$mnt/shared"
publishers=()
publish() {
    trickle "$scratch/$2" "$3" "$4" "$stop" | embar -s "$mnt" pub "$1" 2>"$scratch/$2.summary" &
    publishers+=($!)
    own_pids+=($!)
}
publish alone alone 20480 0.01
publish shared p1 2048 0.003
publish shared p2 16384 0.02
publish shared p3 65536 0.1

# is_prefix FILE: stdin is the file or its beginning. cmp calls a shorter stdin an end of file.
is_prefix() {
    local said
    said=$(cmp - "$1" 2>&1) || case $said in
    *'EOF on -'*) ;;
    *) say "$said"; return 1 ;;
    esac
}

# no_nul: stdin to stdout; a NUL on the way is noted.
no_nul() {
    tee >(tr -d -c '\000' | head -c 1 >>"$scratch/nul")
}

# The readers: what each reads, and how; one pass a call.
pass_cat() {
    cat "$mnt/alone" | no_nul | is_prefix "$scratch/alone"
}
pass_small() {
    dd if="$mnt/alone" bs=4k status=none | no_nul | is_prefix "$scratch/alone"
}
pass_odd() {
    dd if="$mnt/shared" bs=65537 status=none | no_nul | { grep -a '^p2 ' || true; } | is_prefix "$scratch/p2"
}
pass_grep() {
    { grep -a '^p1 ' "$mnt/shared" || true; } | no_nul | is_prefix "$scratch/p1"
}

: >"$scratch/nul"
readers=()
for kind in cat small odd grep; do
    (
        passes=0
        while [ ! -e "$stop" ]; do
            "pass_$kind" || { say "reader $kind, pass $passes: not what was published"; exit 1; }
            passes=$((passes + 1))
        done
        echo "$passes" >"$scratch/passes.$kind"
    ) &
    readers+=($!)
    own_pids+=($!)
done

sleep "$seconds"
touch "$stop"
for pid in "${readers[@]}" "${publishers[@]}"; do
    wait "$pid" || die "a reader or a publisher failed: $(cat "$scratch"/*.summary)"
done
[ ! -s "$scratch/nul" ] || die "a reader saw NUL bytes"
cat "$mnt/alone" | cmp - "$scratch/alone" || die "the topic is not what was published"
for i in 1 2 3; do
    grep -a "^p$i " "$mnt/shared" | cmp - "$scratch/p$i" || die "what p$i sent is not what the topic has"
done
for kind in cat small odd grep; do
    say "reader $kind: $(cat "$scratch/passes.$kind") passes"
done
say "$seconds s, $(stat -c %s "$mnt/alone") + $(stat -c %s "$mnt/shared") bytes: no byte that was not published"
mount_stop "$mnt" "$mount_pid"
