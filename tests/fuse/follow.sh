#!/usr/bin/env bash
# .embar/follow/TOPIC streams what comes, @OFFSET from there; a read waits, can be interrupted, says
# EAGAIN when asked not to wait, is pollable, and ends when the topic is removed.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

mkdir "$mnt/d"
echo old >>"$mnt/d/t"
touch "$mnt/odd@1"
exec 3<"$mnt/.embar/follow/d/t" 4<"$mnt/.embar/follow/d/t@0"
cat <&3 >"$scratch/new" 4<&- &
new=$!
own_pids+=("$new")
cat <&4 >"$scratch/all" 3<&- &
all=$!
own_pids+=("$all")
exec 3<&- 4<&-
wait_until 60 size_is_at_least "$scratch/all" 4 || die "no stream from 0"
seq 1 2000 >"$scratch/lines"
while IFS= read -r line; do echo "$line" >>"$mnt/d/t"; done <"$scratch/lines"
has() {
    cmp -s "$1" "$2"
}
wait_until 60 has "$scratch/new" "$scratch/lines" || die "$(cmp "$scratch/new" "$scratch/lines" 2>&1)"
wait_until 60 has "$scratch/all" "$mnt/d/t" || die "$(cmp "$scratch/all" "$mnt/d/t" 2>&1)"
is_running "$new" || die "the stream ended"

# Interrupted while it waits, and killed.
end_process "$all"
equal tree "$(cd "$mnt/.embar/follow" && find . | sort | tr '\n' ' ')" ". ./d ./d/t ./odd@1 "
python3 - "$mnt" <<'PY'
import errno, os, select, signal, sys, threading, time
m = sys.argv[1]
f = os.open(m + '/.embar/follow/d/t', os.O_RDONLY | os.O_NONBLOCK)
try: os.read(f, 10)
except BlockingIOError: pass
else: raise AssertionError('not EAGAIN')
p = select.poll(); p.register(f, select.POLLIN)
assert p.poll(50) == []
t = threading.Timer(0.1, lambda: open(m + '/d/t', 'ab').write(b'polled\n')); t.start()
assert p.poll(60000) == [(f, select.POLLIN)]
assert os.read(f, 100) == b'polled\n'
assert p.poll(50) == []
e = select.epoll(); e.register(f, select.EPOLLIN)
t = threading.Timer(0.1, lambda: open(m + '/d/t', 'ab').write(b'again\n')); t.start()
assert e.poll(60) == [(f, select.EPOLLIN)]
assert os.read(f, 100) == b'again\n'
os.close(f)
# A signal handler that raises ends the wait.
class Rang(Exception): pass
def ring(*_):
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise Rang
signal.signal(signal.SIGALRM, ring)
g = os.open(m + '/.embar/follow/d/t', os.O_RDONLY)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2) # again, if it came just before the read
    os.read(g, 10)
except Rang: pass
else: raise AssertionError('not interrupted')
open(m + '/d/t', 'ab').write(b'after\n')
assert os.read(g, 100) == b'after\n'       # nothing was lost by the interrupt
for bad, want in (('/.embar/follow/none', errno.ENOENT), ('/.embar/follow/d/t@x', errno.ENOENT)):
    try: os.open(m + bad, os.O_RDONLY)
    except OSError as err: assert err.errno == want, err
    else: raise AssertionError(bad)
try: os.open(m + '/.embar/follow/d/t', os.O_WRONLY)
except OSError as err: assert err.errno in (errno.EPERM, errno.EACCES), err
else: raise AssertionError('writable')
PY

# Overtaken by a trim: told so. Removed: the end.
trim "$mnt/d/t" 100
refuses 'No data available' head -c 1 "$mnt/.embar/follow/d/t@0"
rm "$mnt/d/t"
wait_until 60 is_ended "$new" || die "the stream of a removed topic goes on"
wait "$new" || die "cat failed at the end"
