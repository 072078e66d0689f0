#!/usr/bin/env bash
# tail -f, tail -F, and less +F follow a topic that grows: every line once, in order, nothing else;
# head, cp and dd of the growing file give a beginning of it.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

touch "$mnt/t"
tail -s 0.05 -n +1 -f "$mnt/t" >"$scratch/f" 2>"$scratch/f.err" &
own_pids+=($!)
tail -s 0.05 -n +1 -F "$mnt/t" >"$scratch/F" 2>"$scratch/F.err" &
own_pids+=($!)
real_text 300000 | awk 'NF && ++n <= 1000' >"$scratch/lines"
(while IFS= read -r line; do printf '%s\n' "$line"; done <"$scratch/lines" >>"$mnt/t") &
writer=$!
own_pids+=("$writer")
while is_running "$writer"; do
    cp "$mnt/t" "$scratch/c"
    head -c "$(stat -c %s "$scratch/c")" "$scratch/lines" | cmp - "$scratch/c" || die "cp"
    dd if="$mnt/t" of="$scratch/d" bs=777 status=none
    head -c "$(stat -c %s "$scratch/d")" "$scratch/lines" | cmp - "$scratch/d" || die "dd"
    head -n 1 "$mnt/t" >"$scratch/h"
    [ ! -s "$scratch/h" ] || cmp "$scratch/h" <(head -n 1 "$scratch/lines") || die "head"
done
wait "$writer"
cmp "$mnt/t" "$scratch/lines"
has_all() {
    cmp -s "$1" "$scratch/lines"
}
wait_until 60 has_all "$scratch/f" || die "tail -f: $(cmp "$scratch/f" "$scratch/lines" 2>&1)"
wait_until 60 has_all "$scratch/F" || die "tail -F: $(cmp "$scratch/F" "$scratch/lines" 2>&1)"
# tail -F goes over to the new file when the topic is removed and made again; tail -f stays.
rm "$mnt/t"
has_become_inaccessible() {
    grep -q inaccessible "$scratch/F.err"
}
wait_until 60 has_become_inaccessible || die "tail -F did not notice: $(cat "$scratch/F.err")"
echo again >>"$mnt/t"
follows_new() {
    [ "$(tail -n 1 "$scratch/F")" = again ]
}
wait_until 60 follows_new || die "tail -F did not follow the new one: $(cat "$scratch/F.err")"
cmp "$scratch/f" "$scratch/lines"
equal "tail -f said" "$(cat "$scratch/f.err")" ""
