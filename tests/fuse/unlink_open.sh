#!/usr/bin/env bash
# A removed topic is read on by who has it open, until the last close; its name is free at once;
# df shows the space back when nobody holds it.
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
(echo late >&4) 2>"$scratch/said" && die "a write to a removed topic worked"
grep -q 'Stale file handle' "$scratch/said" || die "said: $(cat "$scratch/said")"
exec 3<&- 4>&-
wait_until 5 free_again || die "space did not come back: $before, now $(free)"

# Again and again: nothing leaks.
for _ in 1 2 3 4 5 6; do
    cat "$scratch/text" >>"$mnt/r"
    rm "$mnt/r"
done
wait_until 5 free_again || die "space leaks: $before, now $(free)"
