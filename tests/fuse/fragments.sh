#!/usr/bin/env bash
# An unfinished line is kept per open file until its newline, fsync or the last close. Closing a
# duplicate (as shells do between commands of one line) publishes nothing.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

exec 3>>"$mnt/t"
printf 'one ' >&3
content "$mnt/t" ''
/bin/printf 'two ' >&3 # another process: its copy of the descriptor is closed
(printf 'three' >&3)
content "$mnt/t" ''
equal messages "$(xattr messages "$mnt/t")" 0
printf '\nfour' >&3
content "$mnt/t" 'one two three\n'
exec 3>&-
wait_until 60 content_is "$mnt/t" 'one two three\nfour' || die "close did not publish: $(cat "$mnt/t")"
equal messages "$(xattr messages "$mnt/t")" 2

# Two open files have a line each; neither tears the other's.
exec 3>>"$mnt/u" 4>>"$mnt/u"
printf 'aaa' >&3
printf 'bbb' >&4
printf 'AAA\n' >&3
printf 'BBB\n' >&4
content "$mnt/u" 'aaaAAA\nbbbBBB\n'
exec 3>&- 4>&-

# fsync publishes at once, without a newline; only what is unfinished, and only once.
python3 - "$mnt/v" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
def now(): return open(sys.argv[1], 'rb').read()
assert os.write(f, b'x') == 1 and now() == b''
os.fsync(f); assert now() == b'x', now()
os.fsync(f); assert now() == b'x', now()
os.write(f, b'y\nz'); assert now() == b'xy\n', now()
os.fdatasync(f); assert now() == b'xy\nz', now()
os.write(f, b'\n'); assert now() == b'xy\nz\n', now()
PY
equal messages "$(xattr messages "$mnt/v")" 4
