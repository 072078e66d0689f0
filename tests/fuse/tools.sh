#!/usr/bin/env bash
# cat, head, tail, grep, wc, dd, cp, less, sed, sha256sum read a topic as they read a file with the
# same bytes.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

real_text 4000000 >"$scratch/f"
echo >>"$scratch/f"
# Many small writes, many batches; and a part in large ones.
head -n 2000 "$scratch/f" | while IFS= read -r line; do printf '%s\n' "$line"; done >>"$mnt/f"
tail -n +2001 "$scratch/f" >>"$mnt/f"

same() {
    cmp <(cd "$scratch" && "$@" 2>&1) <(cd "$mnt" && "$@" 2>&1) || die "differs: $*"
}
same cat f
same head -n 100 f
same head -c 1000001 f
same tail -n 1000 f
same tail -c 70000 f
same tail -n +5000 f
same grep -n -i license f
same grep -c . f
same wc f
same sed -n '100,200p' f
same awk '{ n += NF } END { print n, NR }' f
same sort f
same dd if=f bs=1 skip=12345 count=100 status=none
same dd if=f bs=4k skip=17 count=9 status=none
same dd if=f bs=3M iflag=direct status=none
same sha256sum f
same tac f
same od -A d -c -j 999999 -N 500 f
cp "$mnt/f" "$scratch/g"
cmp "$scratch/f" "$scratch/g"
cp "$mnt/f" "$mnt/g"
cmp "$scratch/f" "$mnt/g"
split -n l/3 "$mnt/f" "$scratch/part."
cat "$scratch"/part.a? | cmp - "$scratch/f"
gzip -c "$mnt/f" | gzip -dc | cmp - "$scratch/f"
command -v less >/dev/null && same less f
equal blksize "$(stat -c %o "$mnt/f")" 1048576
# du tells the bytes, apparent and in blocks; nothing is sparse.
equal du "$(du --apparent-size -B 1 "$mnt/f" | cut -f 1)" "$(stat -c %s "$scratch/f")"
[ "$(du -B 1 "$mnt/f" | cut -f 1)" -ge "$(stat -c %s "$scratch/f")" ] || die "du: less than there is"
mkdir "$mnt/dir"
cp "$mnt/f" "$mnt/dir/h"
equal "du of a directory" "$(du -s --apparent-size -B 1 "$mnt/dir" | cut -f 1)" \
    $(($(stat -c %s "$mnt/f") + $(stat -c %s "$mnt/dir")))
# Beyond the end there is nothing, at any size.
equal beyond "$(dd if="$mnt/f" bs=1M skip=100 status=none | wc -c)" 0
