#!/usr/bin/env bash
# Retention at the mount: a topic keeps its newest bytes and not much more, gives up what is too old,
# and with when_full=trim takes any number of writes in a pool that is full, at the cost of nobody
# else. What is left is always the end of what was written, in whole lines.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 64M --write-wait 20

# is_tail FILE OF: the file is a proper end of the other, from a line's begin on.
is_tail() {
    local base
    base=$(xattr base "$1")
    [ "$base" -gt 0 ] && [ "$(head -c "$base" "$2" | tail -c 1 | wc -l)" -eq 1 ] &&
        cmp -s "$1" <(tail -c +$((base + 1)) "$2")
}
kept_is_at_most() {
    [ $(($(xattr end "$1") - $(xattr base "$1"))) -le "$2" ]
}

real_text 20000000 >"$scratch/text"
echo 'not to be lost' >>"$mnt/block"
touch "$mnt/bytes" "$mnt/age" "$mnt/full"
setfattr -n user.embar.retention_bytes -v 1M "$mnt/bytes"
setfattr -n user.embar.retention_age -v 2s "$mnt/age"
setfattr -n user.embar.when_full -v trim "$mnt/full"

cat "$scratch/text" >>"$mnt/bytes"
wait_until 60 kept_is_at_most "$mnt/bytes" $((1048576 * 9 / 8)) || die "bytes: $(getfattr -d "$mnt/bytes")"
kept_is_at_most "$mnt/bytes" 1048575 && die "less than 1 MiB is kept"
is_tail "$mnt/bytes" "$scratch/text" || die "what is kept by bytes"

seq 1 1000 >>"$mnt/age"
wait_until 60 kept_is_at_most "$mnt/age" 0 || die "age: $(getfattr -d "$mnt/age")"
content "$mnt/age" ''
setfattr -n user.embar.retention_age -v 1h "$mnt/age"
echo young >>"$mnt/age"
content "$mnt/age" 'young\n'

for _ in 1 2 3 4 5 6 7 8; do
    cat "$scratch/text" >>"$scratch/all"
    cat "$scratch/text" >>"$mnt/full" || die "a write in a full pool whose oldest may go"
done
is_tail "$mnt/full" "$scratch/all" || die "what is kept in a full pool"
kept_is_at_most "$mnt/full" 20000000 && die "more went than had to"
content "$mnt/block" 'not to be lost\n'
is_tail "$mnt/bytes" "$scratch/text" || die "another topic lost something"

setfattr -n user.embar.retention_bytes -v none "$mnt/bytes"
equal "no bound" "$(xattr retention_bytes "$mnt/bytes")" 0
free() {
    df --output=avail -k "$mnt" | tail -n 1
}
has_more() {
    [ $(($(free) - before)) -gt 20000 ]
}
before=$(free)
rm "$mnt/full"
wait_until 60 has_more || die "df: $before, then $(free) KiB" # a file pool frees after a sync
