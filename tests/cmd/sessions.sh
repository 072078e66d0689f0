#!/usr/bin/env bash
# Sessions that cannot be had: a full table and an id that nobody knows are told at once, by a sentence;
# who has a session goes on, and room comes back.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

# refused PATTERN ARGUMENT...: `embar pub` says so, and soon: it does not wait for better days.
refused() {
    local pattern=$1
    shift
    fails 1 "$pattern" timeout 120 embar pub "$@" "$scratch/line"
}

echo line >"$scratch/line"
export BROKER_SESSIONS=3
broker_start 64M
for i in 1 2 3; do
    embar pub "t$i" --session new "$scratch/line" 2>"$scratch/told"
    sessions[i]=$(sed -n 's/.*session \([0-9]*\)$/\1/p' "$scratch/told")
done

say "no session is left"
refused "^embar pub: t4: too many publishers' sessions are kept here" t4
refused "too many publishers' sessions" t1 --session new
refused "too many publishers' sessions" t1 --connections 4
embar pub t4 -q --ack 0 "$scratch/line" # needs none
cat "$scratch/line" "$scratch/line" >"$scratch/lines"
embar pub t1 -q --session "${sessions[1]}" "$scratch/lines"
same "resumed with a full table" "$(cat "$scratch/lines")" "$(embar sub t1)"

say "nor one of that number"
refused '^embar pub: t1: that publisher session is not known' t1 --session 424242
refused 'that publisher session is not known' t1 --session 424242 --connections 4
refused 'belongs to another topic' t2 --session "${sessions[1]}"
refused 'there is no topic or directory of that name' absent --session "${sessions[1]}"
refused 'has another order' t1 --session "${sessions[1]}" --order 2

say "room comes back: with a topic, over a restart, with a larger table"
embar rm t2
embar pub t4 -q "$scratch/line"
embar pub t4 -q --session new "$scratch/line"
refused "too many publishers' sessions" t4
broker_stop
broker_start 64M
refused "too many publishers' sessions" t4
refused 'that publisher session is not known' t1 --session "${sessions[2]}"
broker_stop
BROKER_SESSIONS=4
broker_start 64M
embar pub t4 -q "$scratch/line"
cat "$scratch/lines" "$scratch/line" >"$scratch/more"
embar pub t1 -q --session "${sessions[1]}" "$scratch/more"
same "resumed after restarts" "$(cat "$scratch/more")" "$(embar sub t1)"
broker_stop
