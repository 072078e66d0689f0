#!/usr/bin/env bash
# poll and epoll on a topic: readable when there is more than this open file has read; woken by
# writes, of another process too; not woken without any.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

echo one >>"$mnt/t"
python3 - "$mnt/t" <<'PY'
import os, select, subprocess, sys, threading
path = sys.argv[1]
f = os.open(path, os.O_RDONLY)
p = select.poll(); p.register(f, select.POLLIN)
e = select.epoll(); e.register(f, select.EPOLLIN)
assert p.poll(0) and e.poll(0)
assert os.read(f, 100) == b'one\n'
assert p.poll(100) == []
for i in range(20):
    line = b'line %d\n' % i
    t = threading.Timer(0.02, subprocess.run, [['sh', '-c', 'echo line %d >>"$0"' % i, path]]); t.start()
    got = p.poll(60000) if i % 2 else e.poll(60)
    assert got, 'not woken'
    assert os.read(f, 100) == line
    t.join()
assert p.poll(100) == [] and e.poll(0) == []
w = os.open(path, os.O_WRONLY | os.O_APPEND)
q = select.poll(); q.register(w, select.POLLOUT)
assert q.poll(0) == [(w, select.POLLOUT)]
PY
