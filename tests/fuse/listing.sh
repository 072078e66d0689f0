#!/usr/bin/env bash
# ls shows each of many names once, also when they are listed while others come and go.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

mkdir "$mnt/d"
(cd "$mnt/d" && seq -f 'topic-%04g' 1 1000 | xargs touch)
seq -f 'topic-%04g' 1 1000 >"$scratch/names"
find "$mnt/d" -type f -printf '%f\n' | sort | cmp - "$scratch/names" || die "find: not the 1000 names"
# shellcheck disable=SC2012
ls -l "$mnt/d" | awk 'NR > 1 { print $NF }' | cmp - "$scratch/names" || die "ls: not the 1000 names"
# The numbers of the listing are those of stat.
find "$mnt/d" -type f -printf '%i %f\n' | sort -k 2 >"$scratch/listed"
(cd "$mnt/d" && stat -c '%i %n' topic-*) | cmp - "$scratch/listed" || die "inode numbers"

(while [ ! -e "$scratch/stop" ]; do
    touch "$mnt/d/z" && rm "$mnt/d/z"
done) &
own_pids+=($!)
for _ in 1 2 3 4 5; do
    find "$mnt/d" -name 'topic-*' -printf '%f\n' | sort | cmp - "$scratch/names" || die "changing"
done
touch "$scratch/stop"
wait "${own_pids[-1]}"
rm -r "$mnt/d"
equal "what is left" "$(ls -A "$mnt")" ""
