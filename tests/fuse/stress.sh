#!/usr/bin/env bash
# Everything at once, in a small pool that is full now and then: nothing but the expected errors, no
# byte that nobody wrote, and a daemon that ends cleanly with what it showed last.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_with --size 24M --write-wait 1

timeout 240 python3 "$top/tests/fuse/stress.py" "$mnt" "${EMBAR_STRESS_SECONDS:-3}" || die "see above"
sums() {
    (cd "$mnt" && find . -type f | sort | xargs -r sha256sum)
}
sums >"$scratch/before"
unmount_pool || die "the daemon ended badly: $(tail -n 20 "$mount_log")"
mount_with --size 24M
sums | cmp - "$scratch/before" || die "a remount shows something else"
