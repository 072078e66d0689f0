#!/usr/bin/env bash
# Programs that append: tee -a, awk, dd with and without O_DIRECT, Python's logging.FileHandler from
# many processes and threads, and json-file as container engines write it, rotated by renaming. Each
# against an ordinary file that the same program wrote. Their twins: >, dd without append, and a
# FileHandler of mode w are refused and change nothing.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool
mkdir "$scratch/plain"
# The last unfinished line is published at the last close, which is told to the mount afterwards.
same() {
    wait_until 60 cmp -s "$mnt/$1" "$scratch/plain/$1" || die "$1: $(cmp "$mnt/$1" "$scratch/plain/$1" 2>&1)"
}
real_text 2000000 >"$scratch/text"

for dir in "$mnt" "$scratch/plain"; do
    tee -a "$dir/tee" <"$scratch/text" >"$dir/out"
    tee -a "$dir/tee" "$dir/tee2" <"$scratch/text" >/dev/null
    awk -v to="$dir/awk" '{ print NR, $0 >> to }' "$scratch/text"
    dd if="$scratch/text" of="$dir/dd" bs=4099 oflag=append conv=notrunc status=none
    head -c 1048576 "$scratch/text" |
        dd of="$dir/direct" bs=65536 iflag=fullblock oflag=append,direct conv=notrunc status=none
    dd if="$scratch/text" of="$dir/sync" bs=100000 oflag=append,sync conv=notrunc,fsync status=none
    find "$top/tests" -name '*.sh' -exec cat {} + >>"$dir/find"
    xargs -n 20 <"$scratch/text" >>"$dir/xargs" 2>/dev/null || true
    sort "$scratch/text" >>"$dir/sort"
done
for name in tee tee2 out awk dd direct sync find xargs sort; do same "$name"; done

overwrite() {
    sort "$scratch/text" >"$mnt/sort"
}
refuses 'Operation not permitted' overwrite
refuses 'Operation not permitted' dd if="$scratch/text" of="$mnt/dd" conv=notrunc status=none
refuses 'Operation not permitted' sort -o "$mnt/sort" "$scratch/text"
same sort
same dd

python3 - "$mnt" <<'PY'
import json, logging, os, sys, threading, time
m = sys.argv[1]
def log(process):
    handler = logging.FileHandler(m + '/python')
    handler.setFormatter(logging.Formatter('%(process)d %(message)s'))
    logger = logging.getLogger('p'); logger.addHandler(handler); logger.setLevel(logging.INFO)
    def work(thread):
        for n in range(20): logger.info('%d %d %d %s', process, thread, n, 'x' * (n * 97 % 5000))
    threads = [threading.Thread(target=work, args=(t,)) for t in range(5)]
    for t in threads: t.start()
    for t in threads: t.join()
children = []
for p in range(10):
    pid = os.fork()
    if pid == 0:
        log(p); logging.shutdown(); os._exit(0)
    children.append(pid)
for pid in children: assert os.waitpid(pid, 0)[1] == 0
seen = {}
for line in open(m + '/python'):
    pid, p, t, n, *text = line.rstrip('\n').split(' ')
    assert ''.join(text) == 'x' * (int(n) * 97 % 5000), line
    assert int(n) == seen.get((p, t), -1) + 1, line   # each thread's in its order
    seen[p, t] = int(n)
assert len(seen) == 50 and set(seen.values()) == {19}
try: logging.FileHandler(m + '/python', mode='w')
except PermissionError: pass
else: raise AssertionError('mode w')

# As a container engine does: one write an entry, three files, the oldest removed.
def rotate(path):
    if os.path.exists(path + '.2'): os.unlink(path + '.2')
    if os.path.exists(path + '.1'): os.rename(path + '.1', path + '.2')
    os.rename(path, path + '.1')
path, count, size = m + '/c-json.log', 0, 0
f = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
for n in range(3000):
    line = json.dumps({'log': 'entry %d\n' % n, 'stream': 'stdout', 'time': time.time()}) + '\n'
    assert os.write(f, line.encode()) == len(line)
    size += len(line)
    if size > 50000:
        os.close(f); rotate(path)
        f = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640); size = 0
os.close(f)
numbers = [int(json.loads(l)['log'].split()[1]) for s in ('.2', '.1', '') for l in open(path + s)]
assert numbers == list(range(numbers[0], 3000)) and len(numbers) > 1000, numbers[:3]
assert oct(os.stat(path).st_mode) == '0o100640'
PY
