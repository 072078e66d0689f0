#!/usr/bin/env bash
# The pool's file is cut off under the running daemon, as when a device goes away: no crash, no NUL
# bytes, what is still there can be read, nothing is taken, and it unmounts.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"

# reads_to_hole COMMAND...: a prefix of the topic and then an error. At least $1 bytes.
reads_to_hole() {
    local status=0
    timeout 120 "$@" >"$scratch/got" 2>"$scratch/said" || status=$?
    [ "$status" -ne 0 ] || die "$*: no error at the hole"
    [ "$status" -ne 124 ] || die "$*: hangs at the hole"
    [ "$status" -lt 128 ] || die "$*: ended by a signal ($status)"
    head -c "$(stat -c %s "$scratch/got")" "$scratch/text" | cmp - "$scratch/got" ||
        die "$*: what it read is not what was published"
    say "$*: $(stat -c %s "$scratch/got") bytes, then: $(head -n 1 "$scratch/said")"
}

seq -f "line %.0f of a topic that loses its end" 500000 >"$scratch/text"
mount_pool
embar pub -s "$mnt" log <"$scratch/text"
append "$mnt/small" "a small topic"
cmp "$mnt/log" "$scratch/text"
exec 5<"$mnt/log" # an open handle, too
truncate -s 52M "$pool"

reads_to_hole cat "$mnt/log"
[ -s "$scratch/got" ] || die "nothing can be read though most is there"
reads_to_hole embar sub -s "$mnt" log
[ -s "$scratch/got" ] || die "nothing comes although most is there"
grep -q "stopped trusting it" "$scratch/said" || die "embar sub says: $(cat "$scratch/said")"
reads_to_hole dd if=/dev/fd/5 bs=1M status=none
takes_nothing log
takes_nothing small
is_faulted "is gone"
head -c 100000 "$mnt/log" | cmp - <(head -c 100000 "$scratch/text")
exec 5<&-
unmount_pool

# Opened again it is refused, with what is wrong.
refuses "was truncated" embarfs "$mnt" -f --cxl "$pool" --listen 127.0.0.1:0 --socket "$scratch/socket"

# All of it, while a publisher is at it.
rm "$pool"
: >"$mount_log"
mount_pool
seq 1 100000000 | embar pub -s "$mnt" log >"$scratch/said" 2>&1 &
publisher=$!
own_pids+=("$publisher")
wait_until 60 size_is_at_least "$mnt/log" 1000000 || die "nothing arrives"
truncate -s 0 "$pool"
wait_until 60 is_ended "$publisher" || die "the publisher hangs"
if wait "$publisher"; then
    die "the publisher believes that all arrived"
fi
grep -q "stopped trusting it" "$scratch/said" || die "embar pub says: $(cat "$scratch/said")"
takes_nothing log
is_faulted "is gone"
refuses "Input/output error" cat "$mnt/log"
unmount_pool
