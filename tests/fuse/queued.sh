#!/usr/bin/env bash
# Two files of one topic that were open before the pool was full: the kernel lets one write at a time, so
# the second writer waits in the kernel, for the first; README.md says what that means. Killed, it
# ends as soon as the first one does. Nobody else is held up: whoever reads, stats, removes or closes, also
# a file with an unfinished line, and who opens the topic from then on, who can be killed at once.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 64M --write-wait 600

metric() {
    awk -v name="embar_fs_$1" '$1 == name { print $2 }' "$mnt/.embar/metrics"
}
parked_is() {
    [ "$(metric parked)" = "$1" ]
}
# at_once COMMAND...: not after the waiting writer, which waits longer than that.
at_once() {
    timeout 120 "$@" || die "not at once: $*"
}
# Blocked for five looks in a row: not by a page that is being read.
looks=0
is_blocked() {
    grep -q '^State:[[:space:]]*D' "/proc/$1/status" && looks=$((looks + 1)) || looks=0
    [ "$looks" -ge 5 ]
}
real_text 8000000 >"$scratch/text"
for ((i = 0; i < 8; i++)); do cat "$scratch/text"; done >"$scratch/fill"
echo small >>"$mnt/small"
touch "$mnt/t"
# shellcheck disable=SC2094
exec 4>>"$mnt/t" 5>>"$mnt/t" 6>>"$mnt/t" 7<"$mnt/t" 8>>"$mnt/small"
head -c 900000 /dev/zero | tr '\0' x >"$scratch/unfinished"
cat "$scratch/unfinished" >&8
cat "$scratch/text" >&5
cat "$scratch/fill" 2>/dev/null >>"$mnt/fill" 4>&- 5>&- 6>&- 7<&- 8>&- &
filler=$!
own_pids+=("$filler")
wait_until 60 parked_is 1 || die "the pool is not full: $(metric parked), $(df "$mnt")"
# Small writes take what is left, which they would leave to a large one that waits.
kill -KILL "$filler"
wait_until 60 parked_is 0 || die "$(metric parked) wait after the only one was killed"
dd if="$scratch/text" bs=4096 of="$mnt/rest" oflag=append conv=notrunc status=none 2>/dev/null 4>&- 5>&- 6>&- 7<&- 8>&- &
own_pids+=("$!")
wait_until 60 parked_is 1 || die "something is left: $(df "$mnt")"
tail -c +8000001 "$scratch/fill" 2>/dev/null >&5 8>&- &
first=$!
own_pids+=("$first")
wait_until 60 parked_is 2 || die "$(metric parked) wait, not two"
dd if="$scratch/text" bs=1M status=none 2>/dev/null >&6 8>&- &
second=$!
own_pids+=("$second")
wait_until 60 is_blocked "$second" || die "the second writer of the same inode does not wait for the first"
parked_is 2 || die "the kernel lets in two: README.md is out of date"

at_once stat -L /dev/fd/7 >"$scratch/out"
at_once head -c 1000 <&7 | cmp - <(head -c 1000 "$scratch/text")
at_once stat "$mnt/t" >"$scratch/out"
at_once chmod 600 "$mnt/t"
began=$SECONDS
exec 4>&- 5>&- 6>&- 8>&-
[ $((SECONDS - began)) -lt 120 ] || die "closing waits"
content "$mnt/small" 'small\n' # its unfinished line waits for space
wait_until 60 parked_is 3 || die "$(metric parked) wait after the close of an unfinished line"
dd if="$scratch/text" bs=1M of="$mnt/t" oflag=append conv=notrunc status=none 2>/dev/null &
third=$!
own_pids+=("$third")
wait_until 60 parked_is 4 || die "who opened it later does not wait in the park"
kill -KILL "$third"
wait_until 60 is_ended "$third" || die "who opened it later cannot be killed"

kill -KILL "$second"
kill -KILL "$first"
wait_until 60 is_ended "$first" || die "the first writer cannot be killed"
wait_until 60 is_ended "$second" || die "the second writer does not end with the first"
# What was accepted is whole, and ends where the first ended.
size=$(stat -c %s "$mnt/t")
head -c "$size" <(cat "$scratch/fill") | cmp - "$mnt/t" || die "what was accepted"
at_once rm "$mnt/t"
exec 7<&-
published() {
    cmp -s "$mnt/small" <(echo small && cat "$scratch/unfinished")
}
wait_until 60 published || die "the unfinished line was not published when there was room again"
