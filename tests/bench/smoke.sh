#!/usr/bin/env bash
# Every measurement of `embar bench` runs to its end on a private broker, gives JSON with all its
# series and ratios, and leaves nothing behind: after success, a refusal, Ctrl-C and kill -9. Says
# nothing about speed: the loads are tiny and nothing is asked of the figures.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
use_build "${EMBAR_BIN_DIR:-$top/build/release/bin}"

need_fuse || skip "$fuse_missing"
command -v python3 >/dev/null || skip "no python3"

export TMPDIR=$scratch/bench # what bench makes stands here, so that leftovers show
mkdir "$TMPDIR"

nothing_left() {
    [ -z "$(ls -A "$TMPDIR")" ] && ! grep -qF "$TMPDIR" /proc/self/mounts
}

# measure SERIES RATIOS ARGUMENT...: that many of each, every figure a positive number.
measure() {
    local series=$1 ratios=$2
    shift 2
    embar bench "$@" --json --warmup 0 >"$scratch/report" || die "bench $* failed"
    python3 - "$scratch/report" "$series" "$ratios" <<'END' || die "bench $*: not the report it should be"
import json, sys
report = json.load(open(sys.argv[1]))
assert len(report["series"]) == int(sys.argv[2]), len(report["series"])
assert len(report["ratios"]) == int(sys.argv[3]), len(report["ratios"])
for item in report["series"] + report["ratios"]:
    # What a connection takes is told once: later ones find it there.
    assert item["rounds"] == (1 if item.get("unit") == "KiB" else 2) and item["median"] >= 0, item
assert report["facts"]["machine"] and report["caveats"]
END
    nothing_left || die "bench $* left something: $(ls "$TMPDIR")"
    say "ok: bench $*"
}

small=(--rounds 2 --batch 64K)
measure 5 4 pub "${small[@]}" --bytes 8M
measure 5 4 pub "${small[@]}" --bytes 4M --message-size 100 --connections 2 --processes 2 --unix
measure 1 0 pub "${small[@]}" --bytes 8M --subject-only --order 2
measure 9 9 order --rounds 2 --bytes 8M --connections 2 --session-connections 2
measure 2 1 sub "${small[@]}" --bytes 8M --connections 2
measure 9 6 cat "${small[@]}" --bytes 8M
measure 6 4 append "${small[@]}" --bytes 4M --connections 2
measure 6 4 latency --rounds 2 --seconds 1 --rates 500 --data "$scratch/plot"
if [ "$(grep -c '^500 [012] ' "$scratch/plot")" != 3 ] ||
    [ "$(grep -c 'Total count = 1000]' "$scratch/plot")" != 3 ]; then
    die "bench latency wrote: $(cat "$scratch/plot")"
fi
measure 11 7 fair --rounds 2 --seconds 1 --connections 20 --rates 200
# Containers may refuse io_uring, and bundles are in Linux 6.10. The parameters' sixth word says what there is.
ring=$(python3 -c 'import ctypes, struct
p = ctypes.create_string_buffer(120)
there = ctypes.CDLL(None).syscall(425, 1, p) >= 0
print("none" if not there else "bundles" if struct.unpack_from("6I", p)[5] >> 14 & 1 else "ring")')
case $ring in
bundles) expected="59 46" ;;
ring) expected="54 41" ;;
none) expected="20 15" ;;
esac
# shellcheck disable=SC2086 # two words
measure $expected loops "${small[@]}" --bytes 8M --connections 2
measure 5 0 idle --rounds 2 --seconds 1 --connections 100
measure 10 0 recovery --rounds 2 --batches 10000 --data "$scratch/plot"
[ "$(grep -vc '^#' "$scratch/plot")" = 4 ] || die "bench recovery wrote: $(cat "$scratch/plot")"

# A mount that is somebody else's is measured and left as it was.
mkdir "$scratch/mnt"
mount_start "$scratch/mnt" --cxl mem:128M --listen 127.0.0.1:0 --socket "$scratch/socket"
echo kept >>"$scratch/mnt/kept"
measure 5 4 pub "${small[@]}" --bytes 8M --mount "$scratch/mnt"
if embar bench pub --mount "$scratch/mnt" --topic kept 2>"$scratch/err"; then
    die "bench took a topic that is there for its own"
fi
grep -qF "is there already" "$scratch/err" || die "bench said: $(cat "$scratch/err")"
[ "$(ls "$scratch/mnt")" = kept ] || die "bench changed the topics of a mount"
[ "$(cat "$scratch/mnt/kept")" = kept ] || die "bench changed a topic that is not its own"
mount_stop "$scratch/mnt" "$mount_pid"

# refuse WORDS ARGUMENT...: a sentence with these words, a failure, nothing left.
refuse() {
    local words=$1
    shift
    if embar bench "$@" >"$scratch/out" 2>"$scratch/err"; then
        die "bench $* did not fail"
    fi
    grep -qF "$words" "$scratch/err" || die "bench $* said: $(cat "$scratch/err")"
    nothing_left || die "bench $* left something"
}
refuse "did not start" pub --embarfs "$scratch/none"
refuse "No broker answers" cat -s 127.0.0.1:1 --bytes 8M --batch 64K
refuse "exists already" flush --cxl "$scratch/err" --bytes 8M --rounds 1
refuse "choose pub" nonsense
refuse "no size from 10000" recovery --batches 1
refuse "ack" pub --ack 2 --bytes 8M --batch 64K

has_mount() {
    grep -qF "$TMPDIR" /proc/self/mounts
}
for signal in INT KILL; do
    # Job control, so that the background process does not ignore SIGINT.
    set -m
    embar bench cat "${small[@]}" --bytes 8M --rounds 200 >/dev/null 2>&1 &
    pid=$!
    set +m
    own_pids+=("$pid")
    wait_until 60 has_mount || die "bench cat did not start"
    kill -"$signal" "$pid"
    wait "$pid" 2>/dev/null && die "bench survived SIG$signal"
    wait_until 60 nothing_left || die "SIG$signal left something: $(ls "$TMPDIR")"
    say "ok: nothing left after SIG$signal"
done
