#!/usr/bin/env bash
# No space for a pool: said in words, and nothing is left behind.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"

touch "$now"
refuses "no space left" with_fault posix_fallocate=ENOSPC \
    embarfs "$mnt" -f --cxl "$pool" --size 64M --listen 127.0.0.1:0 --socket "$scratch/socket"
[ ! -e "$pool" ] || die "a pool file without its space was left behind"
refuses "no space left" with_fault posix_fallocate=ENOSPC embar pool create "$pool" --size 64M
[ ! -e "$pool" ] || die "embar pool create left a file without its space behind"
# What was somebody's empty file stays one.
: >"$pool"
refuses "no space left" with_fault posix_fallocate=ENOSPC embar pool create "$pool" --size 64M
equal "size of the file that was there" "$(stat -c %s "$pool")" 0
rm "$pool"

# Nor do the default pool's directories stay, but for those that were there.
nothing_left() {
    equal "what is left in $scratch/home" "$(find "$scratch/home" -mindepth 1 | sort)" \
        "${1:+$(printf '%s\n' "$scratch/home/state" "$scratch/home/$1" | sort -u)}"
}
for there in '' state state/embar; do
    mkdir -p "$scratch/home/$there"
    refuses "no space left" with_fault posix_fallocate=ENOSPC env XDG_STATE_HOME="$scratch/home/state" \
        embarfs "$mnt" -f --size 64M --listen 127.0.0.1:0 --socket "$scratch/socket"
    nothing_left "$there"
    refuses "no space left" with_fault posix_fallocate=ENOSPC env XDG_STATE_HOME="$scratch/home/state" \
        embar pool create --size 64M
    nothing_left "$there"
done

# A disk that is full indeed.
# shellcheck disable=SC2016
small='mount -t tmpfs -o size=8M small "$1" && ! said=$(embar pool create "$1/pool" --size 64M 2>&1) &&
    echo "$said" && [ ! -e "$1/pool" ]'
if unshare -m true 2>/dev/null; then
    mkdir "$scratch/small"
    unshare -m sh -c "$small" sh "$scratch/small" | grep -q "no space left" ||
        die "a full disk is not told"
fi
rm "$now"

# Threads, descriptors: each in words, at the start.
touch "$now"
for fault in pthread_create=EAGAIN eventfd=EMFILE epoll_create1=EMFILE timerfd_create=EMFILE; do
    said=$(with_fault "$fault" timeout 120 embarfs "$mnt" -f --cxl mem:16M --listen 127.0.0.1:0 \
        --socket "$scratch/socket" 2>&1) && die "$fault: it mounted all the same"
    [ ${#said} -gt 30 ] || die "$fault: said '$said'"
    is_mounted "$mnt" && die "$fault: a dead mount was left"
done
rm "$now"

# Descriptors run out while it serves: who connects waits, and comes in when there are some again.
with_fault accept4=EMFILE mount_with --size 64M
touch "$now"
lines 1 10 | timeout 120 embar pub -s "$mnt" log &
publisher=$!
own_pids+=("$publisher")
append "$mnt/log" "the mount goes on"
content "$mnt/log" 'the mount goes on\n'
rm "$now"
wait "$publisher" || die "the publisher was not let in"
cmp <(tail -n 10 "$mnt/log") <(lines 1 10)
unmount_pool
