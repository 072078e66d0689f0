#!/usr/bin/env bash
# More writers than the producer's ring has places, and each commit waits for a sync: they are parked
# until it has moved, and every line comes, once and in its writer's order. Unfinished lines that are
# kept over the wait come whole. Its twin: with room in the ring nobody is parked.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
metric() {
    awk -v name="embar_fs_$1" '$1 == name { print $2 }' "$mnt/.embar/metrics"
}
# write_all: 64 open files in one process each, lines in pieces that end anywhere.
write_all() {
    python3 - "$mnt" <<'PY'
import os, sys, threading
def work(n):
    f = os.open('%s/t%d' % (sys.argv[1], n % 8), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    text = b''.join(b'%d %d %s\n' % (n, i, b'x' * (i * n % 300)) for i in range(30))
    at, step = 0, 37 + n * 13
    while at < len(text): at += os.write(f, text[at:at + step])
    os.fsync(f); os.close(f)
threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
for t in threads: t.start()
for t in threads: t.join()
seen = {}
for name in range(8):
    for line in open('%s/t%d' % (sys.argv[1], name)):
        n, i, *text = line.rstrip('\n').split(' ')
        n, i = int(n), int(i)
        assert n % 8 == name and ''.join(text) == 'x' * (i * n % 300), line
        assert i == seen.get(n, -1) + 1, line
        seen[n] = i
assert len(seen) == 64 and set(seen.values()) == {29}, seen
PY
}
embar pool create "$pool" --size 64M --descriptors 2 --durability machine >"$scratch/made"
mount_with --durability machine
write_all
[ "$(metric parked_total)" -gt 0 ] || die "nobody was parked: this shows nothing"
equal "parked at the end" "$(metric parked)" 0
equal "no space" "$(metric no_space_total)" 0
unmount_pool

rm "$pool"
mount_with --size 64M
write_all
equal "parked, with room" "$(metric parked_total)" 0
