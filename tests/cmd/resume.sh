#!/usr/bin/env bash
# What was begun is finished, once: over a broker that is killed and started again, and by a second
# `embar pub` after the first was interrupted or killed.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

real_text "$scratch/text" 16
want=$(sum_of <"$scratch/text")
total=$(stat -c %s "$scratch/text")
broker_start 512M

# end_of TOPIC: bytes committed so far; 0 when it is not there or nobody answers.
end_of() {
    embar stat "$1" --json 2>/dev/null |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["end"])' 2>/dev/null || echo 0
}

end_is_at_least() {
    [ "$(end_of "$1")" -ge "$2" ]
}

somebody_subscribes() {
    embar stat --json | python3 -c 'import json,sys; sys.exit(json.load(sys.stdin)["server"]["subscriptions"] == 0)'
}

say "the broker is killed between the parts of an input"
mkfifo "$scratch/fifo"
embar pub parts -q --connections 4 --batch 64K <"$scratch/fifo" 2>"$scratch/err" &
pub=$!
own_pids+=("$pub")
exec 9>"$scratch/fifo"
parts=4
for i in $(seq 0 $((parts - 1))); do
    from=$((total * i / parts)) to=$((total * (i + 1) / parts))
    tail -c +$((from + 1)) "$scratch/text" | head -c $((to - from)) >&9 || true
    if [ "$i" -lt $((parts - 1)) ]; then
        wait_until 60 end_is_at_least parts $((from + 1)) || die "part $i did not come"
        broker_kill
        broker_start 512M 9>&- # or it would hold our end of the pipe open
    fi
done
exec 9>&-
wait "$pub" || { cat "$scratch/err" >&2; die "pub did not outlive its broker"; }
same "killed between parts" "$want" "$(embar sub parts | sum_of)"

say "the broker is killed in full flight, a subscriber following all along"
for round in 1 2 3; do
    embar create "flight$round"
    embar sub "flight$round" --follow --max "$(embar stat parts --json |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["messages"])')" >"$scratch/seen" &
    sub=$!
    wait_until 60 somebody_subscribes || die "sub did not begin"
    embar pub "flight$round" -q --batch 32K --connections "$round" "$scratch/text" &
    pub=$!
    own_pids+=("$pub" "$sub")
    wait_until 60 end_is_at_least "flight$round" 1 || die "nothing came"
    broker_kill
    broker_start 512M
    wait "$pub" || die "pub did not outlive its broker"
    wait "$sub" || die "sub did not outlive its broker"
    same "round $round" "$want" "$(embar sub "flight$round" | sum_of)"
    same "round $round, followed" "$want" "$(sum_of <"$scratch/seen")"
done

say "a broker that is away for longer is told of, and that it is back; but not to who wants quiet"
embar create away
declare -A said=()
for quiet in '' -q; do
    mkfifo "$scratch/away$quiet"
    # shellcheck disable=SC2086 # none or one
    embar pub away $quiet <"$scratch/away$quiet" 2>"$scratch/pub$quiet" &
    said[$!]=$scratch/pub$quiet
    # shellcheck disable=SC2086
    embar sub away $quiet --follow --max 4 >"$scratch/got$quiet" 2>"$scratch/sub$quiet" &
    said[$!]=$scratch/sub$quiet
done
exec 6>"$scratch/away" 7>"$scratch/away-q"
own_pids+=("${!said[@]}")
echo before | tee /dev/fd/6 >&7
all_have() {
    [ "$(cat "$scratch/got" "$scratch/got-q" | wc -l)" -eq "$1" ]
}
wait_until 60 all_have 4 || die "nothing came"
broker_kill
for one in pub sub; do
    wait_until 30 grep -q "^embar $one: not connected to $sock: .*; trying again$" "$scratch/$one" ||
        die "$one does not say that it is not connected: $(cat "$scratch/$one")"
done
broker_start 512M 6>&- 7>&-
for one in pub sub; do
    wait_until 60 grep -q "^embar $one: connected to $sock again$" "$scratch/$one" ||
        die "$one does not say that it is connected again: $(cat "$scratch/$one")"
done
echo after | tee /dev/fd/6 >&7
exec 6>&- 7>&-
for pid in "${!said[@]}"; do
    wait "$pid" || die "it failed: $(cat "${said[$pid]}")"
done
same "what sub says" 2 "$(wc -l <"$scratch/sub")"
same "what a quiet pub and sub say" "" "$(cat "$scratch/pub-q" "$scratch/sub-q")"
same "what came" "$(printf 'after\nafter\nbefore\nbefore')" "$(sort "$scratch/got")"

say "on a terminal that stands below what was written, and in place of a line of progress"
cat >"$scratch/terminal.py" <<'EOF'
import os, pty, subprocess, sys
here, there = pty.openpty()
command = subprocess.Popen(sys.argv[2:], stdin=0, stdout=there, stderr=there)
os.close(there)
text = open(sys.argv[1], "wb", buffering=0)
while True:
    try:
        some = os.read(here, 4096)
    except OSError:  # nobody writes there any more
        break
    text.write(some)
sys.exit(command.wait())
EOF
embar create shown
printf 'its last line has no end' >"$scratch/whole"
embar pub shown -q --whole "$scratch/whole" </dev/null
python3 "$scratch/terminal.py" "$scratch/shown" embar sub shown --follow --max 2 </dev/null &
sub=$!
mkfifo "$scratch/shows"
python3 "$scratch/terminal.py" "$scratch/progress" embar pub away <"$scratch/shows" &
pub=$!
own_pids+=("$sub" "$pub")
exec 6>"$scratch/shows"
wait_until 60 grep -q 'no end' "$scratch/shown" || die "nothing came"
wait_until 60 grep -q 'MB/s' "$scratch/progress" || die "no progress is shown"
broker_kill
for one in shown progress; do
    wait_until 60 grep -q 'trying again' "$scratch/$one" || die "it does not say that it is not connected"
done
broker_start 512M 6>&-
exec 6>&-
echo more | embar pub shown -q
wait "$sub" || die "sub failed: $(cat -v "$scratch/shown")"
wait "$pub" || die "pub failed: $(cat -v "$scratch/progress")"
grep -q $'\033' "$scratch/shown" && die "sub clears what it wrote: $(cat -v "$scratch/shown")"
grep -q $'\033\\[Kembar pub: not connected' "$scratch/progress" ||
    die "pub leaves its progress: $(cat -v "$scratch/progress")"

say "an interrupted pub tells its session; the same command resumes it"
embar pub broken --batch 32K <"$scratch/fifo" 2>"$scratch/err" &
pub=$!
own_pids+=("$pub")
exec 9>"$scratch/fifo"
head -c 5000000 "$scratch/text" >&9
wait_until 60 end_is_at_least broken 1000000 || die "nothing came"
kill -INT "$pub"
status=0
wait "$pub" || status=$?
exec 9>&-
same "status when interrupted" 1 "$status"
session=$(sed -n 's/.*the session is \([0-9]*\):.*/\1/p' "$scratch/err")
[ -n "$session" ] || { cat "$scratch/err" >&2; die "no session was told"; }
grep -q 'messages acked' "$scratch/err" || die "what was acked was not told"
embar pub broken --session "$session" --batch 100K -q "$scratch/text"
same "resumed" "$want" "$(embar sub broken | sum_of)"

say "resuming again adds nothing; another input, another topic, an unknown session are refused"
embar pub broken --session "$session" "$scratch/text" 2>"$scratch/err"
grep -q 'committed before' "$scratch/err" || die "what was skipped was not told"
same "resumed again" "$want" "$(embar sub broken | sum_of)"
printf 'short\n' >"$scratch/short"
fails 1 'same input' embar pub broken --session "$session" "$scratch/short"
fails 1 'session' embar pub parts --session "$session" "$scratch/short"
fails 1 'session' embar pub broken --session 987654321 "$scratch/short"
same "after refusals" "$want" "$(embar sub broken | sum_of)"
same "after refusals" "$want" "$(embar sub parts | sum_of)"

more_or_ended() {
    end_is_at_least kept $((before + 1)) || is_ended "$pub"
}

say "a killed pub is resumed by its kept session"
printf 'first\n' | embar pub kept --session new 2>"$scratch/err"
session=$(sed -n 's/.*session \([0-9]*\)$/\1/p' "$scratch/err")
for round in 1 2 3; do
    { echo first; cat "$scratch/text"; } |
        embar pub kept --session "$session" --batch 16K --connections 3 -q 2>/dev/null &
    pub=$!
    own_pids+=("$pub")
    before=$(end_of kept)
    wait_until 60 more_or_ended || die "nothing came"
    kill -KILL "$pub" 2>/dev/null || true
    wait "$pub" 2>/dev/null || true
done
{ echo first; cat "$scratch/text"; } | embar pub kept --session "$session" -q
same "killed and resumed" "$({ echo first; cat "$scratch/text"; } | sum_of)" "$(embar sub kept | sum_of)"

broker_stop
