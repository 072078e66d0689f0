#!/usr/bin/env bash
# Large writes: more lines than a batch holds, lines longer than a write, lines longer than a
# message (split), and unfinished lines that grow past every bound.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

# 500,000 messages of 2 bytes: eight batches' worth in a write of 1 MiB.
seq 500000 | tr -c '\n' y | cut -c 1 >"$scratch/y"
dd if="$scratch/y" of="$mnt/y" bs=1M oflag=append conv=notrunc status=none
cmp "$mnt/y" "$scratch/y"
equal messages "$(xattr messages "$mnt/y")" 500000

# Lines of all lengths, written in pieces that fit nothing.
python3 - "$scratch/l" <<'PY'
import sys
with open(sys.argv[1], 'wb') as f:
    for n in list(range(0, 3000, 7)) + [65535, 65536, 65537, 1 << 20, (1 << 20) + 1, 3000000]:
        f.write(bytes([97 + n % 26]) * n + b'\n')
PY
dd if="$scratch/l" of="$mnt/l" bs=77777 oflag=append conv=notrunc status=none
cmp "$mnt/l" "$scratch/l"
largest=$(sed -n 's/.*"max_batch": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
equal messages "$(xattr messages "$mnt/l")" \
    "$(awk -v max="$largest" '{ n += int((length($0) + max) / max) } END { print n }' "$scratch/l")"

# No newline at all: 20 MB in one line is split at the largest message.
head -c 20000000 /dev/zero | tr '\0' z >"$scratch/z"
cat "$scratch/z" >>"$mnt/z"
same() {
    cmp -s "$mnt/z" "$scratch/z"
}
wait_until 60 same || die "$(cmp "$mnt/z" "$scratch/z" 2>&1)"
[ "$(xattr messages "$mnt/z")" -gt 1 ] || die "not split"
