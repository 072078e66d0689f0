#!/usr/bin/env bash
# A removed topic is read and written on by who has it open, until the last close; its name is free at
# once; df shows the space back when nobody holds it, and after a kill of the daemon, too.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

free() {
    stat -f -c %a "$mnt"
}
# The pool's own bookkeeping may take a little.
free_again() {
    [ "$(free)" -ge $((before - 600)) ]
}
real_text 20000000 >"$scratch/text"
before=$(free)
cat "$scratch/text" >>"$mnt/t"
taken=$(free)
[ $((before - taken)) -ge 4800 ] || die "df does not show what was written: $before, then $taken"

exec 3<"$mnt/t"
exec 4>>"$mnt/t"
head -c 1000000 <&3 | cmp - <(head -c 1000000 "$scratch/text")
rm "$mnt/t"
refuses 'No such file' cat "$mnt/t"
echo another >>"$mnt/t"
content "$mnt/t" 'another\n'
cat <&3 | cmp - <(tail -c +1000001 "$scratch/text") || die "the open file"
equal links "$(stat -L -c %h /dev/fd/3)" 0
[ "$(free)" -lt $((before - 4000)) ] || die "space came back while the topic was open"
echo late >&4
printf 'and an unfinished line' >&4
cat <&3 | cmp - <(echo late) || die "what was written to a removed topic is not read by who has it open"
content "$mnt/t" 'another\n'
{ head -c 4000000 "$scratch/text"; echo; printf unfinished; } >&4
cat <&3 | cmp - <(printf 'and an unfinished line'; head -c 4000000 "$scratch/text"; echo) || die "much"
exec 4>&- # takes the unfinished line with it
exec 3<&-
wait_until 60 free_again || die "space did not come back: $before, now $(free)"

# Again and again: nothing leaks.
for _ in 1 2 3 4 5 6; do
    cat "$scratch/text" >>"$mnt/r"
    rm "$mnt/r"
done
wait_until 60 free_again || die "space leaks: $before, now $(free)"

# Killed while it is open: gone, with what was written to it before and after.
echo kept >>"$mnt/kept"
exec 3<"$mnt/kept" 4>>"$mnt/u"
cat "$scratch/text" >&4
rm "$mnt/u"
cat "$scratch/text" >&4
[ "$(free)" -lt $((before - 8000)) ] || die "it takes no space"
kill -KILL "$mount_pid"
wait "$mount_pid" 2>/dev/null || true
(echo no >&4) 2>/dev/null && die "written without a daemon"
exec 3<&- 4>&-
mount_pool
content "$mnt/kept" 'kept\n'
content "$mnt/t" 'another\n'
refuses 'No such file' cat "$mnt/u"
wait_until 60 free_again || die "space did not come back after a kill: $before, now $(free)"
unmount_pool
embar fsck "$pool" >"$scratch/out" 2>&1 || die "fsck: $(cat "$scratch/out")"
