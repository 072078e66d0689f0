#!/usr/bin/env bash
# umount, fusermount3 -u and SIGTERM end the daemon cleanly, with nothing lost: also what a program
# that still has the file open wrote, finished line or not.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"

mount_pool
echo one >>"$mnt/t"
exec 3<"$mnt/t"
refuses 'busy' fusermount3 -u "$mnt"
is_running "$mount_pid" || die "a refused unmount ended the daemon"
content "$mnt/t" 'one\n'
exec 3<&-
unmount_pool
grep -q "$mnt" /proc/self/mounts && die "still mounted"

mount_pool
exec 3>>"$mnt/t"
echo two >&3
printf 'thr' >&3
kill -TERM "$mount_pid"
wait_until 60 is_ended "$mount_pid" || die "SIGTERM did not end it"
wait "$mount_pid" || die "SIGTERM: status $?"
is_mounted "$mnt" && die "SIGTERM left the mount"
(echo late >&3) 2>/dev/null && die "a write after the end worked"
exec 3>&-

mount_pool
wait_until 60 content_is "$mnt/t" 'one\ntwo\nthr' || die "lost: $(cat "$mnt/t")"
exec 3>>"$mnt/t"
printf 'ee\nfo' >&3
exec 4<"$mnt/.embar/follow/t"
cat <&4 >"$scratch/followed" 2>/dev/null &
own_pids+=($!)
fusermount3 -u -z "$mnt" # lazily: it lives on for who has it open
printf 'ur\n' >&3
exec 3>&- 4<&-
kill -INT "$mount_pid"
wait_until 60 is_ended "$mount_pid" || die "SIGINT did not end it"
wait "$mount_pid" || die "SIGINT: status $?"
mount_pool
content "$mnt/t" 'one\ntwo\nthree\nfour\n'
if [ "$(id -u)" -eq 0 ]; then
    umount "$mnt"
    wait_until 60 is_ended "$mount_pid" || die "umount did not end it"
    wait "$mount_pid" || die "umount: status $?"
    mount_pool
    content "$mnt/t" 'one\ntwo\nthree\nfour\n'
fi
# The pool is free when the daemon is: at once another one takes it.
for _ in 1 2 3; do
    fusermount3 -u "$mnt"
    mount_pool
done
content "$mnt/t" 'one\ntwo\nthree\nfour\n'
