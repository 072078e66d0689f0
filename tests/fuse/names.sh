#!/usr/bin/env bash
# touch, mkdir, mv, rm, rmdir, ls: as anywhere; names that cannot be are refused and change nothing.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

mkdir -p "$mnt/a/b"
touch "$mnt/a/b/t" "$mnt/a/u"
echo one >>"$mnt/a/b/t"
equal tree "$(cd "$mnt" && find . | sort | tr '\n' ' ')" ". ./a ./a/b ./a/b/t ./a/u "
refuses 'Directory not empty' rmdir "$mnt/a/b"
refuses 'Not a directory' rmdir "$mnt/a/u"
refuses 'Is a directory' unlink "$mnt/a"
refuses 'File exists' mkdir "$mnt/a"
refuses 'No such file or directory' touch "$mnt/none/t"
refuses 'Not a directory' touch "$mnt/a/u/t"

# mv: the topic is the same one, open or not.
number=$(ino "$mnt/a/b/t")
exec 3>>"$mnt/a/b/t"
mv "$mnt/a/b/t" "$mnt/t2"
echo two >&3
exec 3>&-
content "$mnt/t2" 'one\ntwo\n'
equal ino "$(ino "$mnt/t2")" "$number"
refuses 'No such file' cat "$mnt/a/b/t"
mv "$mnt/a/b" "$mnt/c"
[ -d "$mnt/c" ] || die "mv of a directory: not there"
[ ! -e "$mnt/a/b" ] || die "mv of a directory: still there"
refuses 'subdirectory of itself' mv "$mnt/a" "$mnt/a/in"
# A topic that holds data is not overwritten by a rename either; an empty one is replaced.
echo new >>"$mnt/n"
refuses 'Operation not permitted' mv "$mnt/n" "$mnt/t2"
content "$mnt/t2" 'one\ntwo\n'
touch "$mnt/empty"
mv "$mnt/n" "$mnt/empty"
content "$mnt/empty" 'new\n'
trim "$mnt/t2" 8 # it holds nothing any more
mv "$mnt/empty" "$mnt/t2"
content "$mnt/t2" 'new\n'
echo kept >>"$mnt/k"
mv -n "$mnt/k" "$mnt/t2" || true
content "$mnt/t2" 'new\n'
content "$mnt/k" 'kept\n'
python3 - "$mnt" <<'PY'
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
m = sys.argv[1].encode()
def renameat2(a, b, flags): return 0 if libc.renameat2(-100, m + a, -100, m + b, flags) == 0 else ctypes.get_errno()
assert renameat2(b'/k', b'/t2', 1) == errno.EEXIST     # RENAME_NOREPLACE
assert renameat2(b'/k', b'/t2', 2) == errno.EINVAL     # RENAME_EXCHANGE
assert renameat2(b'/k', b'/k2', 1) == 0
PY
content "$mnt/k2" 'kept\n'

rm "$mnt/t2" "$mnt/k2"
rm -r "$mnt/a"
rmdir "$mnt/c"
equal "what is left" "$(ls "$mnt")" ""

# Names.
long=$(printf 'n%.0s' {1..255})
touch "$mnt/$long"
refuses 'File name too long' touch "$mnt/x$long"
refuses 'File name too long' stat "$mnt/x$long"
refuses 'Invalid argument' touch "$mnt/"$'con\001trol'
refuses 'Invalid argument' mkdir "$mnt/"$'not utf-8 \377'
refuses '' mv "$mnt/$long" "$mnt/"$'new\nline' # EINVAL, which mv words as another mistake
touch "$mnt/with space, comma and Ünïcode"
refuses 'Operation not permitted' ln -s x "$mnt/link"
refuses 'Operation not permitted' ln "$mnt/$long" "$mnt/link"
refuses 'Operation not permitted' mkfifo "$mnt/fifo"
rm "$mnt/$long"
deep=$mnt/$long/$long/$long/$(printf 'n%.0s' {1..250})
mkdir -p "$deep"
touch "$deep/12345" # 1,024 bytes in all
refuses 'File name too long' touch "$deep/123456"
refuses 'File name too long' mkdir "$deep/$long"
left=$(find "$mnt" -mindepth 1 | wc -l)
unmount_pool
mount_pool
equal "names after a remount" "$(find "$mnt" -mindepth 1 | wc -l)" "$left"
