#!/usr/bin/env bash
# The command's own output and input: short writes, a full disk, a reader that leaves.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"

real_text 3000000 >"$scratch/text"
mount_pool
embar pub -s "$mnt" log <"$scratch/text"
touch "$now"

# Short writes are written on.
with_fault write=SHORT embar sub -s "$mnt" log | cmp - "$scratch/text"
with_fault write=SHORT/3 embar sub -s "$mnt" log >"$scratch/got"
cmp "$scratch/got" "$scratch/text"
with_fault write=SHORT,pwrite=SHORT embar pub -s "$mnt" again <"$scratch/text"
cmp "$mnt/again" "$scratch/text"
with_fault write=EINTR/2 embar sub -s "$mnt" log | cmp - "$scratch/text"

# A reader that has enough is no error.
embar sub -s "$mnt" log | head -c 1000 | cmp - <(head -c 1000 "$scratch/text")
equal "status of embar sub" "${PIPESTATUS[0]}" 0

# A full disk is one, and in words.
full() {
    "$@" >/dev/full
}
refuses "No space left on device" full embar sub -s "$mnt" log
for command in "stat -s $mnt" "stat -s $mnt log" "stat -s $mnt --json" "topics -s $mnt" version; do
    # shellcheck disable=SC2086
    refuses "No space left on device" full embar $command
done
for command in --help --version "pub --help" "fsck --help"; do
    # shellcheck disable=SC2086
    refuses "No space left on device" full embar $command
done
for option in --help --version --usage; do
    refuses "No space left on device" full embarfs "$option"
    status_is 74 full embarfs "$option"
done
status_is 8 full embar fsck --help
embar --help | head -c 1 >"$scratch/got"
equal "status of embar --help whose reader left" "${PIPESTATUS[0]}" 0
refuses "No space left on device" with_fault write=ENOSPC embar sub -s "$mnt" log
unmount_pool
refuses "No space left on device" full embar dump "$pool" log
refuses "No space left on device" full embar pool show "$pool"
with_fault write=SHORT embar dump "$pool" log | cmp - "$scratch/text"
