#!/usr/bin/env bash
# Every so many allocations of the daemon fail for a while, under load: it refuses some of what is asked,
# loses nothing that it took, and goes on when memory is there again. --long: more and longer.
# shellcheck source=tests/fault/lib.sh
. "$(dirname "$0")/lib.sh"

appends=100
every="7 37"
if [ "${1:-}" = --long ]; then
    appends=1000
    every="2 3 5 7 11 13 17 19 23 29 37 101 997"
fi

# Lines that the mount took, as the shell saw it, into $1; each line is a write of its own.
append_many() {
    local i
    for ((i = 0; i < appends; i++)); do
        if { printf '%s %s\n' "$1" "$i" >>"$mnt/$1"; } 2>/dev/null; then
            printf '%s %s\n' "$1" "$i"
        fi
    done >"$scratch/took.$1"
}

for k in $every; do
    rm -f "$pool"
    : >"$scratch/embarfs.log"
    with_fault "alloc=ENOMEM/$k" mount_with --size 64M
    for topic in a b; do
        append "$mnt/$topic" "$topic begins"
    done
    touch "$now"
    writers=()
    for topic in a b; do
        append_many "$topic" &
        writers+=("$!")
        own_pids+=("$!")
    done
    tries=0
    published=0
    while is_running "${writers[0]}" || is_running "${writers[1]}"; do
        tries=$((tries + 1))
        if lines "$tries" "$((tries + 20))" 2>/dev/null |
            timeout 3 embar pub -s "$mnt" "net$tries" >/dev/null 2>&1; then
            published=$((published + 1))
            lines "$tries" "$((tries + 20))" >"$scratch/net.$tries"
        fi
    done
    wait "${writers[@]}"
    rm "$now"
    is_running "$mount_pid" || die "every ${k}th allocation: the daemon is gone: $(tail -n 3 "$mount_log")"
    for topic in a b; do
        append "$mnt/$topic" "$topic goes on"
        { echo "$topic begins" && cat "$scratch/took.$topic" && echo "$topic goes on"; } >"$scratch/wanted"
        # What was refused may be there, if it was refused late; what was taken is, once and in order.
        sed 's/$/\n/' "$scratch/wanted" | grep -v '^$' >"$scratch/w"
        grep -Fxf "$scratch/w" "$mnt/$topic" | cmp - "$scratch/w" ||
            die "every ${k}th allocation: topic $topic lost or doubled a line that was taken"
    done
    for file in "$scratch"/net.*; do
        [ -e "$file" ] || continue
        cmp "$mnt/net${file##*.}" "$file"
    done
    rm -f "$scratch"/net.*
    equal "faulted" "$(status_says faulted)" false
    lines 1 100 | embar pub -s "$mnt" after
    cmp "$mnt/after" <(lines 1 100)
    say "every ${k}th: of $appends appends $(wc -l <"$scratch/took.a") and $(wc -l <"$scratch/took.b") were taken, of $tries publishers $published came through"
    unmount_pool
    mount_with
    cmp "$mnt/after" <(lines 1 100)
    grep -Fxf "$scratch/w" "$mnt/b" | cmp - "$scratch/w"
    unmount_pool
done
