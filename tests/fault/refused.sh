#!/usr/bin/env bash
# A stream whose reader is refused an answer for want of memory goes on where it was: nothing is skipped.
# Those who are refused do not wait for one another, and nobody waits for ever.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"

real_text 600000 >"$scratch/text"
printf '\nthe publisher is there\n' >>"$scratch/text"
mkfifo "$scratch/lines"

# refused LIST WHAT
refused() {
    rm -f "$pool"
    : >"$scratch/embarfs.log"
    with_fault "$1" mount_with --size 64M
    head -n -1 "$scratch/text" | embar pub -s "$mnt" log
    embar pub -s "$mnt" log -q <"$scratch/lines" &
    local publisher=$!
    own_pids+=("$publisher")
    exec 6>"$scratch/lines"
    tail -n 1 "$scratch/text" >&6
    wait_until 60 cmp -s "$mnt/log" "$scratch/text" || die "the publisher does not come"
    timeout 300 python3 "${0%.sh}.py" "$mnt" "$now" "$scratch/lines" "$scratch/text" "$2" || die "$1: $2"
    exec 6>&-
    wait "$publisher" || die "the publisher failed"
    equal "faulted" "$(status_says faulted)" false
    unmount_pool
}

refused writev=ENOMEM skip
refused malloc=ENOMEM skip
refused writev=ENOMEM bound
refused writev=ENOMEM,write=ENOMEM late
