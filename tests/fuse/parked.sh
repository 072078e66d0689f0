#!/usr/bin/env bash
# With the pool full, and more writers waiting than the daemon has threads: whatever is done by name
# works at once, to the very topics that they write to as well: stat, chmod, touch, mv, setfattr, rm,
# trims, by the mount and over the socket. A waiting writer can be interrupted and killed; it goes on
# where a trim makes room, and waits for that though its topic is removed. Topics that have room of
# their own are written to meanwhile.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 64M --write-wait 600
writers=40

metric() {
    awk -v name="embar_fs_$1" '$1 == name { print $2 }' "$mnt/.embar/metrics"
}
parked_is() {
    [ "$(metric parked)" = "$1" ]
}
# at_once COMMAND...: it would otherwise wait as long as the writers do.
at_once() {
    timeout 120 "$@" || die "failed, or waited: $*"
}

echo small >>"$mnt/small"
real_text 8000000 >"$scratch/text"
{ head -c 100000 "$scratch/text"; echo; } >"$scratch/whole"
cat "$scratch/whole" >>"$mnt/t"
number=$(ino "$mnt/t")
for ((i = 0; i < 8; i++)); do cat "$scratch/text"; done >"$scratch/fill"
cat "$scratch/fill" 2>/dev/null >>"$mnt/fill" &
filler=$!
own_pids+=("$filler")
wait_until 60 parked_is 1 || die "the pool is not full: $(metric parked), $(df "$mnt")"
pids=()
for ((i = 1; i < writers; i++)); do
    # Every fourth one to a topic of its own, the others to one, by its name. One after another: of
    # those that opened it before anybody waited, the kernel lets one in.
    topic=$mnt/t
    [ $((i % 4)) -ne 0 ] || topic=$mnt/t$i
    (exec head -c 2500000 "$scratch/text" 2>"$scratch/said.$i" >>"$topic") &
    pids[i]=$!
    own_pids+=("$!")
    wait_until 60 parked_is $((i + 1)) || die "only $(metric parked) wait"
done

# By name, to the very topics.
equal ino "$(ino "$mnt/t")" "$number"
at_once chmod 600 "$mnt/t" "$mnt/fill"
at_once touch "$mnt/t"
at_once setfattr -n user.embar.ack -v 0 "$mnt/t"
equal mode "$(stat -c %a "$mnt/t")" 600
at_once mv "$mnt/t12" "$mnt/moved"
at_once ls -l "$mnt" >"$scratch/list"
# Others.
at_once mkdir "$mnt/dir"
at_once touch "$mnt/dir/new"
at_once mv "$mnt/dir/new" "$mnt/new"
at_once rm -r "$mnt/dir" "$mnt/new"
echo more | at_once tee -a "$mnt/small" >"$scratch/out"
content "$mnt/small" 'small\nmore\n'
cmp -n 100000 "$mnt/t" "$scratch/whole" || die "reading"
parked_is "$writers" || die "$(metric parked) wait, not $writers"

# Each commit lets those who wait look again: the first of them, and not all.
tries=$(metric parked_tries_total)
for ((i = 0; i < 5; i++)); do
    at_once tee -a "$mnt/small" <<<"again" >"$scratch/out"
done
[ $(($(metric parked_tries_total) - tries)) -le $((writers * 2)) ] ||
    die "$(($(metric parked_tries_total) - tries)) tries of $writers for five commits"

# Interrupted by a signal that is handled; killed by one that cannot be.
python3 - "$mnt/t" <<'PY' &
import os, signal, sys
class Rang(Exception): pass
def ring(*_): raise Rang
signal.signal(signal.SIGALRM, ring)
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
try: os.write(f, b'y' * 999999 + b'\n')
except Rang: pass
else: raise AssertionError('not interrupted')
PY
rung=$!
own_pids+=("$rung")
wait_until 60 parked_is $((writers + 1)) || die "only $(metric parked) wait"
kill -ALRM "$rung"
wait "$rung" || die "the interrupted writer failed"
[ "$(metric interrupted_total)" -ge 1 ] || die "no interrupt was counted"
kill -KILL "${pids[1]}" "${pids[6]}"
for i in 1 6; do
    wait_until 60 is_ended "${pids[i]}" || die "a waiting writer cannot be killed"
done
wait_until 60 parked_is $((writers - 2)) || die "$(metric parked) wait after two were killed"

# Removed, by the mount and over the socket: those who write to it have it open, and wait on.
at_once rm "$mnt/t4"
at_once embar rm -s "$scratch/socket" t8
refuses 'No such file' stat "$mnt/t4"
echo more >>"$mnt/small"
for i in 4 8; do
    is_ended "${pids[i]}" && die "said: $(cat "$scratch/said.$i")"
done
parked_is $((writers - 2)) || die "$(metric parked) wait after two topics were removed"

# Trims make room, and the others go on; what they write comes whole.
at_once embar trim -s "$scratch/socket" -b latest fill >"$scratch/out"
at_once setfattr -n user.embar.trim -v "$(xattr end "$mnt/t")" "$mnt/t"
kill "$filler" 2>/dev/null || true
goes_on() {
    local pid
    setfattr -n user.embar.trim -v "$(xattr end "$mnt/t")" "$mnt/t"
    for pid in "${pids[@]}"; do
        is_ended "$pid" || return 1
    done
}
head -c 2500000 "$scratch/text" >"$scratch/part"
wait_until 60 goes_on || die "$(metric parked) still wait: $(df "$mnt" | tail -n 1)"
for ((i = 2; i < writers; i++)); do
    [ "$i" -ne 6 ] || continue
    wait "${pids[i]}" || die "writer $i: $(cat "$scratch/said.$i")"
done
is_whole() {
    [ "$(xattr end "$1")" -eq 2500000 ] &&
        tail -c +$(($(xattr base "$1") + 1)) "$scratch/part" | cmp -s - "$1"
}
mv "$mnt/moved" "$mnt/t12"
for ((i = 12; i < writers; i += 4)); do
    wait_until 60 is_whole "$mnt/t$i" || die "t$i is not what was written to it"
done
content "$mnt/small" "small\nmore\n$(printf 'again\\n%.0s' 1 2 3 4 5)more\n"
