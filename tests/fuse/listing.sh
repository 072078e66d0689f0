#!/usr/bin/env bash
# ls shows each of many names once, also when they are listed while others come and go.
#   listing.sh [--long]     1,000 names; or 10,000, and how long ls -l takes then
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

mkdir "$mnt/d"
if [ "${1:-}" = --long ]; then
    (cd "$mnt/d" && seq -f 'topic-%05g' 1 10000 | xargs touch)
    TIMEFORMAT='ls -l of 10,000 topics: %R s'
    for _ in 1 2 3 4 5; do
        time ls -l "$mnt/d" >"$scratch/list"
        equal lines "$(wc -l <"$scratch/list")" 10001
    done
    say "load: $(cut -d ' ' -f 1 /proc/loadavg)"
    rm -r "$mnt/d"
    mkdir "$mnt/d"
fi
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
