#!/usr/bin/env bash
# The POSIX sweep: open flags, offsets, vectors, copies, locks, names, times, modes, listings (sweep.c),
# as root and as an ordinary user. Its own twin: on an ordinary filesystem, where nothing is
# append-only, the same program must find fault.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
sweep=${EMBAR_BUILD_DIR:-$top/build/release}/tests/fuse/embar-test-sweep
install -m 0755 "$sweep" "$scratch/sweep" # the build folder may be closed to other users
mount_pool

mkdir "$mnt/d" "$scratch/ordinary"
"$scratch/sweep" "$mnt/d" || die "see above"
equal "what is left" "$(ls -A "$mnt/d")" ""
if [ "$(id -u)" -eq 0 ]; then
    chown 65534:65534 "$mnt/d"
    as_nobody "$scratch/sweep" "$mnt/d" || die "as an ordinary user: see above"
    equal "what is left" "$(ls -A "$mnt/d")" ""
fi
refuses 'holds("l"' "$scratch/sweep" "$scratch/ordinary"
