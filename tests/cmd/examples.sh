#!/usr/bin/env bash
# The examples do what their transcripts say, and subscribe follows what others publish.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

# transcript FILE: what stands below the "$" line of its opening comment.
transcript() {
    sed -n '/^ \*   \$ /,/^ \*\//p' "$1" | sed '1d;$d;s/^ \*   //'
}

examples=$EMBAR_BUILD_DIR/tests/cmd
broker_start 64M
"$examples/embar-example-publish" demo/greetings >"$scratch/publish"
diff "$scratch/publish" <(transcript "$EMBAR_SOURCE_DIR/examples/publish.c") || die "publish.c says otherwise"
mkfifo "$scratch/input"
"$examples/embar-example-subscribe" demo/greetings 2 <>"$scratch/input" >"$scratch/subscribe"
diff "$scratch/subscribe" <(transcript "$EMBAR_SOURCE_DIR/examples/subscribe.c") || die "subscribe.c says otherwise"
same "the topic" "$({ for i in {0..999}; do echo "greeting $i"; done
    printf 'first line\nsecond line\nthird line\nthe last one\n'; } | sum_of)" "$(embar sub demo/greetings | sum_of)"

say "subscribe follows, over a broker that is killed, until its input ends"
embar create live
"$examples/embar-example-subscribe" live 0 "$sock" <"$scratch/input" >"$scratch/live" &
own_pids+=($!)
follower=$!
exec 9>"$scratch/input"
lines_are() {
    [ "$(wc -l <"$scratch/live")" -eq "$1" ]
}
echo one | embar pub live -q
wait_until 60 lines_are 1 || die "the first did not come"
broker_kill
broker_start 64M 9>&-
echo two | embar pub live -q
wait_until 60 lines_are 2 || die "the second did not come"
exec 9>&-
wait "$follower"
same live "$(printf '0 @0: one\n1 @4: two\nnext is message 2 at offset 8')" "$(cat "$scratch/live")"

fails 1 'No broker answers' "$examples/embar-example-publish" t 127.0.0.1:1
fails 2 'TOPIC' "$examples/embar-example-subscribe"
broker_stop
