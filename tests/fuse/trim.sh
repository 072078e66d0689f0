#!/usr/bin/env bash
# A trim moves byte 0 for those who open later; an open file keeps its offsets and gets ENODATA
# below; tail -f and -F go on across it without a word. st_ino stays while anybody has it open, and
# is another one when nobody had.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

seq -f 'line %06g' 1 1000 >>"$mnt/t" # 12 bytes each
number=$(ino "$mnt/t")
tail -s 0.05 -n +1 -f "$mnt/t" >"$scratch/f" 2>"$scratch/f.err" &
own_pids+=($!)
tail -s 0.05 -n +1 -F "$mnt/t" >"$scratch/F" 2>"$scratch/F.err" &
own_pids+=($!)
wait_until 60 size_is_at_least "$scratch/f" 12000 || die "tail -f"
wait_until 60 size_is_at_least "$scratch/F" 12000 || die "tail -F"

exec 3<"$mnt/t"
head -c 24 <&3 | cmp - <(seq -f 'line %06g' 1 2)
trim "$mnt/t" 6000
equal base "$(xattr base "$mnt/t")" 6000
equal size "$(stat -c %s "$mnt/t")" 6000
cmp "$mnt/t" <(seq -f 'line %06g' 501 1000)
equal "size through the open file" "$(stat -L -c %s /dev/fd/3)" 12000
equal "ino while open" "$(ino "$mnt/t")" "$number"
equal "ino in the listing" "$(find "$mnt" -name t -printf %i)" "$number"
python3 - <<'PY'
import errno, os
try: os.pread(3, 12, 24)
except OSError as e: assert e.errno == errno.ENODATA, e
else: raise AssertionError('below the trim')
assert os.pread(3, 12, 6000) == b'line 000501\n'
assert os.pread(3, 100, 12000) == b''
PY
refuses 'No data available' head -c 100 <&3
seq -f 'line %06g' 1001 1100 >>"$mnt/t"
trim "$mnt/t" 6012
trim "$mnt/t" 6001 # backwards: nothing happens
equal base "$(xattr base "$mnt/t")" 6012
equal "base of the open file" "$(xattr base /dev/fd/3)" 0
equal "oldest offset, by the open file" "$(xattr first_offset /dev/fd/3)" 6012
refuses 'Invalid argument' trim "$mnt/t" 999999
seq -f 'line %06g' 1101 1200 >>"$mnt/t"
seq -f 'line %06g' 1 1200 >"$scratch/all"
has_all() {
    cmp -s "$1" "$scratch/all"
}
wait_until 60 has_all "$scratch/f" || die "tail -f across trims: $(cmp "$scratch/f" "$scratch/all" 2>&1)"
wait_until 60 has_all "$scratch/F" || die "tail -F across trims: $(cmp "$scratch/F" "$scratch/all" 2>&1)"
equal "the tails said" "$(cat "$scratch/f.err" "$scratch/F.err")" ""

# Nobody has it open: the next trim makes another file of it, and so does a remount.
exec 3<&-
end_process "${own_pids[-1]}"
end_process "${own_pids[-2]}"
is_other() {
    [ "$(ino "$mnt/t")" != "$number" ]
}
trim "$mnt/t" 12000
wait_until 60 is_other || die "the same st_ino across a trim that nobody had open"
number=$(ino "$mnt/t")
cmp "$mnt/t" <(seq -f 'line %06g' 1001 1200)
equal "first message" "$(xattr first_message "$mnt/t")" 1000
unmount_pool
mount_pool
equal "ino after a remount" "$(ino "$mnt/t")" "$number"
cmp "$mnt/t" <(seq -f 'line %06g' 1001 1200)
# A part of a line: the whole line stays.
trim "$mnt/t" 12005
equal base "$(xattr base "$mnt/t")" 12000
trim "$mnt/t" "$(xattr end "$mnt/t")"
content "$mnt/t" ''
echo on >>"$mnt/t"
content "$mnt/t" 'on\n'
