#!/usr/bin/env bash
# A thread of the daemon that has no turn for a while, just when it has taken a close from the kernel: who
# asks next for the lock that was held, and does not want to wait, gets it. Its twin: a lock that is held
# is refused.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"

with_fault read=LATE/3 mount_with --size 64M
touch "$mnt/t" "$now"
python3 - "$mnt/t" <<'PY' || die "see above"
import fcntl, os, sys
def opened(): return os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
b = opened()
for _ in range(40):
    a = opened()
    fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(a)
    fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(b, fcntl.LOCK_UN)
a = opened()
fcntl.flock(a, fcntl.LOCK_EX)
for _ in range(5):
    try: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: pass
    else: raise AssertionError('two have the lock')
PY
rm "$now"
unmount_pool
