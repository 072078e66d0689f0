#!/usr/bin/env bash
# Looking after topics: make, list, show, move, trim, remove; and what is refused, with its sentence.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

say "without a broker"
unset EMBAR_SERVER
fails 1 'No broker answers' embar -s 127.0.0.1:1 topics
fails 1 'no broker at|No broker' embar -s "$scratch/none" pub t
fails 1 'not a mount of embarfs' embar -s "$scratch" topics
fails 1 'port' embar topics -s localhost:99999
fails 1 'host:port' embar topics -s nonsense
fails 2 'no command' embar nonsense
fails 2 'topic' embar pub
fails 2 'ack level' embar pub t --ack 3
fails 2 'batch size' embar pub t --batch 17M
fails 2 'position' embar sub t --from sometime
fails 2 'before' embar trim t
fails 2 '' embar
embar --help | grep -q '  pub ' || die "--help does not list the commands"
for command in pub sub topics create mkdir rm mv trim set stat pool append dump version; do
    embar "$command" --help | grep -q '^Usage: embar '"$command" || die "$command has no help"
    embar --help | grep -q "^  $command " || die "--help does not list $command"
done
same version "$(embar --version)" "$(embar version)"

broker_start 256M
say "make, list, show"
embar mkdir -p a/b
embar create a/b/one two --order 2
embar create -p c/d/three
printf 'x\ny\n' | embar pub a/b/one -q
same topics "$(printf 'a/b/one\nc/d/three\ntwo')" "$(embar topics | sort)"
same "topics below" a/b/one "$(embar topics a)"
embar topics -l | grep -q '4 B .*a/b/one$' || die "topics -l: $(embar topics -l)"
embar topics --json | python3 -c 'import json,sys; assert len(json.load(sys.stdin)) == 3'
embar stat a/b/one | grep -q '^messages *2$' || die "stat: $(embar stat a/b/one)"
embar stat two --json | python3 -c 'import json,sys; assert json.load(sys.stdin)["order"] == 2'
embar stat | grep -q '^ *durability' || die "stat of the broker: $(embar stat)"
embar stat --json | python3 -c 'import json,sys; assert json.load(sys.stdin)["pool"]["size"] == 256 << 20'

say "refusals change nothing"
before=$(embar topics -l | sort)
fails 1 'exist' embar create two
embar create -p two
fails 1 'no such|not there|exist' embar create nowhere/x
fails 1 '' embar create a
fails 1 'name' embar create a/../x
fails 1 'name' embar pub "$(printf 'a\001b')"
fails 1 'name' embar pub ''
for command in pub 'create -p' 'mkdir -p'; do
    # shellcheck disable=SC2086 # the option
    fails 1 'not a valid topic name' embar $command 'fresh/but//not'
    fails 1 'no topic or directory' embar stat fresh
done
# The end of a long name is shown, in whole characters.
long=$(printf '\303\251%.0s' $(seq 1 100))
fails 1 "^embar stat: \.\.\.$(printf '\303\251')" embar stat "$long/$long-x"
iconv -f UTF-8 -t UTF-8 "$scratch/err" >/dev/null || die "half a character is shown: $(cat "$scratch/err")"
fails 1 'name' embar create "$(head -c 256 /dev/zero | tr '\0' n)"
fails 1 'reserved' embar create .embar/x
fails 1 '' embar pub a
for command in sub stat rm 'trim --before latest' 'mv absent' 'pub --no-create'; do
    # shellcheck disable=SC2086 # the options that some of them need
    fails 1 "^embar ${command%% *}: absent: there is no topic or directory of that name" embar $command absent
done
fails 1 'beyond the end of the topic, which is 0' embar trim two --before offset:99
fails 1 'message 5 is beyond the end of the topic' embar trim two --before message:5
fails 1 'root directory cannot be removed' embar rm /
fails 1 'root directory cannot be renamed' embar mv / elsewhere
fails 1 'the new name is the root directory' embar mv two /
fails 1 'into itself or below itself' embar mv c c/d/e
fails 1 'directory for the new name does not exist' embar mv c c/e/d
fails 1 'the new name is a directory' embar mv two c
fails 1 'a directory cannot replace' embar mv c two
fails 1 'a directory on the way does not exist' embar mkdir nowhere/x
embar rm -f absent
fails 1 '' embar rm a
fails 1 'order' embar pub two --order 5
fails 1 'ack 2 needs a broker with a replica' embar pub two --ack 2
fails 1 'ack 2 needs a replica and this broker has none' embar create three --ack 2
fails 2 'ack 0 has no session' embar pub two --ack 0 --session new
fails 1 'has another order' embar pub two --order 0
fails 1 'trimmed|beyond|offset' embar sub two --from offset:99
fails 1 'cannot be read' embar pub two "$scratch/absent"
fails 1 'directory' embar pub two "$scratch"
same "after refusals" "$before" "$(embar topics -l | sort)"

say "orders and acks of a topic are those of its publishers, unless they ask otherwise"
# ack_is WANT WORD COMMAND...: what the topic tells, and what the summary of publishing to it says.
ack_is() {
    same "ack of $3" "$1" "$(embar stat "$3" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["ack"])')"
    echo line | embar pub "${@:3}" 2>"$scratch/err"
    grep -qE "MB/s $2\$" "$scratch/err" || die "pub ${*:3} said: $(cat "$scratch/err")"
}
embar create quiet --ack 0 --order 0
embar create loud --ack 1
ack_is 0 sent quiet
ack_is 0 acked quiet --ack 1
ack_is 0 sent quiet --order 0
ack_is 1 acked loud
ack_is 1 sent loud --ack 0
echo line | embar pub quiet --session new 2>"$scratch/err"
grep -q 'session [0-9]' "$scratch/err" || die "no session: $(cat "$scratch/err")"
grep -q 'acked$' "$scratch/err" || die "a session is asked for to hear acks: $(cat "$scratch/err")"
fails 1 'has another order' embar pub quiet --order 5
lines_of_quiet() {
    [ "$(embar sub quiet | wc -l)" -eq 4 ]
}
wait_until 60 lines_of_quiet || die "quiet has $(embar sub quiet | wc -l) lines"
embar rm quiet loud

say "too few descriptors are told by their name"
told=
echo x >"$scratch/x"
for n in 5 6 7 8 9 10 11 12 13 14; do
    status=0
    (ulimit -n "$n" && exec embar pub few) <"$scratch/x" >"$scratch/out" 2>&1 || status=$?
    [ "$status" -ne 0 ] || break
    grep -q 'ulimit -n' "$scratch/out" || die "with $n it said: $(cat "$scratch/out")"
    told=yes
done
same "status with $n descriptors" 0 "$status"
same "told of fewer" yes "$told"
embar rm few

say "names that would move a terminal's cursor are written out, whoever says them"
bad=$(printf 'a\033[31m\nb')
for command in "$bad" "pub $bad" "sub $bad" "stat $bad" "rm $bad" "create $bad" "mkdir $bad" "topics $bad" \
    "mv $bad two" "trim $bad --before 1" "sub t --from $bad" "pub --session $bad t" "create --$bad t" \
    "topics -s /tmp/$bad" "topics -s $bad:1" "fsck /tmp/$bad" "pool show /tmp/$bad" "dump $pool $bad" "pub two /tmp/$bad"; do
    IFS=' ' read -r -d '' -a line <<<"$command" || true
    line[-1]=${line[-1]%$'\n'}
    status=0
    embar "${line[@]}" >"$scratch/out" 2>&1 </dev/null || status=$?
    [ "$status" -ne 0 ] || die "worked, but must not: $command"
    grep -q '\\x1b\[31m' "$scratch/out" || die "'$command' does not name it: $(cat "$scratch/out")"
    if tr -d '\n' <"$scratch/out" | grep -q '[[:cntrl:]]'; then die "'$command' said: $(cat -v "$scratch/out")"; fi
done

say "move, trim, remove"
embar mv a/b/one a/moved
same moved "$(printf 'x\ny')" "$(embar sub a/moved)"
embar rm a/b
seq 1 100000 >"$scratch/numbers"
embar pub numbers -q --batch 16K "$scratch/numbers"
base=$(embar trim numbers --before message:60000 2>"$scratch/err")
grep -qF "numbers begins at offset $base now; $base bytes (" "$scratch/err" ||
    die "trim said: $(cat "$scratch/err")"
same "trimmed once more" "$base" "$(embar trim -q numbers --before 1)"
same "older than a year" "$base" "$(embar trim -q numbers --before 365d)"
fails 2 'no position' embar trim numbers --before yesterday-ish
fails 2 'no position' embar trim numbers --before earliest
fails 1 '^embar trim: absent: ' embar trim absent --before 10m
offset=$(head -n 60000 "$scratch/numbers" | wc -c)
if [ "$base" -eq 0 ] || [ "$base" -gt "$offset" ]; then
    die "trimmed to $base, asked for $offset"
fi
same "what is left" "$(tail -c +$((base + 1)) "$scratch/numbers" | sum_of)" "$(embar sub numbers | sum_of)"
embar stat numbers --json | python3 -c 'import json, sys
s = json.load(sys.stdin)
assert s["base"] == int(sys.argv[1]) and s["first"] > 0, s
assert s["next"] - s["first"] == s["messages"] > 0, s' "$base" || die "stat of a trimmed topic: $(embar stat numbers)"
same "messages that are kept" "$(embar sub numbers | wc -l)" "$(embar stat numbers | awk '$1 == "messages" { print $2 }')"
fails 1 "trimmed.* offset $base \(message [0-9]+\) is the oldest" embar sub numbers --from offset:0
fails 1 "trimmed.* offset $base \(message [0-9]+\) is the oldest" embar sub numbers --from message:0
fails 1 'standard output failed' sh -c 'embar sub numbers >&-'

say "settings"
embar create kept --retention-bytes 100K --retention-age 7d --when-full trim
setting() {
    embar stat kept --json | python3 -c 'import json,sys; s=json.load(sys.stdin); print(s["keep_bytes"], s["keep_age"], s["policy"])'
}
same "made with settings" "102400 604800000000000 trim" "$(setting)"
embar set kept --retention-age none --when-full block
same "changed" "102400 0 block" "$(setting)"
fails 2 'no size' embar set kept --retention-bytes much
fails 2 'no age' embar set kept --retention-age 1y
fails 2 'block or trim' embar set kept --when-full perhaps
fails 2 'what to set' embar set kept
fails 1 '^embar set: absent: ' embar set absent --retention-bytes 1G
embar pub kept -q --batch 16K "$scratch/numbers"
all=$(stat -c %s "$scratch/numbers")
kept_is_bounded() {
    base=$(embar stat kept --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["base"])')
    [ $((all - base)) -le $((102400 + 65536)) ]
}
wait_until 60 kept_is_bounded || die "kept begins at $base of $all"
[ $((all - base)) -ge 102400 ] || die "less is kept than was asked for: $base of $all"
same "what is kept" "$(tail -c +$((base + 1)) "$scratch/numbers" | sum_of)" "$(embar sub kept | sum_of)"
embar trim -q kept --before time:@4000000000 >/dev/null
same "all before a time" "" "$(embar sub kept)"
embar rm kept

embar rm two numbers a/moved
same "what remains" c/d/three "$(embar topics)"
same "a topic by itself" c/d/three "$(embar topics c/d/three)"
fails 1 '^embar rm: gone: ' embar rm gone
fails 1 'Reading the input failed' sh -c 'embar pub c/d/three <&-'

say "removed space is reusable: five times the pool's size goes through it"
real_text "$scratch/text" 24
rounds=$((5 * 256 * 1048576 / $(stat -c %s "$scratch/text") + 1))
for i in $(seq "$rounds"); do
    embar pub "churn$i" -q "$scratch/text"
    [ "$i" -lt 3 ] || embar rm "churn$((i - 2))"
done
same "the last of many" "$(sum_of <"$scratch/text")" "$(embar sub "churn$rounds" | sum_of)"
broker_stop
