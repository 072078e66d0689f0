#!/usr/bin/env bash
# echo >> publishes: a line is in the file when the write returns, and is one message.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

echo hello >>"$mnt/t"
content "$mnt/t" 'hello\n'
for i in 1 2 3; do
    echo "line $i" >>"$mnt/t"
    equal "last line" "$(tail -n 1 "$mnt/t")" "line $i"
done
printf 'a\nb\n\nc\n' >>"$mnt/t" # an empty line is a message too
content "$mnt/t" 'hello\nline 1\nline 2\nline 3\na\nb\n\nc\n'
equal messages "$(xattr messages "$mnt/t")" 8
equal size "$(stat -c %s "$mnt/t")" "$(cat "$mnt/t" | wc -c)"

# Another topic has none of it.
echo other >>"$mnt/u"
content "$mnt/u" 'other\n'
equal messages "$(xattr messages "$mnt/u")" 1

# All is there after a remount, at the same place.
sum=$(sha256sum <"$mnt/t")
number=$(ino "$mnt/t")
unmount_pool
mount_pool
equal content "$(sha256sum <"$mnt/t")" "$sum"
equal ino "$(ino "$mnt/t")" "$number"
echo more >>"$mnt/t"
equal "last line" "$(tail -n 1 "$mnt/t")" more
equal messages "$(xattr messages "$mnt/t")" 9
