#!/usr/bin/env bash
# Who waits for pool space through the mount and who does through the network stand in one order: of what comes
# free bit by bit a large batch that came first gets enough, though small ones that come by the other way
# would take each bit at once; and then they get theirs.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 64M --write-wait 600
pieces=24

metric() {
    awk -v name="embar_$1" '$1 == name { print $2 }' "$mnt/.embar/metrics"
}
waiting_is() { # through the mount and the network
    [ "$(metric fs_parked) $(metric net_waiting)" = "$1 $2" ]
}
end_all() {
    local pid
    for pid in "$@"; do
        kill "$pid" 2>/dev/null || true
        wait_until 60 is_ended "$pid" || die "a waiting writer cannot be ended"
    done
}
real_text 8000000 >"$scratch/text"
for ((i = 0; i < 8; i++)); do cat "$scratch/text"; done >"$scratch/fill"
head -c 29999 "$scratch/text" | tr '\n' ' ' >"$scratch/small"
head -c 300000 "$scratch/text" | tr '\n' ' ' >"$scratch/large"
echo >>"$scratch/small"
echo >>"$scratch/large"

# Topics of one extent each, and nothing left beside them.
fill_up() {
    local i
    for ((i = 0; i < pieces; i++)); do cat "$scratch/small" >>"$mnt/$1.piece$i"; done
    cat "$scratch/fill" 2>/dev/null >>"$mnt/$1.fill" &
    local filler=$!
    own_pids+=("$filler")
    wait_until 60 waiting_is 1 0 || die "the pool is not full: $(df "$mnt")"
    end_all "$filler"
    wait_until 60 waiting_is 0 0 || die "a writer that is gone waits"
    dd if="$scratch/text" bs=4096 of="$mnt/$1.rest" oflag=append conv=notrunc status=none 2>/dev/null &
    local rest=$!
    own_pids+=("$rest")
    wait_until 60 waiting_is 1 0 || die "something is left: $(df "$mnt")"
    end_all "$rest"
    wait_until 60 waiting_is 0 0 || die "a writer that is gone waits"
}

by_mount() {
    # shellcheck disable=SC2094
    cat "$1" >>"$mnt/$2"
}
by_network() {
    embar pub -q -s "$scratch/socket" "$2" <"$1" 2>"$scratch/said.$2"
}

# other_way LARGE SMALL: each is by_mount or by_network.
other_way() {
    local i large pids=()
    fill_up "$1"
    "$1" "$scratch/large" "$1.large" &
    large=$!
    own_pids+=("$large")
    is_first() {
        [ "$(($(metric fs_parked) + $(metric net_waiting)))" -eq 1 ]
    }
    wait_until 60 is_first || die "$1: the large one does not wait"
    # Each of them waits or is through.
    settled() {
        local pid n
        n=$(($(metric fs_parked) + $(metric net_waiting)))
        for pid in "$large" "${pids[@]}"; do
            ! is_ended "$pid" || n=$((n + 1))
        done
        [ "$n" -ge $((i + 2)) ]
    }
    for ((i = 0; i < pieces; i++)); do
        trim "$mnt/$1.piece$i" "$(xattr end "$mnt/$1.piece$i")"
        "$2" "$scratch/small" "$1.new$i" &
        pids[i]=$!
        own_pids+=("${pids[i]}")
        wait_until 60 settled || die "$1: small $i neither waits nor is through"
    done
    wait_until 60 is_ended "$large" || die "$1: the large one waits for what small ones took by the other way"
    wait "$large" || die "$1: the large one failed"
    trim "$mnt/$1.fill" "$(xattr end "$mnt/$1.fill")"
    for ((i = 0; i < pieces; i++)); do
        wait_until 60 is_ended "${pids[i]}" || die "$1: small $i waits, with much space"
        wait "${pids[i]}" || die "$1: small $i failed"
        cmp "$scratch/small" "$mnt/$1.new$i"
    done
    cmp "$scratch/large" "$mnt/$1.large"
    wait_until 60 waiting_is 0 0
    rm "$mnt/$1".*
}
other_way by_network by_mount
other_way by_mount by_network
unmount_pool
