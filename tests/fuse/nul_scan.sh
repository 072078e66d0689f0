#!/usr/bin/env bash
# Four readers of a growing topic see the beginning of what was published and never a NUL, whatever
# their read size.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

real_text 6000000 | tr -d '\000' >"$scratch/text"
touch "$mnt/t"
(while IFS= read -r line && [ ! -e "$scratch/stop" ]; do printf '%s\n' "$line"; done \
    <"$scratch/text" >>"$mnt/t") &
writer=$!
own_pids+=("$writer")
readers=()
sizes=(4096 65537 131072 1048576)
for size in "${sizes[@]}"; do
    (
        until [ -e "$scratch/stop" ]; do
            dd if="$mnt/t" of="$scratch/got.$size" bs="$size" status=none
            head -c "$(stat -c %s "$scratch/got.$size")" "$scratch/text" |
                cmp - "$scratch/got.$size" || exit 1
            touch "$scratch/passed.$size"
        done
    ) &
    readers+=($!)
    own_pids+=($!)
done
passed_or_ended() {
    [ -e "$scratch/passed.$1" ] || is_ended "$2"
}
sleep 2 # how long it grows, at least
for i in 0 1 2 3; do
    wait_until 60 passed_or_ended "${sizes[i]}" "${readers[i]}" || die "no reader comes to the end"
done
touch "$scratch/stop"
wait "$writer" || die "the writer failed"
for pid in "${readers[@]}"; do
    wait "$pid" || die "a reader saw what was not published"
done
head -c "$(stat -c %s "$mnt/t")" "$scratch/text" | cmp - "$mnt/t"
