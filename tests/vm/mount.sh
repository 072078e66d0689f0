# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2054,SC2154 # scripts for the guest; names shared between these files
# The headline: mount, publish, read, and a daemon that is killed. Sourced by run.

# shown SCRIPT [SECONDS]: as vm, and the transcript has both.
shown() {
    local began status=0
    began=$(now_ms)
    sed 's/^ *//; s/^/guest# /' <<<"$1"
    vm "$@" >"$scratch/said" || status=$?
    cat "$scratch/said"
    [ "$status" -eq 0 ] || say "(status $status)"
    say "    [$(($(now_ms) - began)) ms]"
    return "$status"
}

# said PATTERN: the last script's output has it.
said() {
    grep -qE -- "$1" "$scratch/said" || die "the guest did not say: $1"
}

# says PATTERN SCRIPT
says() {
    shown "$2" || die "the guest failed: $2"
    said "$1"
}

headline='embarfs /mnt/embar --cxl /dev/dax0.0'

scenario_mount() {
    say "== the headline"
    says 'cxl /dev/dax0.0' 'embar devices'
    said '^    state        free'
    shown "$headline" || die "no mount"
    says '"flush": "pmem2-clwb"' "grep -E '\"(pool|durability|persistence|flush|size)\"' /mnt/embar/.embar/status"
    if [ "$vm_variant" = cxl ]; then
        said '"durability": "machine"'
        said '"persistence": "persistent"'
    else
        said '"durability": "process"'
        said '"persistence": "unknown"'
    fi
    says 'busy: .* held by embarfs' 'embar devices'
    says '"state": "served"' 'embar devices --json'
    shown 'seq 1 100000 | embar -s 127.0.0.1:7447 pub topic0' || die "not published"
    says "^$(seq 1 100000 | sha256sum | cut -d' ' -f1)" '/bin/cat /mnt/embar/topic0 | sha256sum'
    # The line comes while tail runs: it must see it. (A bare `tail` would be busybox's own.)
    says '^hello$' '/bin/tail -n 1 -f -s 0.1 /mnt/embar/topic0 >/tmp/tail & pid=$!
        n=0; until grep -q 100000 /tmp/tail || [ $n -gt 2400 ]; do n=$((n + 1)); usleep 50000; done
        echo hello >> /mnt/embar/topic0
        n=0; until grep -q hello /tmp/tail || [ $n -gt 2400 ]; do n=$((n + 1)); usleep 50000; done
        kill $pid; cat /tmp/tail'
    says '^flush +pmem2-clwb' 'embar stat | head -n 8'
    said '^persistence'
}

# ---- Counted lines -----------------------------------------------------------------------------

topics=(echo batch stream)

# acked TAG: the largest number that the host heard of.
acked() {
    awk -v tag="$1" '$1 == tag && NF == 2 && $2 ~ /^[0-9]+$/ && $2 + 0 > n { n = $2 + 0 } END { print n + 0 }' "$vm_acks"
}

# count_topics: each must be lines 1, 2, 3 ... whole, once and in order, and all that was
# acknowledged. How many there are: $found_TAG, of $told_TAG acknowledged.
count_topics() {
    local i tag began
    began=$(now_ms)
    vm 'for t in "echo 0" "batch 100" "stream 200"; do set -- $t
            [ ! -e /mnt/embar/$1 ] || { /bin/cat /mnt/embar/$1 | counted check $1 $2 || exit 1; }
        done' >"$scratch/counts" || die "not every line once and in order: $(cat "$scratch/counts")"
    mapfile -t counts <"$scratch/counts"
    for i in "${!topics[@]}"; do
        tag=${topics[i]}
        printf -v "found_$tag" %s "${counts[i]:-0}"
        printf -v "told_$tag" %s "$(acked "$tag")"
        local found=found_$tag told=told_$tag
        [ "${!found}" -ge "${!told}" ] ||
            die "LOST: ${!told} lines of $tag were acknowledged, ${!found} are there"
    done
    say "acknowledged/there: echo $told_echo/$found_echo, batch $told_batch/$found_batch," \
        "stream $told_stream/$found_stream; each once, in order (read in $(($(now_ms) - began)) ms)"
}

have_all_gone_on() {
    [ "$(acked echo)" -gt "$1" ] && [ "$(acked batch)" -gt "$2" ] && [ "$(acked stream)" -gt "$3" ]
}

# publish_on: start the publishers behind what is there, and wait until each had something acknowledged.
publish_on() {
    vm "publish $found_echo $found_batch ${session:-new}" || die "no publishers"
    wait_until 300 have_all_gone_on "$found_echo" "$found_batch" "$found_stream" || {
        vm 'cat /tmp/*.err' || true
        die "a publisher is not acknowledged: $(acked echo) $(acked batch) $(acked stream)"
    }
    session=$(sed -n 's/^session \([0-9]*\)$/\1/p' "$vm_acks" | head -n 1)
}

stop_publishers() {
    vm 'for p in $(cat /tmp/publishers); do kill $p 2>/dev/null; done; n=0
        while pidof counted embar >/dev/null && [ $n -lt 2400 ]; do n=$((n + 1)); usleep 50000; done; true'
}

# scenario_daemon_kill [KILLS]: kill -9 of the daemon. The session goes on by itself when it is back, the
# others are begun again.
scenario_daemon_kill() {
    local i n=${1:-1}
    say "== kill -9 of the daemon, $n times"
    session=new found_echo=0 found_batch=0 found_stream=0
    for ((i = 1; i <= n; i++)); do
        publish_on
        sleep "0.$((RANDOM % 10))"
        vm "kill -9 \$(pidof embarfs); while pidof embarfs >/dev/null; do usleep 10000; done
            n=0; while pidof embar >/dev/null && [ \$n -lt 20 ]; do n=\$((n + 1)); usleep 50000; done
            $headline" || die "no mount after a kill"
        # The stream reconnects and resends under its session.
        local before
        before=$(acked stream)
        wait_until 300 stream_has_gone_on "$before" || { vm 'cat /tmp/stream.err'; die "the session does not go on"; }
        stop_publishers
        count_topics
    done
}

stream_has_gone_on() {
    [ "$(acked stream)" -gt "$1" ]
}
