#!/usr/bin/env bash
# .embar/segments/TOPIC/OFFSET: sealed pieces in whole messages that together are the topic but for its
# newest part. They can be mapped, come from the page cache when they are read again, and go with a
# trim. Its twin: the topic itself cannot be mapped and is never cached.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 384M
segments=$mnt/.embar/segments

mkdir "$mnt/d"
real_text 40000000 >"$scratch/text"
awk '{ print } NR % 100000 == 0 { for (i = 0; i < 100000; i++) printf "long line "; print "" }' \
    "$scratch/text" >"$scratch/whole"
cat "$scratch/whole" >>"$mnt/d/t"
echo small >>"$mnt/small"
size=$(stat -c %s "$mnt/d/t")
equal tree "$(cd "$segments" && find . -type d | sort | tr '\n' ' ')" ". ./d ./d/t ./small "
equal "pieces of a small topic" "$(ls "$segments/small")" ""
pieces=("$segments"/d/t/*)
equal pieces "${#pieces[@]}" $((size / 16777216))
sealed=$(cat "${pieces[@]}" | wc -c)
cat "${pieces[@]}" | cmp - <(head -c "$sealed" "$scratch/whole") || die "not the topic's bytes"
[ $((size - sealed)) -lt 33554432 ] || die "only $sealed bytes of $size are in pieces"
at=0
for piece in "${pieces[@]}"; do
    equal name "${piece##*/}" "$(printf %020d "$at")"
    equal "last byte of $piece" "$(tail -c 1 "$piece" | od -An -c | tr -d ' ')" '\n'
    at=$((at + $(stat -c %s "$piece")))
done
equal "inode numbers" "$(stat -c %i "${pieces[@]}" | sort -u | wc -l)" "${#pieces[@]}"

python3 - "$mnt/d/t" "${pieces[1]}" "$scratch/whole" "$mnt/.embar/metrics" <<'PY'
import errno, mmap, os, sys
topic, piece, whole, metrics = sys.argv[1:]
begin, size = int(os.path.basename(piece)), os.stat(piece).st_size
want = open(whole, 'rb').read()[begin:begin + size]
def reads():
    for line in open(metrics):
        if line.startswith('embar_fs_read_bytes_total '): return int(line.split()[1])
f = os.open(piece, os.O_RDONLY)
m = mmap.mmap(f, size, mmap.MAP_SHARED, mmap.PROT_READ)
assert m[:] == want
for at in (0, 1, 4095, 1 << 20, size - 1, size, size + 5): assert os.pread(f, 5000, at) == want[at:at + 5000], at
before = reads()
again = os.open(piece, os.O_RDONLY)
assert os.read(again, size) == want
assert reads() - before < size // 2, 'read again from the daemon, not from the page cache'
before = reads()
t = os.open(topic, os.O_RDONLY)
os.pread(t, 1 << 20, begin); os.pread(t, 1 << 20, begin)
assert reads() - before == 2 << 20
try: mmap.mmap(t, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
except OSError as e: assert e.errno == errno.ENODEV, e
else: raise AssertionError('a growing file was mapped')
PY
cat "$scratch/whole" >>"$mnt/d/t" # what is sealed stays
cat "${pieces[@]}" | cmp - <(head -c "$sealed" "$scratch/whole") || die "sealed pieces changed"
pieces=("$segments"/d/t/*)
equal "pieces later" "${#pieces[@]}" $((size * 2 / 16777216))
sealed=$(cat "${pieces[@]}" | wc -c)
cat "${pieces[@]}" | cmp - <(cat "$scratch/whole" "$scratch/whole" | head -c "$sealed") ||
    die "not the topic's bytes, later"

trim "$mnt/d/t" 20000000
equal "pieces after a trim" "$(echo "$segments"/d/t/*)" "${pieces[*]:2}"
refuses 'No such file' cat "${pieces[1]}"
for none in 0 1 00000000000000000001 x 99999999999999999999 18446744073709551616; do
    refuses 'No such file' cat "$segments/d/t/$none"
done
refuses 'No such file' ls "$segments/none"
refuses "$read_only" append "${pieces[2]}" x
refuses "$read_only" rm -f "${pieces[2]}"
if [ "$(id -u)" -eq 0 ]; then
    as_nobody cmp "${pieces[2]}" "${pieces[2]}"
    chmod 600 "$mnt/d/t"
    refuses 'Permission denied' as_nobody ls "$segments/d/t"
    refuses 'Permission denied' as_nobody cat "${pieces[2]}"
fi
rm "$mnt/d/t"
refuses 'No such file' ls "$segments/d/t"
