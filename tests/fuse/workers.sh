#!/usr/bin/env bash
# The network's threads: as many as the daemon has processors, or as it is told, and where it is told.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
command -v taskset >/dev/null || skip "no taskset"

# The processors of each network thread, a line each.
places() {
    local task
    for task in /proc/"$mount_pid"/task/*; do
        grep -q '^embar-net' "$task/comm" && sed -n 's/^Cpus_allowed_list:\t//p' "$task/status"
    done | sort
}

mine=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/$$/status) # taskset writes 0,1 for 0-1
first=$(grep -o '^[0-9]*' <<<"$mine")
taskset -c "$first" true || skip "taskset is not allowed here"

# One processor, one thread.
taskset -pc "$first" $$ >/dev/null
mount_pool
equal "threads on one processor" "$(places)" "$first"
unmount_pool
refuses "may not run on" embarfs "$mnt" --cxl mem:16M --pin $((first + 1))
taskset -pc "$mine" $$ >/dev/null

# Told how many, and where; what they serve is served.
mount_with --workers 3 --pin "$first"
equal "three threads there" "$(places)" "$(printf '%s\n' "$first" "$first" "$first")"
printf 'a line\n' | embar -s "$mnt" pub t
content "$mnt/t" 'a line\n'
unmount_pool
mount_with --workers 2 --pin none
equal "threads that are not bound" "$(places)" "$(printf '%s\n' "$mine" "$mine")"
unmount_pool

for bad in some 0- 1-0 0,,1 ""; do
    status_is 64 embarfs "$mnt" --cxl mem:16M --pin "$bad"
    case $said in
    *"--pin"*) ;;
    *) die "--pin '$bad' said: $said" ;;
    esac
done
