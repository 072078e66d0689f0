# shellcheck shell=bash
# What the fault tests share: a mount whose daemon has calls that fail, from when the script says so.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../fuse/lib.sh"

fault_library=$EMBAR_BUILD_DIR/tests/fault/embar-fault.so
[ -e "$fault_library" ] || skip "no $fault_library (a sanitizer is in front of the same calls)"
now=$scratch/now # what is to fail fails while this file is there

# with_fault LIST COMMAND...: LIST as fault.c reads it.
with_fault() {
    local list=$1
    shift
    LD_PRELOAD=$fault_library EMBAR_FAULT=$list EMBAR_FAULT_WHEN=$now "$@"
}

# status_says KEY: the value in .embar/status.
status_says() {
    sed -n "s/^ *\"$1\": \(.*[^,]\),*\$/\1/p" "$mnt/.embar/status"
}

# lines FROM TO: what is published, each line its own.
lines() {
    seq -f 'line %g of a log that is to survive' "$1" "$2"
}

# is_faulted WORDS: every place says that the pool failed, once, and why.
is_faulted() {
    equal "faulted" "$(status_says faulted)" true
    status_says fault | grep -q "$1" || die "status says '$(status_says fault)', not '$1'"
    embar stat -s "$mnt" >"$scratch/stat"
    grep -q '^ *faulted *yes$' "$scratch/stat" || die "embar stat does not say that the pool failed"
    grep -q "^ *fault .*$1" "$scratch/stat" || die "embar stat does not say why: $(grep fault "$scratch/stat")"
    # Who meets the fault first may be refused before its line is written.
    wait_until 60 grep -q "$1" "$mount_log" || die "the daemon's log does not say why"
    equal "lines about it in the daemon's log" "$(grep -c "$1" "$mount_log")" 1
}

# takes_nothing TOPIC: writers, publishers and who changes names are refused, in words.
takes_nothing() {
    refuses "Input/output error" append "$mnt/$1" "a line that must not be taken"
    refuses "stopped trusting it" embar pub -s "$mnt" "$1" < <(lines 1 3)
    refuses "Input/output error" mkdir "$mnt/folder"
    refuses "Input/output error" touch "$mnt/another"
}
