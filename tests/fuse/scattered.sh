#!/usr/bin/env bash
# A topic of thousands of batches that do not adjoin, more than one answer has pieces for: every read
# is as long as was asked for, and the bytes are right.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

# Batches that overtake one another lie apart: two topics' publishers and two connections each.
seq -f 'line %g of what is scattered' 20000 >"$scratch/in"
for t in a b; do
    embar -s "$mnt" pub "$t" --connections 2 --batch 1 -q "$scratch/in" &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid"
done

for t in a b; do
    python3 - "$mnt/$t" "$scratch/in" <<'PY'
import os, sys
want = open(sys.argv[2], 'rb').read()
fd = os.open(sys.argv[1], os.O_RDONLY)
for size in (1 << 20, 1 << 17, 65537):
    at = 0
    while at < len(want):
        got = os.pread(fd, size, at)
        if got != want[at:at + size]:
            sys.exit(f'a read of {size} at {at} gave {len(got)} bytes')
        at += size
    if os.pread(fd, size, len(want)) != b'':
        sys.exit('there is something behind the end')
PY
done
