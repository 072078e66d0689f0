#!/usr/bin/env bash
# rsyslog writes what logger sends it into topics (omfile), creating them and their directories, and
# reads a topic as its input (imfile), as it does with ordinary files beside them.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
unpacked rsyslogd rsyslog libestr0 libfastjson4
modules=$(find "$scratch/debian" -name imuxsock.so -printf '%h')
mount_pool
mkdir "$scratch/work"
touch "$mnt/input"
cat >"$scratch/conf" <<CONF
global(workDirectory="$scratch/work")
module(load="imuxsock" SysSock.Use="off")
module(load="imfile" mode="polling" pollingInterval="1")
input(type="imuxsock" socket="$scratch/log")
input(type="imfile" file="$mnt/input" tag="fed:")
template(name="text" type="string" string="%programname% %msg:::sp-if-no-1st-sp%%msg%\n")
template(name="byname" type="string" string="$mnt/logs/%programname%")
template(name="plainbyname" type="string" string="$scratch/plain/%programname%")
action(type="omfile" dynaFile="byname" template="text" createDirs="on")
action(type="omfile" dynaFile="plainbyname" template="text" createDirs="on")
CONF
"$unpacked" -n -M "$modules" -f "$scratch/conf" -i "$scratch/pid" >"$scratch/said" 2>&1 &
daemon=$!
own_pids+=("$daemon")
listens() {
    [ -S "$scratch/log" ]
}
wait_until 60 listens || die "rsyslogd does not listen: $(cat "$scratch/said")"
senders=()
for sender in 1 2 3 4; do
    seq -f "sender $sender says %g" 1 200 | logger -u "$scratch/log" -t "app$((sender % 2))" &
    senders+=($!)
done
wait "${senders[@]}"
seq -f 'line %g of a topic' 1 100 >>"$mnt/input"
lines_are() {
    [ "$(cat "$mnt/logs/$1" 2>/dev/null | wc -l)" -eq "$2" ]
}
wait_until 60 lines_are app0 400 || die "app0: $(wc -l <"$mnt/logs/app0") lines: $(cat "$scratch/said")"
wait_until 60 lines_are app1 400 || die "app1: $(wc -l <"$mnt/logs/app1") lines"
wait_until 60 lines_are fed 100 || die "imfile: $(wc -l <"$mnt/logs/fed") lines: $(cat "$scratch/said")"
end_process "$daemon"
for name in app0 app1 fed; do
    cmp "$mnt/logs/$name" "$scratch/plain/$name" || die "$name differs from the ordinary file"
done
for sender in 1 2 3 4; do
    grep -o "sender $sender says .*" "$mnt/logs/app$((sender % 2))" |
        cmp - <(seq -f "sender $sender says %g" 1 200) || die "sender $sender: not each once and in order"
done
