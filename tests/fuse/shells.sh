#!/usr/bin/env bash
# 200 shells append at once: every line is whole, there once, and each shell's are in its order.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

text=$(printf 'x%.0s' {1..300})
pids=()
for shell in {1..200}; do
    (for n in {1..10}; do echo "$shell $n $text" >>"$mnt/t"; done) &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || die "a shell failed"
done
for shell in {1..200}; do
    for n in {1..10}; do echo "$shell $n $text"; done
done | sort >"$scratch/wanted"
sort "$mnt/t" | cmp - "$scratch/wanted" || die "not the lines that were written"
awk '$2 != ++n[$1] { print "out of order:", $1, $2; exit 1 }' "$mnt/t"
equal messages "$(xattr messages "$mnt/t")" 2000
