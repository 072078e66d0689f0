#!/usr/bin/env bash
# A full pool: a writer waits without wedging anybody; it can be killed; rm lets it go on; after
# --write-wait it gets ENOSPC. Nothing that was accepted is lost, nothing is there twice.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 64M --write-wait 600

metric() {
    awk -v name="embar_fs_$1" '$1 == name { print $2 }' "$mnt/.embar/metrics"
}
parked_is() {
    [ "$(metric parked)" = "$1" ]
}
echo small >>"$mnt/small"
real_text 40000000 >"$scratch/fill"
(cat "$scratch/fill" "$scratch/fill" >>"$mnt/fill") 2>"$scratch/said" &
writer=$!
own_pids+=("$writer")
wait_until 60 parked_is 1 || die "the writer does not wait: $(metric parked), $(df "$mnt")"

# Everybody else goes on: readers of the same topic, names, small topics' attributes.
head -c 4000 "$mnt/fill" | cmp - <(head -c 4000 "$scratch/fill")
content "$mnt/small" 'small\n'
touch "$mnt/new"
mkdir "$mnt/dir"
mv "$mnt/new" "$mnt/dir/new"
chmod 600 "$mnt/small"
rm "$mnt/small"
stat "$mnt/fill" >/dev/null
is_running "$writer" || die "the writer ended: $(cat "$scratch/said")"

# Killed, it is gone at once: interrupted, or done, if the space of what was just removed let it go on.
kill -KILL "$(pgrep -P "$writer" cat || echo "$writer")"
wait_until 60 is_ended "$writer" || die "the waiting writer cannot be killed"
wait_until 60 parked_is 0 || die "still parked"
cp "$mnt/fill" "$scratch/got" # its unfinished line may come yet: close does not wait for it
head -c "$(stat -c %s "$scratch/got")" <(cat "$scratch/fill" "$scratch/fill") | cmp - "$scratch/got" ||
    die "what was accepted"

# One that waits goes on when space comes.
head -c 8000000 "$scratch/fill" >"$scratch/part"
(cat "$scratch/part" >>"$mnt/second") 2>>"$scratch/said" &
writer=$!
own_pids+=("$writer")
wait_until 60 parked_is 1 || die "the second writer does not wait"
rm "$mnt/fill"
wait "$writer" || die "the second writer failed: $(cat "$scratch/said")"
wait_until 60 cmp -s "$mnt/second" "$scratch/part" || die "$(cmp "$mnt/second" "$scratch/part" 2>&1)"

# A publisher says that it waits, unless it is to be quiet.
cat "$scratch/fill" "$scratch/fill" >"$scratch/twice"
embar pub -s "$scratch/socket" third "$scratch/twice" 2>"$scratch/pub" &
publisher=$!
wait_until 60 grep -q 'nothing was acknowledged for 5 s.*embar trim' "$scratch/pub" || die "pub said: $(cat "$scratch/pub")"
embar pub -q -s "$scratch/socket" fourth "$scratch/part" 2>"$scratch/pub-q" &
quiet=$!
own_pids+=("$publisher" "$quiet")
embar rm -s "$scratch/socket" second
kill "$publisher"
wait "$publisher" && die "a publisher that was ended had it all"
embar rm -s "$scratch/socket" third
wait "$quiet" || die "the publisher does not go on: $(cat "$scratch/pub-q")"
cmp "$mnt/fourth" "$scratch/part"
equal "what a quiet publisher says" "$(cat "$scratch/pub-q")" ""
unmount_pool

# With a short wait: ENOSPC, and the file holds what the writer knows was taken.
rm "$pool"
mount_with --size 64M --write-wait 0
append_all() {
    cat "$scratch/fill" "$scratch/fill" >>"$mnt/fill"
}
refuses 'No space left on device' append_all
cp "$mnt/fill" "$scratch/got" # behind it may come an unfinished line, if it finds a place: close waits for none
size=$(stat -c %s "$scratch/got")
[ "$size" -gt 30000000 ] || die "full at $size bytes already"
head -c "$size" <(cat "$scratch/fill" "$scratch/fill") | cmp - "$scratch/got" || die "what was accepted"

# What is removed is free again, though nobody writes any more.
rm "$mnt/fill"
empty_again() {
    [ "$(df --output=pcent "$mnt" | tail -n 1 | tr -dc 0-9)" -lt 20 ]
}
wait_until 60 empty_again || die "removed, and still used: $(df "$mnt" | tail -n 1)"
