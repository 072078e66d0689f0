#!/usr/bin/env bash
# An ordinary user mounts, publishes and unmounts without root, and others are kept out; where
# /dev/fuse is closed to them the refusal is a sentence, and changes nothing. Then the other scripts, all
# of them that need no other user, on mounts of that user's own. Runs in a mount namespace of its own, so
# that /dev/fuse can be opened and closed without anybody else noticing.
if [ -z "${EMBAR_UNSHARED:-}" ] && [ "$(id -u)" -eq 0 ]; then
    unshare -m true 2>/dev/null || { echo "SKIP: no mount namespaces here" && exit 77; }
    exec unshare -m --propagation private env EMBAR_UNSHARED=1 "$0"
fi
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
drop_others_mounts
[ -e /etc/mtab ] || skip "no /etc/mtab, without which fusermount3 unmounts for root only"
chown 65534:65534 "$mnt" "$scratch"
# Copies: the build folder may be closed to other users.
install -m 0755 -D "$(command -v embarfs)" "$scratch/bin/embarfs"
install -m 0755 "$(command -v embar)" "$scratch/bin/embar"
install -m 0755 "${EMBAR_BUILD_DIR:-$top/build/release}/tests/fuse/embar-test-sweep" "$scratch/bin/sweep"
use_build "$scratch/bin"
mknod -m 0600 "$scratch/fuse" c 10 229 || skip "no device nodes can be made here"
mount --bind "$scratch/fuse" /dev/fuse || skip "nothing can be mounted over /dev/fuse"
run() {
    as_nobody env -u XDG_RUNTIME_DIR HOME="$scratch" PATH="$PATH" embarfs "$mnt" --cxl "$pool" \
        --size 16M --listen 127.0.0.1:0
}

status_is 77 run
case $said in
*"could not be mounted"*) ;;
*) die "said: $said" ;;
esac
[ ! -e "$pool" ] || die "a pool was made for nothing"

chmod 0666 "$scratch/fuse"
(exec 3<>/dev/fuse) || skip "device nodes do nothing on the filesystem of $scratch"
own_mounts+=("$mnt")
run
as_nobody tee -a "$mnt/t" <<<mine >"$scratch/out"
as_nobody cat "$mnt/t" | cmp - "$scratch/out"
equal owner "$(as_nobody stat -c %u "$mnt/t" "$mnt" | sort -u)" 65534
as_nobody cat "$mnt/.embar/token" >/dev/null
as_nobody mkdir "$mnt/d"
as_nobody "$scratch/bin/sweep" "$mnt/d" || die "the POSIX sweep on a user's own mount: see above"
pid=$(as_nobody sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
as_nobody fusermount3 -u "$mnt"
gone() {
    [ ! -e "/proc/$pid" ]
}
wait_until 60 gone || die "the daemon outlives its mount"

# Everything else, by the same user: the tree may be closed to others, so it is a copy.
scripts=(publish fragments append_only names listing unlink_open tools growing trim shells large full crash
    nul_scan follow poll virtual xattr retention parked queued writers since segments ring scattered locks)
mkdir -m 1777 "$scratch/tmp"
cp -r "$top/tests" "$scratch/tests"
chmod -R go+rX "$scratch/tests"
as_user() {
    local status=0
    as_nobody env -u XDG_RUNTIME_DIR -u EMBAR_UNSHARED HOME="$scratch/tmp" TMPDIR="$scratch/tmp" \
        EMBAR_BIN_DIR="$scratch/bin" "$scratch/tests/fuse/$1.sh" >"$scratch/said.$1" 2>&1 || status=$?
    [ "$status" -eq 0 ] || echo "$1: status $status: $(tail -n 5 "$scratch/said.$1")"
}
export -f as_user as_nobody
export scratch
# shellcheck disable=SC2016
printf '%s\n' "${scripts[@]}" | xargs -P 3 -n 1 bash -c 'as_user "$1"' as_user >"$scratch/failed"
[ ! -s "$scratch/failed" ] || die "as an ordinary user: $(cat "$scratch/failed")"
umount /dev/fuse
