#!/usr/bin/env bash
# A topic with data takes appends and nothing else; an empty one may be filled from its beginning.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool
no='Operation not permitted'

echo data >>"$mnt/t"
refuses "$no" dd if=/dev/zero of="$mnt/t" bs=1 count=1 conv=notrunc
refuses "$no" dd if=/dev/zero of="$mnt/t" bs=1 count=1
refuses "$no" truncate -s 0 "$mnt/t"
refuses "$no" truncate -s 1000 "$mnt/t"
refuses "$no" write_over "$mnt/t" x
refuses "$no" cp /etc/passwd "$mnt/t"
content "$mnt/t" 'data\n'
python3 -c 'import os, sys; os.truncate(sys.argv[1], 5)' "$mnt/t" # what it is already
touch "$mnt/t"
content "$mnt/t" 'data\n'

echo first >"$mnt/new"
content "$mnt/new" 'first\n'
touch "$mnt/empty"
echo into >"$mnt/empty"
content "$mnt/empty" 'into\n'
touch "$mnt/e"
truncate -s 0 "$mnt/e"
refuses "$no" truncate -s 1 "$mnt/e"
real_text 3000000 >"$scratch/text"
cp "$scratch/text" "$mnt/copy"
cmp "$scratch/text" "$mnt/copy"
dd if="$scratch/text" of="$mnt/dd" bs=300001 status=none
wait_until 60 cmp -s "$scratch/text" "$mnt/dd" || die "dd: $(cmp "$scratch/text" "$mnt/dd" 2>&1)"

python3 - "$mnt/p" <<'PY'
import errno, os, sys
def refused(f, *a):
    try: f(*a)
    except OSError as e: assert e.errno == errno.EPERM, e
    else: raise AssertionError('worked')
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
refused(os.pwrite, f, b'x\n', 5)       # not from 0
os.pwrite(f, b'one\n', 0)
refused(os.pwrite, f, b'two\n', 0)     # overwrite
refused(os.pwrite, f, b'two\n', 9)     # a hole
os.pwrite(f, b'two\n', 4)
refused(os.ftruncate, f, 0)
refused(os.open, sys.argv[1], os.O_RDWR)
refused(os.open, sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
a = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
os.pwrite(a, b'three\n', 0)            # O_APPEND: where it says does not matter
assert os.pread(f, 100, 0) == b'one\ntwo\nthree\n'
PY
