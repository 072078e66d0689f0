#!/usr/bin/env bash
# flock and fcntl over a trim: who locked the topic before it and who opened it after it see each other's
# locks. Waiting for one can be interrupted and killed; a lock ends with its open file. Other topics, and
# who asks for no lock, are not concerned. As root and as an ordinary user.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool
install -m 0644 "$top/tests/fuse/locks.py" "$scratch/locks.py"

mkdir "$mnt/d"
touch "$mnt/d/t" "$mnt/d/other"
timeout 240 python3 "$scratch/locks.py" "$mnt/d/t" "$mnt/d/other" "$mnt/.embar/metrics" || die "see above"
if [ "$(id -u)" -eq 0 ]; then
    chown -R 65534:65534 "$mnt/d"
    as_nobody timeout 240 python3 "$scratch/locks.py" "$mnt/d/t" "$mnt/d/other" "$mnt/.embar/metrics" ||
        die "as an ordinary user: see above"
fi

# Asked to stop while somebody waits for a lock: it stops, and nobody waits any more.
exec 3>>"$mnt/d/t"
flock 3
(exec flock "$mnt/d/t" true) 2>/dev/null &
waiter=$!
own_pids+=("$waiter")
waits() {
    grep -qx 'embar_fs_lock_waits 1' "$mnt/.embar/metrics"
}
wait_until 60 waits || die "the lock is held by nobody"
kill -TERM "$mount_pid"
wait_until 60 is_ended "$mount_pid" || die "the daemon waits for a lock"
wait_until 60 is_ended "$waiter" || die "the lock is waited for on a mount that is gone"
exec 3>&-
