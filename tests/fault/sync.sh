#!/usr/bin/env bash
# The disk fails a sync of a pool with durability machine: nothing more is acked, everybody is told, what
# was acked is there, also after a restart.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"

# On a disk, where scratch folders need not be.
disk=$(mktemp -d "$EMBAR_BUILD_DIR/fault.XXXXXX")
own_files+=("$disk")
pool=$disk/pool
with_fault fdatasync=EIO mount_with --size 64M --durability machine
lines 1 500 | embar pub -s "$mnt" log
append "$mnt/log" "one more"
{ lines 1 500 && echo "one more"; } >"$scratch/acked"
cmp "$mnt/log" "$scratch/acked"

touch "$now"
refuses "Input/output error" append "$mnt/log" "the first to meet it"
takes_nothing log
is_faulted "could not be synced to its disk (Input/output error)"
cmp "$mnt/log" "$scratch/acked"
embar sub -s "$mnt" log | cmp - "$scratch/acked"

# The disk says it once and forgets; we do not.
rm "$now"
takes_nothing log
is_faulted "could not be synced"
unmount_pool

mount_with
# What was refused was perhaps written all the same: behind what was acked, and only that.
head -c "$(stat -c %s "$scratch/acked")" "$mnt/log" | cmp - "$scratch/acked"
tail -c +$(($(stat -c %s "$scratch/acked") + 1)) "$mnt/log" >"$scratch/rest"
case $(cat "$scratch/rest") in
"" | "the first to meet it") ;;
*) die "after the acked bytes stands: $(head -c 300 "$scratch/rest")" ;;
esac
append "$mnt/log" "goes on"
equal "the last line" "$(tail -n 1 "$mnt/log")" "goes on"
equal "faulted" "$(status_says faulted)" false
unmount_pool

# Without the promise to survive the machine a failed sync ends it too: the page is lost to the kernel.
rm "$pool"
: >"$mount_log"
with_fault fdatasync=EIO mount_with --size 64M
# What the start left to sync may be the first to fail: then nothing is taken.
: >"$scratch/acked"
notices() {
    { append "$mnt/log" "not synced yet"; } 2>/dev/null && echo "not synced yet" >>"$scratch/acked"
    grep -q "could not be synced" "$mount_log"
}
touch "$mnt/log" "$now"
wait_until 60 notices || die "nobody noticed that the sync fails"
takes_nothing log
head -c "$(stat -c %s "$scratch/acked")" "$mnt/log" | cmp - "$scratch/acked"
rm "$now"
unmount_pool
