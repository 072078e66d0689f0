# shellcheck shell=bash
# For the tests of the command: a broker of the test's own, and the command that talks to it.
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
use_build "$EMBAR_BIN_DIR"

pool=$scratch/pool
sock=$scratch/sock
token=$scratch/token

broker_is_ready_or_ended() {
    [ -e "$scratch/ready" ] || is_ended "$broker_pid"
}

# broker_start SIZE: serve $pool, made with SIZE when absent, at $sock and $address; its pid in $broker_pid.
broker_start() {
    rm -f "$scratch/ready"
    "$EMBAR_BUILD_DIR/tests/cmd/embar-test-broker" "$pool" "$1" "$sock" "$token" \
        "$scratch/ready" >>"$scratch/broker.log" 2>&1 &
    broker_pid=$!
    own_pids+=("$broker_pid")
    if ! wait_until 60 broker_is_ready_or_ended || ! [ -e "$scratch/ready" ]; then
        tail -n 20 "$scratch/broker.log" >&2
        die "the broker did not start"
    fi
    # shellcheck disable=SC2034 # the tests use it
    address=$(cat "$scratch/ready")
    export EMBAR_SERVER=$sock
}

# broker_stop: as a daemon is asked to end; it must end well.
broker_stop() {
    kill -TERM "$broker_pid"
    wait_until 60 is_ended "$broker_pid" || die "the broker did not end"
    wait "$broker_pid" || { tail -n 20 "$scratch/broker.log" >&2; die "the broker ended badly"; }
}

broker_kill() {
    kill -KILL "$broker_pid"
    wait "$broker_pid" 2>/dev/null || true
}

# real_text FILE MIB: text that this machine holds, at least so much if there is so much.
real_text() {
    { cat /var/lib/dpkg/status 2>/dev/null
      find /usr/share/doc /usr/share/common-licenses /usr/include -type f ! -name '*.gz' -print0 2>/dev/null |
          sort -z | xargs -0 cat 2>/dev/null || true; } | head -c "$(($2 << 20))" >"$1" || true
    [ -s "$1" ] || die "no text was found on this machine"
}

sum_of() {
    sha256sum | cut -d' ' -f1
}

# same WHAT A B
same() {
    [ "$2" = "$3" ] || die "$1: $2 is not $3"
}

# fails STATUS PATTERN COMMAND...: it ends with that status and says something that matches.
fails() {
    local want=$1 pattern=$2 status=0
    shift 2
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
    [ "$status" -eq "$want" ] || { cat "$scratch/err" >&2; die "'$*' ended with $status, not $want"; }
    grep -qE "$pattern" "$scratch/err" || { cat "$scratch/err" >&2; die "'$*' does not say: $pattern"; }
}
