#!/usr/bin/env bash
# kill -9 of the daemon, again and again, while four publishers with sessions run: no acknowledged
# message is lost, none is there twice, and what any reader saw stays at its offset, byte for byte.
#
#   tests/kill_loop.sh [KILLS]      default 50
#
# It shows what a lost *process* costs. It says nothing of flushes: the page cache outlives the
# daemon; the crash images show that (tests/crash).
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
# shellcheck source=tests/corpus.sh
. "$top/tests/corpus.sh"
use_build "${EMBAR_BIN_DIR:-$top/build/release/bin}"

kills=${1:-50}
publishers=(p1 p2 p3 p4)
# Pieces and pauses differ, so that some batches are lone lines and some are full.
pieces=(4096 32768 262144 131072)
pauses=(0.005 0.01 0.05 0.03)
mnt=$scratch/mnt
topic=$mnt/log
seen=$scratch/seen
stop=$scratch/stop

need_fuse || skip "$fuse_missing"
mkdir "$mnt"

say "input: real text of this machine"
make_corpus "$scratch/corpus" $((10000000 + kills * 10000000))
for i in "${!publishers[@]}"; do
    tagged_part "$scratch/corpus" "${publishers[i]}" $((i + 1)) 4 >"$scratch/${publishers[i]}"
done
rm "$scratch/corpus"
total=$(cat "${publishers[@]/#/$scratch/}" | wc -c)

# remount: on the first mount's address, for half of the publishers are on their way back to it.
remount() {
    mount_start "$mnt" --cxl "$scratch/pool" --size $((total * 3 / 2000000 + 256))M \
        --listen "${listen:-127.0.0.1:0}"
    [ -n "${listen:-}" ] || listen=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$mnt/.embar/status")
    [ -n "$listen" ] || die "no address in $mnt/.embar/status: $(cat "$mnt/.embar/status")"
}

# read_on: append to $seen what the topic has beyond it, until the daemon dies under the reader.
read_on() {
    local size
    while size=$(stat -c %s "$seen") && tail -c "+$((size + 1))" "$topic" 2>/dev/null >>"$seen"; do
        sleep 0.01
    done
}

# check_seen: all that was ever read is still there, at its place.
check_seen() {
    cmp -n "$(stat -c %s "$seen")" "$seen" "$topic" || die "the topic no longer begins with what was read"
}

remount
touch "$topic"
: >"$seen"
pids=()
# Two come over the mount's Unix socket, two over TCP; two have one connection, two have two.
servers=("$mnt" "$listen" "$listen" "$mnt")
for i in "${!publishers[@]}"; do
    tag=${publishers[i]}
    trickle "$scratch/$tag" "${pieces[i]}" "${pauses[i]}" "$stop" |
        embar -s "${servers[i]}" pub log --connections $((i % 2 + 1)) 2>"$scratch/$tag.summary" &
    pids+=($!)
    own_pids+=($!)
done

# has_published TAG: to open a session needs a broker; only what is open survives its end.
has_published() {
    grep -aqm 1 "^$1 " "$topic"
}
for tag in "${publishers[@]}"; do
    wait_until 60 has_published "$tag" || die "nothing of $tag: $(cat "$scratch/$tag.summary")"
done

say "$kills kills"
for ((n = 1; n <= kills; n++)); do
    read_on &
    reader=$!
    own_pids+=("$reader")
    sleep "0.$((RANDOM % 6 + 1))"
    kill -KILL "$mount_pid"
    wait "$mount_pid" 2>/dev/null || true
    wait "$reader" 2>/dev/null || true
    before=$(stat -c %s "$seen")
    remount
    check_seen
    for i in "${!pids[@]}"; do
        is_running "${pids[i]}" ||
            wait "${pids[i]}" || die "publisher ${publishers[i]} gave up: $(cat "$scratch/${publishers[i]}.summary")"
    done
    say "kill $n: $before bytes had been read, all there; the topic has $(stat -c %s "$topic")"
done

touch "$stop"
for i in "${!pids[@]}"; do
    wait "${pids[i]}" || die "publisher ${publishers[i]} failed: $(cat "$scratch/${publishers[i]}.summary")"
done
check_seen
[ "$(stat -c %s "$topic")" -eq "$total" ] ||
    die "the publishers sent $total bytes and all were acknowledged, the topic has $(stat -c %s "$topic")"
for tag in "${publishers[@]}"; do
    grep -a "^$tag " "$topic" | cmp - "$scratch/$tag" || die "what $tag sent is not what the topic has"
done
mount_stop "$mnt" "$mount_pid"
say "$kills kills: $total bytes from ${#publishers[@]} publishers, each line once and in order"
