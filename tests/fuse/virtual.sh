#!/usr/bin/env bash
# .embar: status is JSON, metrics are Prometheus text, the token is the owner's alone; it is not
# listed, and nothing in it can be changed.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool
no='Operation not permitted'

equal listing "$(ls -A "$mnt")" ""
equal inside "$(find "$mnt/.embar" -printf '%P ' | tr ' ' '\n' | sort | tr '\n' ' ')" " follow metrics segments since status token "
echo x >>"$mnt/t"
python3 - "$mnt" "$mount_pid" "$pool" "$scratch/socket" <<'PY'
import json, os, re, socket, sys
m, pid, pool, sock = sys.argv[1:]
s = json.load(open(m + '/.embar/status'))
assert s['pid'] == int(pid) and s['pool'] == pool and s['mountpoint'] == m, s
assert s['topics'] == 1 and s['incarnation'] >= 1 and s['uptime'] >= 0, s
assert s['durability'] == 'process' and re.match(r'\d', s['version']), s
assert s['socket'] == sock and s['listen'] == '127.0.0.1:%d' % s['port'], s
socket.create_connection(('127.0.0.1', s['port']), 5).close()
u = socket.socket(socket.AF_UNIX); u.connect(sock); u.close()
seen = {}
for line in open(m + '/.embar/metrics'):
    if line.startswith('#'):
        assert re.match(r'# (HELP|TYPE) embar_\w+ ', line), line
    else:
        name, value = line.split()
        assert re.fullmatch(r'embar_\w+', name) and name not in seen, line
        seen[name] = float(value)
assert seen['embar_fs_writes_total'] == 1 and seen['embar_fs_write_bytes_total'] == 2, seen
assert seen['embar_messages_total'] >= 1 and seen['embar_topics'] == 1, seen
PY
# Without a descriptor for it a connection waits: counted, and said in the log.
limit=$(prlimit --pid "$mount_pid" --nofile --noheadings --output SOFT,HARD | tr -s ' ' ':')
for ((n = 0; ; n++)); do
    [ -e "/proc/$mount_pid/fd/$n" ] || break
done
prlimit --pid "$mount_pid" --nofile="$n:${limit##*:}"
embar topics -s "$scratch/socket" >"$scratch/topics" &
waits=$!
own_pids+=("$waits")
is_put_off() {
    grep -q '^embar_net_put_off_total [1-9]' "$mnt/.embar/metrics" &&
        grep -q '"put_off": [1-9]' "$mnt/.embar/status" &&
        grep -q 'new connections wait.*LimitNOFILE' "$mount_log"
}
wait_until 60 is_put_off || die "nobody says that a connection waits: $(cat "$mount_log")"
prlimit --pid "$mount_pid" --nofile="$limit"
wait "$waits" || die "who waited was not served"
content "$scratch/topics" 't\n'
embar stat -s "$scratch/socket" | grep -q '^ *put_off *[1-9]' || die "embar stat does not count it"

token=$(cat "$mnt/.embar/token")
equal "length of the token" "${#token}" 32
equal mode "$(stat -c %a:%u "$mnt/.embar/token")" "600:$(id -u)"
if [ "$(id -u)" -eq 0 ]; then
    refuses 'Permission denied' as_nobody cat "$mnt/.embar/token"
    as_nobody cat "$mnt/.embar/status" >/dev/null
fi
for file in status token metrics follow/t; do
    says=$read_only
    [ "$file" != token ] || says=$no # its owner's mode is 0600
    refuses "$says" append "$mnt/.embar/$file" x
    refuses "$read_only" rm -f "$mnt/.embar/$file"
    refuses "$no" chmod 777 "$mnt/.embar/$file"
done
refuses "$read_only" touch "$mnt/.embar/new"
refuses "$read_only" mkdir "$mnt/.embar/new" "$mnt/.embar/follow/new"
refuses "" rmdir "$mnt/.embar"
refuses "" mv "$mnt/.embar" "$mnt/other"
refuses "" mv "$mnt/t" "$mnt/.embar/t"
refuses 'File exists' mkdir "$mnt/.embar"
unmount_pool
mount_pool
[ "$(cat "$mnt/.embar/token")" != "$token" ] || die "the token of the last start still holds"
# Below the root the name is free.
mkdir "$mnt/d" "$mnt/d/.embar"
