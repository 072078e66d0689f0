#!/usr/bin/env bash
# Without any memory at all a file is closed: what its last close does is done when there is some again. Its
# unfinished line is published, its lock let go, its removed topic's space given back. What somebody waits
# for is refused meanwhile.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"
with_fault "alloc=ENOMEM/1" mount_with --size 64M

free() {
    stat -f -c %a "$mnt"
}
lines 1 100000 >"$scratch/lines"
before=$(free)
cat "$scratch/lines" >>"$mnt/removed"
exec 4<"$mnt/removed" 5>>"$mnt/t"
rm "$mnt/removed"
flock 5
printf unfinished >&5
touch "$now"
exec 4<&- 5>&-
for _ in 1 2 3 4 5; do # so that the closes were heard of
    refuses 'Cannot allocate memory' stat "$mnt/t"
done
rm "$now"

published() {
    content_is "$mnt/t" unfinished
}
wait_until 60 published || die "the unfinished line of a file that was closed is lost: $(cat "$mnt/t")"
unlocked() {
    flock -n "$mnt/t" true
}
wait_until 60 unlocked || die "the lock of a file that was closed is held"
free_again() {
    [ "$(free)" -ge $((before - 600)) ]
}
wait_until 60 free_again || die "space of a removed topic that was closed: $before, now $(free)"
unmount_pool
