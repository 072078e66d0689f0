#!/usr/bin/env bash
# 1,000 shells append at once: every line is whole, there once, and each shell's are in its order.
# Lines of all lengths, also longer than a page and than a pipe takes whole. Its twin: a line that is
# written in two pieces by two open files is two messages, and another's may come between.
#   shells.sh [--long]     1,000 shells of 5 lines, or of 100
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 256M
shells=1000
lines=5
[ "${1:-}" != --long ] || lines=100

long=$(printf 'x%.0s' {1..9000})
# lines_of SHELL: as that shell writes them, each with a write of its own.
lines_of() {
    local n
    for ((n = 1; n <= lines; n++)); do
        echo "$1 $n ${long:0:$(($1 * 7919 % 97 * (n % 3 * 40 + 1)))}"
    done
}
mkfifo "$scratch/go"
exec 9<>"$scratch/go"
pids=()
for ((shell = 1; shell <= shells; shell++)); do
    (
        read -r -n 1 -u 9 # until all are there
        lines_of $shell | while IFS= read -r line; do echo "$line" >>"$mnt/t"; done
    ) &
    pids+=($!)
done
printf '%*s' $shells '' >&9
for pid in "${pids[@]}"; do
    wait "$pid" || die "a shell failed"
done
for ((shell = 1; shell <= shells; shell++)); do
    lines_of $shell
done | sort >"$scratch/wanted"
sort "$mnt/t" | cmp - "$scratch/wanted" || die "not the lines that were written"
awk '$2 != ++n[$1] { print "out of order:", $1, $2; exit 1 }' "$mnt/t"
equal messages "$(xattr messages "$mnt/t")" $((shells * lines))
say "$shells shells, $((shells * lines)) lines: 0 torn, 0 lost, 0 twice"

# close(2) does not wait for its RELEASE, in which the half line is published.
half_is_there() {
    [ "$(cat "$mnt/u")" = 'half ' ]
}
printf 'half ' >>"$mnt/u"
wait_until 60 half_is_there || die "the half line is not there: $(cat "$mnt/u")"
append "$mnt/u" other
append "$mnt/u" rest
content "$mnt/u" 'half other\nrest\n'
