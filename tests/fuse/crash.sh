#!/usr/bin/env bash
# kill -9 of the daemon: every line whose write returned is there after the restart, which takes the
# dead mount away itself; offsets and inode numbers are the same.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

mkdir "$mnt/d"
for round in 1 2 3 4 5; do
    touch "$scratch/acked" "$mnt/d/t"
    number=$(ino "$mnt/d/t")
    (n=0
    while echo "round $round line $n" >>"$mnt/d/t"; do
        echo "round $round line $n" >>"$scratch/acked"
        n=$((n + 1))
    done) 2>/dev/null &
    writer=$!
    own_pids+=("$writer")
    wait_until 60 size_is_at_least "$scratch/acked" $((round * 2000)) || die "the writer does nothing"
    kill -KILL "$mount_pid"
    wait "$mount_pid" 2>/dev/null || true
    wait "$writer" 2>/dev/null || true
    refuses 'Transport endpoint is not connected' stat "$mnt/d"
    mount_pool
    grep -q "daemon that served it is gone" "$mount_log" || die "no note of the stale mount"
    equal ino "$(ino "$mnt/d/t")" "$number"
    # A line whose write was under way may be there; then it is acked as far as the next round knows.
    head -c "$(stat -c %s "$scratch/acked")" "$mnt/d/t" | cmp - "$scratch/acked" || die "round $round"
    cp "$mnt/d/t" "$scratch/acked"
    [ "$(sort "$mnt/d/t" | uniq -d | wc -l)" -eq 0 ] || die "a line is there twice"
done
