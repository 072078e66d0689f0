#!/usr/bin/env bash
# embarfs without -f returns when the mount answers, leaves the terminal alone, and says in its exit
# status and a sentence why it could not.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
own_mounts+=("$mnt")
where=(--cxl "$pool" --size 32M --listen 127.0.0.1:0 --socket "$scratch/socket")

# Had the daemon kept stdout, this would never end.
equal output "$(cd "$scratch" && embarfs mnt --cxl pool --size 32M --listen 127.0.0.1:0 --socket "$scratch/socket" 2>&1)" ""
echo at once >>"$mnt/t"
content "$mnt/t" 'at once\n'
pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
[ "$(readlink "/proc/$pid/cwd")" = / ] || die "it keeps its starting directory busy"
for fd in 0 1 2; do
    equal "descriptor $fd" "$(readlink "/proc/$pid/fd/$fd")" /dev/null
done
equal "its own session" "$(ps -o sid= -p "$pid" | tr -d ' ')" "$pid"

status_is 69 embarfs "$mnt" "${where[@]}"
status_is 66 embarfs "$scratch/none" "${where[@]}"
case $said in
*"does not exist"*) ;;
*) die "said: $said" ;;
esac

# A busy disk takes its time for the pool's last sync.
ends() {
    wait_until 60 gone && return
    grep . "/proc/$pid/task/"*/{comm,wchan} >&2 || true
    die "the daemon outlives its mount"
}

gone() {
    [ ! -e "/proc/$pid" ] || grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null
}
fusermount3 -u "$mnt"
ends
# The pool is taken over at once, again and again.
for _ in 1 2 3; do
    embarfs "$mnt" "${where[@]}"
    content "$mnt/t" 'at once\n'
    fusermount3 -u "$mnt"
done

# The one before may need long to close it: here it is stopped in its last moments. Whoever comes next
# says so, and waits.
stopped=
leave() { # who is stopped would stay for ever
    local status=$?
    set +e
    [ -z "$stopped" ] || kill -CONT "$stopped"
    (exit "$status")
    clean_up
}
trap leave EXIT
go_on() {
    kill -CONT "$stopped"
    stopped=
}
stops_closing() {
    embarfs "$mnt" "${where[@]}"
    pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
    stopped=$pid
    kill -STOP "$pid"
    umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt"
}
# waits COMMAND...: for the pool that the stopped one holds, as $next.
waits() {
    "$@" >/dev/null 2>"$scratch/said" &
    next=$!
    own_pids+=("$next")
    wait_until 60 grep -q "is held by process $pid .*waiting" "$scratch/said" ||
        die "$* does not say that it waits: $(cat "$scratch/said")"
}
closes_slowly() {
    stops_closing
    waits embarfs "$mnt" "${where[@]}"
}
closes_slowly
# Longer than a moment; no more than that is shown here.
wait_until 6 is_ended "$next" && die "it does not wait: $(cat "$scratch/said")"
grep -q "unmount" "$scratch/said" && die "it asks for what was done: $(cat "$scratch/said")"
go_on
wait "$next" || die "it does not take the pool over: $(cat "$scratch/said")"
content "$mnt/t" 'at once\n'
fusermount3 -u "$mnt"

# Commands that want the pool for themselves wait for it, too.
for command in "0 fsck $pool" "0 fsck --repair $pool" "0 append $pool t" "1 pool create $pool"; do
    stops_closing
    # shellcheck disable=SC2086
    waits embar ${command#* }
    go_on
    status=0
    wait "$next" || status=$?
    equal "status of embar ${command#* } (which said: $(cat "$scratch/said"))" "$status" "${command%% *}"
    ends
done
grep -q 'is a pool already' "$scratch/said" || die "said: $(cat "$scratch/said")"

# Whoever mounts there meanwhile has the mount point: it is not mounted over.
closes_slowly
embarfs "$mnt" --cxl "$scratch/second" --size 16M --listen 127.0.0.1:0 --socket "$scratch/socket.2"
go_on
status=0
wait "$next" || status=$?
equal "status of who comes too late (which said: $(cat "$scratch/said"))" "$status" 69
grep -q 'is an embarfs mount already' "$scratch/said" || die "said: $(cat "$scratch/said")"
equal "what is mounted" "$(findmnt -no SOURCE "$mnt")" "$scratch/second"
fusermount3 -u "$mnt"

# Killed while it waits, it leaves nobody who mounts later: its child ends while the pool is still held.
closes_slowly
held=$pid
pid=$(ps -o pid= --ppid "$next" | tr -d ' ')
kill -KILL "$next"
wait "$next" 2>/dev/null || true
wait_until 60 gone || die "it waits for a pool that nobody wants any more"
is_unmounted "$mnt" || die "it mounts what nobody waits for"
grep -q 'nothing was mounted' "$scratch/said" || die "said: $(cat "$scratch/said")"
pid=$held
go_on
ends

# The same where nobody holds the pool and nothing is waited for: what it is ended by comes while its child
# makes the pool and what serves it. The child is stopped somewhere before there is a socket.
alone() {
    rm -f "$scratch/third" "$scratch/socket.3"
    embarfs "$mnt" --cxl "$scratch/third" --size 64M --listen 127.0.0.1:0 --socket "$scratch/socket.3" 2>"$scratch/said" &
    next=$!
    own_pids+=("$next")
    pid=
    while [ -z "$pid" ]; do
        read -r pid _ 2>/dev/null <"/proc/$next/task/$next/children" || is_ended "$next" && break
    done
    [ -n "$pid" ] || die "it has no child: $(cat "$scratch/said")"
    kill -STOP "$pid"
    stopped=$pid
    wait_until 30 grep -q '^State:.T' "/proc/$pid/status" || die "it does not stop"
    [ ! -e "$scratch/socket.3" ] && return
    go_on
    wait "$next"
    fusermount3 -u "$mnt"
    ends
    return 1
}
for _ in $(seq 30); do
    alone && break
done
[ -n "$stopped" ] || die "it was never stopped before it listened"
kill -KILL "$next"
wait "$next" 2>/dev/null || true
go_on
wait_until 30 gone || die "it goes on without whoever started it"
is_unmounted "$mnt" || die "it mounts what nobody waits for"
grep -q 'nothing was mounted' "$scratch/said" || die "said: $(cat "$scratch/said")"
[ ! -e "$scratch/third" ] || die "it leaves the pool that it made for nothing"
[ ! -e "$scratch/socket.3" ] || die "it leaves its socket"

# Ended by a signal alone, it ends its child, and says so.
closes_slowly
kill -TERM "$next"
status=0
wait "$next" || status=$?
equal "status of who is ended while it waits (which said: $(cat "$scratch/said"))" "$status" 75
is_unmounted "$mnt" || die "it mounts after it was ended"
go_on
ends

# Nothing is mounted over everything.
status_is 64 embarfs / --cxl mem:64M
case $said in
*"root directory"*) ;;
*) die "said: $said" ;;
esac

# Started with its standard streams closed, nothing of its own stands in their place.
embarfs "$mnt" "${where[@]}" <&- >&- 2>&-
content "$mnt/t" 'at once\n'
mkdir "$scratch/other"
status_is 69 embarfs "$scratch/other" "${where[@]}"
case $said in
*"is held by process"*) ;;
*) die "said: $said" ;;
esac
fusermount3 -u "$mnt"

# What clients find it by stands in one folder, also where that one's path is as long as it may be.
long=$scratch/$(printf '%0200d' 0)
long=${long:0:79}
mkdir "$long"
XDG_RUNTIME_DIR=$long embarfs "$mnt" --cxl "$pool" --listen 127.0.0.1:0
equal "files beside the socket" "$(find "$long/embar" -type s | wc -l) $(find "$long/embar" -name '127.0.0.1:*.token' | wc -l)" "1 1"
grep -qF "\"$(find "$long/embar" -type s)\"" "$mnt/.embar/status" || die "its socket is not told"
pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
fusermount3 -u "$mnt"
ends

# A relative socket is told, and taken away, as an absolute path.
(cd "$scratch" && embarfs mnt --cxl pool --listen 127.0.0.1:0 --socket relative)
grep -qF "\"$(realpath "$scratch")/relative\"" "$mnt/.embar/status" || die "a relative socket is told"
equal "a relative pool's name" "$(findmnt -no SOURCE "$mnt")" "$(realpath "$scratch")/pool"
pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
fusermount3 -u "$mnt"
ends
[ ! -e "$scratch/relative" ] || die "the socket is left"
