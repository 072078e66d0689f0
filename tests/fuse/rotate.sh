#!/usr/bin/env bash
# logrotate: copytruncate fails, says so and loses nothing, before it has copied anything; rotation by
# renaming works over and over, and who has the file open goes on writing to the renamed one.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
unpacked logrotate logrotate libpopt0
rotate() {
    printf '%s {\n    size 1\n    rotate 3\n    %s\n}\n' "$mnt/t" "$1" >"$scratch/conf"
    chmod 644 "$scratch/conf"
    "$unpacked" -s "$scratch/state" -f "$scratch/conf"
}
mount_pool

echo one >>"$mnt/t"
refuses 'Operation not permitted' rotate copytruncate
content "$mnt/t" 'one\n'
equal files "$(ls "$mnt")" t

exec 3>>"$mnt/t"
rotate create
echo two >&3
echo three >>"$mnt/t"
content "$mnt/t.1" 'one\ntwo\n'
content "$mnt/t" 'three\n'
exec 3>&-
for n in 4 5 6 7; do
    rotate nocreate
    echo "$n" >>"$mnt/t"
done
equal files "$(cd "$mnt" && echo *)" 't t.1 t.2 t.3'
equal content "$(cd "$mnt" && cat t.3 t.2 t.1 t | tr '\n' ' ')" '4 5 6 7 '
