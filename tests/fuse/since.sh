#!/usr/bin/env bash
# .embar/since/WHEN/TOPIC is the topic from that moment on: a duration before now, a time, a date. It
# grows with the topic, obeys its modes, and cannot be written; a moment that is none is not there.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool
since=$mnt/.embar/since

mkdir "$mnt/d"
seq 1 1000 >>"$mnt/d/t"
between=$(date +@%s.%N)
seq 1001 2000 >>"$mnt/d/t"
after=$(date +@%s.%N)
same() {
    cmp "$since/$1/d/t" <(seq "$2" 2000) || die "since $1"
}
same 1h 1
same 2w1d12h 1
same @0 1
same 1999-12-31 1
same 1999-12-31T23:59:59.5Z 1
same 1999-12-31T23:59:59+01:00 1
same "$between" 1001
same "$(date -u -d "$between" +%FT%T.%NZ)" 1001
same "$(date -d "$between" +%FT%T.%N)" 1001
content "$since/$after/d/t" ''
content "$since/2200-01-01/d/t" ''
content "$since/0s/d/t" ''
equal size "$(stat -c %s "$since/$between/d/t")" 5000
equal base "$(xattr base "$since/$between/d/t")" "$(xattr end "$since/@0/d/t" | awk '{ print $1 - 5000 }')"
[ "$(ino "$since/$between/d/t")" != "$(ino "$since/@0/d/t")" ] || die "other parts, the same inode number"

# It grows, and a follower of it goes on; what comes after a moment to come is still found.
tail -s 0.05 -n +1 -f "$since/$after/d/t" >"$scratch/tail" &
own_pids+=($!)
seq 2001 2100 >>"$mnt/d/t"
has_all() {
    cmp -s "$scratch/tail" <(seq 2001 2100)
}
wait_until 60 has_all || die "tail -f: $(wc -c <"$scratch/tail")"
cmp "$since/$after/d/t" <(seq 2001 2100)
(cd "$since/1h" && cat d/t) | cmp - "$mnt/d/t"
equal tree "$(cd "$since/10m" && find . | sort | tr '\n' ' ')" ". ./d ./d/t "
equal listing "$(ls -A "$since")" ""
grep -c . "$since/1h/d/t" | cmp - <(echo 2100)

# Trimmed: from the oldest that is left.
trim "$mnt/d/t" "$(xattr end "$since/@0/d/t" | awk '{ print $1 - 500 }')"
cmp "$since/1h/d/t" <(seq 2001 2100)
cmp "$since/$between/d/t" <(seq 2001 2100)

for none in yesterday 10x 10 -5m 2026-02-30 2026-13-01 @x ''$'\n' 99999999999999999999d; do
    refuses 'No such file' cat "$since/$none/d/t"
done
refuses 'No such file' cat "$since/1h/none"
refuses 'Not a directory' cat "$since/1h/d/t/x"
refuses "$read_only" append "$since/1h/d/t" x
refuses "$read_only" rm -f "$since/1h/d/t"
refuses "$read_only" mkdir "$since/new" "$since/1h/new"
refuses '' setfattr -n user.embar.trim -v 1 "$since/1h/d/t"
if [ "$(id -u)" -eq 0 ]; then
    as_nobody cat "$since/1h/d/t" | cmp - "$mnt/d/t"
    chmod 700 "$mnt/d"
    refuses 'Permission denied' as_nobody cat "$since/1h/d/t"
    chmod 755 "$mnt/d"
    chmod 600 "$mnt/d/t"
    refuses 'Permission denied' as_nobody cat "$since/1h/d/t"
fi
