#!/usr/bin/env bash
# append and dump: a pool without a daemon.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

real_text "$scratch/text" 20
want=$(sum_of <"$scratch/text")

say "appended is what is dumped"
embar pool create "$pool" --size 512M >/dev/null
embar append "$pool" logs/text -q "$scratch/text"
same dumped "$want" "$(embar dump "$pool" logs/text | sum_of)"
# shellcheck disable=SC2002
cat "$scratch/text" | embar append "$pool" logs/pipe -q
same "from a pipe" "$want" "$(embar dump "$pool" logs/pipe | sum_of)"
{ printf 'a\n\nb'; } | embar append "$pool" odd -q
{ head -c 9000000 /dev/zero | tr '\0' x; printf '\nend\n'; } >"$scratch/long"
embar append "$pool" odd "$scratch/long" 2>"$scratch/err"
same odd "$({ printf 'a\n\nb'; cat "$scratch/long"; } | sum_of)" "$(embar dump "$pool" odd | sum_of)"

say "dumping changes nothing"
before=$(sum_of <"$pool")
embar dump "$pool" odd >/dev/null
same "the pool's bytes" "$before" "$(sum_of <"$pool")"

begun_or_ended() {
    [ "$(embar dump "$pool" "killed$round" 2>/dev/null | head -c 1 | wc -c)" -eq 1 ] || is_ended "$append"
}

say "killed while it appends: whole messages, none twice, in order"
for round in 1 2 3 4 5; do
    embar append "$pool" "killed$round" -q "$scratch/text" &
    append=$!
    own_pids+=("$append")
    wait_until 60 begun_or_ended || true
    kill -KILL "$append" 2>/dev/null || true
    wait "$append" 2>/dev/null || true
    embar dump "$pool" "killed$round" >"$scratch/got"
    cmp -s -n "$(stat -c %s "$scratch/got")" "$scratch/got" "$scratch/text" || die "round $round: not a prefix"
    embar append "$pool" after -q <<<"$round"
    embar dump "$pool" "killed$round" | cmp - "$scratch/got"
done
same "appended after each" "$(printf '1\n2\n3\n4\n5')" "$(embar dump "$pool" after)"

say "a daemon serves what was appended; append is refused meanwhile"
broker_start 512M
same served "$want" "$(embar sub logs/text | sum_of)"
fails 1 'held|use|another' embar append "$pool" odd "$scratch/long"
broker_stop

say "refusals"
fails 1 'no topic' embar dump "$pool" nope
fails 1 'directory' embar dump "$pool" logs
fails 1 'name' embar append "$pool" a/../b
fails 1 'name' embar append "$pool" fresh/but//not
fails 1 'name' embar append "$pool" "fresh/$(printf '%0200d/' 1 2 3 4 5 6)long"
fails 1 'no topic' embar dump "$pool" fresh
fails 1 'reserved' embar append "$pool" .embar/b
fails 1 '' embar append "$scratch/absent" t
[ ! -e "$scratch/absent" ] || die "append made a pool"
fails 1 'not an embarfs pool' embar dump "$scratch/text" t
head -c 8388608 /dev/zero >"$scratch/blank"
fails 1 'blank' embar append "$scratch/blank" t
same "the blank file" "$(head -c 8388608 /dev/zero | sum_of)" "$(sum_of <"$scratch/blank")"
fails 2 'topic' embar dump "$pool"
