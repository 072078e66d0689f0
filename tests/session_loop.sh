#!/usr/bin/env bash
# kill -9 of a publisher, again and again, each time resumed with its session and other batches:
# the topic holds its input exactly once, byte for byte.
#
#   tests/session_loop.sh [RESTARTS [BYTES [DAEMON]]]      default 100 1G 0
#
# BYTES is how much it publishes (32M, 1G), DAEMON at every how many restarts the daemon is killed as
# well, while the publisher runs. ORDER=2 (or 0) in the environment asks what a topic of that order
# promises instead: every line at least once. SEED repeats a run's choices, though not its moments.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
# shellcheck source=tests/corpus.sh
. "$top/tests/corpus.sh"
use_build "${EMBAR_BIN_DIR:-$top/build/release/bin}"

restarts=${1:-100}
total=$(numfmt --from=iec "${2:-1G}")
daemon=${3:-0}
order=${ORDER:-5}
RANDOM=${SEED:-$RANDOM}
mnt=$scratch/mnt
topic=$mnt/log
input=$scratch/input
pipe=$scratch/pipe
checked=0 # bytes of the topic that were compared with the input

need_fuse || skip "$fuse_missing"
mkdir "$mnt"

# one_of VALUE...
one_of() {
    shift $((RANDOM % $#))
    printf '%s' "$1"
}

# below N: a random number, also for large ones.
below() {
    echo $(((RANDOM << 30 | RANDOM << 15 | RANDOM) % ($1 + 1)))
}

say "input: $total bytes of real text, each line with its number"
make_corpus "$scratch/corpus" $((total < 64000000 ? total : 64000000))
# The corpus again and again: numbers make its lines differ.
while cat "$scratch/corpus"; do :; done 2>/dev/null | awk '{ print NR, $0 }' 2>/dev/null |
    head -c "$((total - 1))" >"$input" || true
echo >>"$input"
rm "$scratch/corpus"
[ "$(stat -c %s "$input")" -eq "$total" ] || die "the input has $(stat -c %s "$input") bytes"

remount() {
    mount_start "$mnt" --cxl "$scratch/pool" --size $((total * 3 / 2000000 + 256))M \
        --listen "${listen:-127.0.0.1:0}"
    [ -n "${listen:-}" ] || listen=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$mnt/.embar/status")
    [ -n "$listen" ] || die "no address in $mnt/.embar/status: $(cat "$mnt/.embar/status")"
}

size_of_topic() {
    stat -c %s "$topic"
}

# feed FROM STEP PAUSE: the input; what the topic has already at once, then two steps piece by piece. It ends
# only when it is killed, and with it the publisher, however long that takes on a busy machine.
feed() {
    local at piece=$(($2 / 32 + 1))
    exec 3<"$input"
    head -c "$1" <&3
    for ((at = $1; at < $1 + 2 * $2; at += piece)); do
        head -c "$piece" <&3
        sleep "$3"
    done
    exec sleep infinity
}

# resume FROM STEP PAUSE: the publisher, in $pub, as no two lives of it are alike; what feeds it in $feeder.
resume() {
    local server
    server=$(one_of "$mnt" "$listen")
    rm -f "$pipe" # what still writes to the last one has another
    mkfifo "$pipe"
    feed "$@" >"$pipe" 2>/dev/null &
    feeder=$!
    embar -s "$server" pub log -q --session "$session" \
        --batch "$(one_of 4096 30000 64K 256K 777777 2M)" --connections "$(one_of 1 1 2 3 4)" \
        --linger "$(one_of 1us 300us 1ms 20ms)" <"$pipe" 2>>"$scratch/pub.err" &
    pub=$!
    own_pids+=("$pub" "$feeder")
}

grown_or_ended() {
    is_ended "$pub" || [ "$(size_of_topic)" -ge "$1" ]
}

# check_prefix: what the topic has is what the input begins with. (Orders 0 and 2: see the end.)
check_prefix() {
    local size
    size=$(size_of_topic)
    if [ "$order" -eq 5 ]; then
        cmp -i "$checked" -n $((size - checked)) "$input" "$topic" ||
            die "the topic is not what was published, behind byte $checked"
    fi
    checked=$size
}

kill_daemon() {
    kill -KILL "$mount_pid"
    wait "$mount_pid" 2>/dev/null || true
    # Now and then the publisher dies while there is no daemon.
    [ $((RANDOM % 4)) -ne 0 ] || kill_publisher
    remount
}

# While the daemon is frozen nobody waits for the dead: a handler that has taken a request of theirs
# (they look into the mount for its socket or token) holds them, against any signal, until it goes on.
kill_publisher() {
    kill -KILL "$pub" "$feeder" 2>/dev/null || true
    wait "$feeder" 2>/dev/null || true
    [ -n "$frozen" ] || wait "$pub" 2>/dev/null || true
}

# thaw: the daemon goes on, and whoever was killed meanwhile ends.
thaw() {
    [ -n "$frozen" ] || return 0
    kill -CONT "$mount_pid"
    wait "$frozen" 2>/dev/null || true
    frozen=
}

remount
embar -s "$mnt" create log --order "$order"
embar -s "$mnt" pub log --session new </dev/null 2>"$scratch/new"
session=$(sed -n 's/.*session \([0-9]*\)$/\1/p' "$scratch/new")
[ -n "$session" ] || die "no session was told: $(cat "$scratch/new")"

say "$restarts restarts of session $session"
frozen= # the publisher that is killed under a frozen daemon
for ((n = 1; n <= restarts; n++)); do
    [ -n "$frozen" ] || from=$(size_of_topic)
    [ "$from" -lt "$total" ] || die "all was published after $((n - 1)) restarts: give more bytes"
    # What it gets at most leaves some for those that follow.
    step=$(((total - from) / (restarts - n + 4)))
    resume "$from" "$step" 0.00$((RANDOM % 5))
    [ -z "$frozen" ] || sleep 0.05 # it asks to resume while what the last one sent is still unread
    thaw
    if [ $((RANDOM % 5)) -eq 0 ]; then
        sleep "0.0$((RANDOM % 10))" # while it opens, skips, or has just begun
    else
        wait_until 120 grown_or_ended $((from + $(below $((step * 3 / 2))))) ||
            die "nothing comes: $(cat "$scratch/pub.err")"
    fi
    is_running "$pub" || die "the publisher ended by itself: $(cat "$scratch/pub.err")"
    if [ "$daemon" -gt 0 ] && [ $((n % daemon)) -eq 0 ]; then
        kill_daemon
    fi
    if [ $((RANDOM % 3)) -eq 0 ]; then
        from=$(size_of_topic)
        kill -STOP "$mount_pid"
        frozen=$pub
        sleep 0.05 # its sockets fill up
    fi
    kill_publisher
    [ -n "$frozen" ] || check_prefix
    say "restart $n: the topic had $checked bytes when they were compared"
done
thaw

say "the last one ends by itself"
embar -s "$mnt" pub log --session "$session" "$input" 2>"$scratch/last" || die "it failed: $(cat "$scratch/last")"
tail -n 2 "$scratch/last"
if [ "$order" -ne 5 ]; then
    [ "$(sort -u "$topic" | sha256sum)" = "$(sort "$input" | sha256sum)" ] || die "lines are missing or foreign"
    say "$restarts restarts: every line at least once, $(($(size_of_topic) - total)) bytes twice"
    mount_stop "$mnt" "$mount_pid"
    exit 0
fi
check_prefix
[ "$checked" -eq "$total" ] || die "the input has $total bytes, the topic $checked"
[ "$(sha256sum <"$topic")" = "$(sha256sum <"$input")" ] || die "the topic is not the input"
embar -s "$mnt" pub log -q --session "$session" "$input"
[ "$(size_of_topic)" -eq "$total" ] || die "resuming again published something"
mount_stop "$mnt" "$mount_pid"
remount
[ "$(sha256sum <"$topic")" = "$(sha256sum <"$input")" ] || die "the topic is not the input after a restart"
mount_stop "$mnt" "$mount_pid"
say "$restarts restarts of the publisher: $total bytes, each exactly once"
