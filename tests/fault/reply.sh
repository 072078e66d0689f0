#!/usr/bin/env bash
# The kernel has no memory for the mount's answers: one that is written a moment later is as good as
# any, and when there is none for long whoever asked is told so. Nobody waits for ever.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"

real_text 2000000 >"$scratch/text"

# Some answers fail, and come with the next try.
for list in writev=ENOMEM/3 writev=EINTR/2 writev=EAGAIN/2; do
    rm -f "$pool"
    : >"$scratch/embarfs.log"
    with_fault "$list" mount_with --size 64M
    embar pub -s "$mnt" log <"$scratch/text"
    touch "$now"
    timeout 120 cat "$mnt/log" | cmp - "$scratch/text"
    timeout 120 cp "$mnt/log" "$mnt/copy"
    timeout 120 mkdir "$mnt/folder"
    timeout 120 touch "$mnt/folder/topic"
    append "$mnt/folder/topic" "a line"
    append "$mnt/folder/topic" "another"
    content "$mnt/folder/topic" 'a line\nanother\n'
    equal "names" "$(timeout 120 ls "$mnt" "$mnt/folder" | tr '\n' ' ')" "$mnt: copy folder log  $mnt/folder: topic "
    timeout 120 rm "$mnt/log"
    rm "$now"
    cmp "$mnt/copy" "$scratch/text"
    unmount_pool
done

# All of them fail: each is refused (what it asked for may have been done), and then all is as before.
rm -f "$pool"
: >"$scratch/embarfs.log"
with_fault writev=ENOMEM mount_with --size 64M
embar pub -s "$mnt" log <"$scratch/text"
exec 5<"$mnt/log"
touch "$now"
refuses "Cannot allocate memory" timeout 120 dd if=/dev/fd/5 bs=64K count=1 status=none
refuses "Cannot allocate memory" timeout 120 cat "$mnt/log"
refuses "Cannot allocate memory" timeout 120 ls "$mnt"
refuses "Cannot allocate memory" timeout 120 mkdir "$mnt/folder"
rm "$now"
timeout 120 dd if=/dev/fd/5 bs=64K count=1 status=none | cmp - <(head -c 65536 "$scratch/text")
exec 5<&-
cmp "$mnt/log" "$scratch/text"
equal "faulted" "$(status_says faulted)" false
append "$mnt/log2" "goes on"
unmount_pool
