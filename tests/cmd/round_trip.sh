#!/usr/bin/env bash
# What goes in through `embar pub` comes out of `embar sub` byte for byte: from files and pipes, over
# both kinds of socket, with every option that changes the way it goes.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

real_text "$scratch/text" 24
want=$(sum_of <"$scratch/text")
broker_start 512M

say "a file; a pipe; four connections; small batches; no ack; no session"
embar pub file "$scratch/text" 2>"$scratch/summary"
grep -qE "^embar pub: [0-9]+ messages, $(stat -c %s "$scratch/text") bytes, .* MB/s acked\$" "$scratch/summary" ||
    die "the summary says: $(cat "$scratch/summary")"
same file "$want" "$(embar sub file | sum_of)"
# shellcheck disable=SC2002
cat "$scratch/text" | embar pub a/deep/pipe -q
same pipe "$want" "$(embar sub a/deep/pipe | sum_of)"
embar pub four --connections 4 --batch 64K -q <"$scratch/text"
same four "$want" "$(embar sub four | sum_of)"
head -c 3000000 "$scratch/text" >"$scratch/some"
embar pub small --batch 1 -q "$scratch/some"
same small "$(sum_of <"$scratch/some")" "$(embar sub small | sum_of)"
embar pub unacked --ack 0 -q "$scratch/text"
lines=$(($(wc -l <"$scratch/text") + $([ -n "$(tail -c 1 "$scratch/text")" ] && echo 1 || echo 0)))
all_arrived() {
    [ "$(embar sub unacked | wc -c)" -eq "$(stat -c %s "$scratch/text")" ]
}
wait_until 60 all_arrived ||
    die "ack 0: not all arrived"
same unacked "$want" "$(embar sub unacked | sum_of)"

say "over TCP, with the token"
embar pub tcp -q -s "$address" --token-file "$token" "$scratch/text"
same tcp "$want" "$(embar -s "$address" --token-file "$token" sub tcp | sum_of)"
fails 1 'token' embar -s "$address" topics

say "messages are lines: positions and counts agree"
same messages "$lines" "$(embar stat file --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["messages"])')"
same "--max" "$(head -n 777 "$scratch/text" | sum_of)" "$(embar sub file --max 777 | sum_of)"
same "message:N" "$(tail -n +1235 "$scratch/text" | sum_of)" "$(embar sub file --from message:1234 | sum_of)"
offset=$(head -n 5000 "$scratch/text" | wc -c)
same "offset:N" "$(tail -c +$((offset + 1)) "$scratch/text" | sum_of)" "$(embar sub file --from "offset:$offset" | sum_of)"
same latest '' "$(embar sub file --from latest)"
same "time: the past" "$want" "$(embar sub file --from time:1h | sum_of)"
same "time: to come" '' "$(embar sub file --from time:2100-01-01Z)"

say "odd input: no newline at the end, empty lines, one-byte lines, NULs, a line longer than a batch"
printf 'a\n\nb' >"$scratch/odd1"
head -c 200000 /dev/zero | tr '\0' '\n' >"$scratch/odd2"
head -c 100000 /dev/zero >"$scratch/odd3"
{ echo short; head -c 40000000 /dev/zero | tr '\0' x; echo; echo end; } >"$scratch/odd4"
: >"$scratch/odd5"
for i in 1 2 3 4 5; do
    embar create "odd$i"
    embar pub "odd$i" "$scratch/odd$i" 2>"$scratch/err" || { cat "$scratch/err" >&2; die "odd$i"; }
    [ "$i" -ne 4 ] || grep -q split "$scratch/err" || die "a split line was not told"
    same "odd$i" "$(sum_of <"$scratch/odd$i")" "$(embar sub "odd$i" | sum_of)"
done
same "one-byte lines" 200000 "$(embar stat odd2 --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["messages"])')"

say "several files; each one message with --whole"
# shellcheck disable=SC2094 # both only read it
embar pub many -q "$scratch/odd1" "$scratch/some" - <"$scratch/odd1"
same many "$(cat "$scratch/odd1" "$scratch/some" "$scratch/odd1" | sum_of)" "$(embar sub many | sum_of)"
embar pub whole -q --whole "$scratch/odd1" "$scratch/some" "$scratch/odd3"
same whole "$(cat "$scratch/odd1" "$scratch/some" "$scratch/odd3" | sum_of)" "$(embar sub whole | sum_of)"
same "whole, first" "$(sum_of <"$scratch/odd1")" "$(embar sub whole --max 1 | sum_of)"

say "a trickle is sent on without waiting for more"
lines_are() {
    [ "$(embar sub trickle 2>/dev/null | wc -l)" -eq "$1" ]
}
mkfifo "$scratch/fifo"
embar pub trickle -q <"$scratch/fifo" &
own_pids+=($!)
pub=$!
exec 9>"$scratch/fifo"
for i in 1 2 3; do
    echo "line $i" >&9
    wait_until 60 lines_are "$i" || die "line $i did not come"
done
printf 'rest' >&9
exec 9>&-
wait "$pub"
same trickle "$(printf 'line 1\nline 2\nline 3\nrest')" "$(embar sub trickle)"

say "a follower sees what comes, and a reader that leaves ends it quietly"
embar sub trickle --follow --max 5 >"$scratch/followed" &
own_pids+=($!)
follower=$!
printf 'five\n' | embar pub trickle -q
wait "$follower"
same followed "$(printf 'line 1\nline 2\nline 3\nrestfive')" "$(cat "$scratch/followed")"
status=0
{ embar sub file 2>"$scratch/err"; echo $? >"$scratch/status"; } | head -c 10 >/dev/null
same "EPIPE" 0 "$(cat "$scratch/status")"
{ embar sub trickle --follow 2>>"$scratch/err"; echo $? >"$scratch/status"; } | head -n 1 >/dev/null
same "EPIPE while following" 0 "$(cat "$scratch/status")"
[ ! -s "$scratch/err" ] || die "a reader that left was complained about: $(cat "$scratch/err")"

say "all is there after a restart"
broker_stop
broker_start 512M
for topic in file a/deep/pipe four unacked tcp; do
    same "$topic after a restart" "$want" "$(embar sub "$topic" | sum_of)"
done
broker_stop
same "dump" "$want" "$(embar dump "$pool" four | sum_of)"
