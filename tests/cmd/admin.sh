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
for command in pub sub topics create mkdir rm mv trim stat pool append dump version; do
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
fails 1 'name' embar create "$(head -c 256 /dev/zero | tr '\0' n)"
fails 1 'reserved' embar create .embar/x
fails 1 '' embar pub a
fails 1 '' embar sub absent
fails 1 '' embar rm absent
embar rm -f absent
fails 1 '' embar rm a
fails 1 '' embar mv absent other
fails 1 'order' embar pub two --order 5
fails 1 '' embar pub absent --no-create
fails 1 'replica|ack' embar pub two --ack 2
fails 1 'trimmed|beyond|offset' embar sub two --from offset:99
fails 1 'cannot be read' embar pub two "$scratch/absent"
fails 1 'directory' embar pub two "$scratch"
same "after refusals" "$before" "$(embar topics -l | sort)"

say "move, trim, remove"
embar mv a/b/one a/moved
same moved "$(printf 'x\ny')" "$(embar sub a/moved)"
embar rm a/b
seq 1 100000 >"$scratch/numbers"
embar pub numbers -q --batch 16K "$scratch/numbers"
base=$(embar trim numbers --before message:60000)
offset=$(head -n 60000 "$scratch/numbers" | wc -c)
if [ "$base" -eq 0 ] || [ "$base" -gt "$offset" ]; then
    die "trimmed to $base, asked for $offset"
fi
same "what is left" "$(tail -c +$((base + 1)) "$scratch/numbers" | sum_of)" "$(embar sub numbers | sum_of)"
fails 1 'trimmed' embar sub numbers --from offset:0
fails 1 'standard output failed' sh -c 'embar sub numbers >&-'
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
