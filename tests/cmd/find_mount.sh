#!/usr/bin/env bash
# The command finds the one mount there is, by itself or by its path, with its token; two mounts are
# listed; a dead one is told, and one that does not answer keeps only those waiting who name it. Runs in a mount namespace of its own, so that other mounts do not count.
set -euo pipefail
if [ "${1:-}" != inside ]; then
    unshare --mount --propagation private true 2>/dev/null ||
        { echo "SKIP: no private mount namespace (needs root)"; exit 77; }
    exec unshare --mount --propagation private "$0" inside
fi
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
need_fuse || skip "$fuse_missing"
drop_others_mounts
unset EMBAR_SERVER
export XDG_STATE_HOME=$scratch

fails 1 'nothing of embarfs is mounted' embar topics
one=$scratch/one two=$scratch/two
mkdir "$one" "$two"
mount_start "$one" --cxl "$scratch/pool1" --size 64M --listen 127.0.0.1:0
first_pid=$mount_pid
echo "by itself" | embar pub here/topic -q
same "found by itself" "by itself" "$(cat "$one/here/topic")"
embar -s "$one" topics | grep -qx here/topic || die "not found by its path"
listen=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["listen"])' <"$one/.embar/status")
same "by its TCP address, with the mount's token" "by itself" "$(embar -s "$listen" sub here/topic)"
same "with the token given" "by itself" "$(embar -s "$listen" --token-file "$one/.embar/token" sub here/topic)"
token=$scratch/embar/$listen.token
same "the token that was left" "$(cat "$one/.embar/token")" "$(cat "$token")"
same "who may read it" "600 $(id -u)" "$(stat -c '%a %u' "$token")"
# A dead daemon's file for another address of the same name is newer, and none of this one's.
echo dead >"$scratch/embar/[::1]:${listen##*:}.token"
same "by a name" "by itself" "$(embar -s "localhost:${listen##*:}" sub here/topic)"
fails 1 'none was found.*--token-file' env XDG_RUNTIME_DIR="$scratch/elsewhere" embar -s "$listen" topics
echo wrong >"$scratch/wrong"
fails 1 'token' embar -s "$listen" --token-file "$scratch/wrong" topics

say "two mounts"
mount_start "$two" --cxl "$scratch/pool2" --size 64M --listen 127.0.0.1:0
fails 1 "2 mounts.*$one.*$two" embar topics
echo second | EMBAR_SERVER=$two embar pub t -q
same "chosen by EMBAR_SERVER" second "$(cat "$two/t")"

say "a stopped daemon's mount keeps nobody waiting who goes elsewhere"
listen=$(python3 -c 'import json,sys; print(json.load(sys.stdin)["listen"])' <"$two/.embar/status")
kill -STOP "$first_pid" # the table of mounts has it first
for address in "$listen" "localhost:${listen##*:}" "$two"; do
    echo "past it to ${address%%:*}" | timeout -s KILL 120 embar -s "$address" pub past -q ||
        die "to $address: it waits, or fails"
done
same "what came" "$(printf 'past it to %s\n' 127.0.0.1 localhost "$two")" "$(cat "$two/past")"
fails 1 "2 mounts.*$one.*$two" timeout -s KILL 120 embar topics
kill -CONT "$first_pid"
mount_stop "$two" "$mount_pid"

say "a dead mount is told; a publisher goes on when it is mounted again elsewhere on the machine"
mkfifo "$scratch/fifo"
embar -s "$one" pub here/topic -q <"$scratch/fifo" &
pub=$!
own_pids+=("$pub")
exec 9>"$scratch/fifo"
echo before >&9
is_there() {
    grep -q "$1" "$one/here/topic"
}
wait_until 60 is_there before || die "nothing came"
left=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$one/.embar/status")
kill -KILL "$first_pid"
wait "$first_pid" 2>/dev/null || true
fails 1 'gone' embar topics
(cd "$scratch" && fails 1 'the mount one is gone' embar -s one topics)
[ -e "$scratch/embar/$left.token" ] || die "who was killed has left no token for $left"
mount_start "$one" --cxl "$scratch/pool1" --listen 127.0.0.1:0 9>&-
echo after >&9
exec 9>&-
wait "$pub" || die "pub did not outlive its daemon"
same "over the death" "$(printf 'by itself\nbefore\nafter')" "$(cat "$one/here/topic")"
listen=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$one/.embar/status")
[ -e "$scratch/embar/$listen.token" ] || die "no token was left for $listen"
[ "$left" = "$listen" ] || [ ! -e "$scratch/embar/$left.token" ] || die "the token of who was killed stays"
say "a token of who was killed is told, where another one listens since"
mkdir "$scratch/apart"
XDG_RUNTIME_DIR=$scratch/apart embarfs "$two" --cxl mem:16M -f --listen 127.0.0.1:0 --socket "$scratch/sock2" \
    </dev/null >>"$mount_log" 2>&1 &
own_pids+=("$!")
own_mounts+=("$two")
wait_until 60 mount_ready_or_ended "$two" "$!" || die "no second mount"
port=$(sed -n 's/.*"port": *\([0-9]*\).*/\1/p' "$two/.embar/status")
echo dead >"$scratch/embar/127.0.0.1:$port.token"
fails 1 "127.0.0.1:$port.token was left by a daemon that was killed" embar -s "127.0.0.1:$port" topics
mount_stop "$one" "$mount_pid"
[ ! -e "$scratch/embar/$listen.token" ] || die "the token of $listen is still there"
