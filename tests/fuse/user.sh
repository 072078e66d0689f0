#!/usr/bin/env bash
# An ordinary user mounts, publishes and unmounts without root; without /dev/fuse for them the
# refusal is a sentence.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
chown 65534:65534 "$mnt" "$scratch"
own_mounts+=("$mnt")
run() {
    as_nobody env -u XDG_RUNTIME_DIR HOME="$scratch" PATH="$PATH" embarfs "$mnt" --cxl "$pool" \
        --size 16M --listen 127.0.0.1:0
}
as_nobody test -x "$(command -v embarfs)" || skip "the build folder is closed to other users"
if ! as_nobody bash -c 'exec 3<>/dev/fuse' 2>/dev/null; then
    status_is 77 run
    case $said in
    *"could not be mounted"*) ;;
    *) die "said: $said" ;;
    esac
    [ ! -e "$pool" ] || die "a pool was made for nothing"
    exit 0
fi
run
as_nobody tee -a "$mnt/t" <<<mine >"$scratch/out"
as_nobody cat "$mnt/t" | cmp - "$scratch/out"
equal owner "$(as_nobody stat -c %u "$mnt/t" "$mnt" | sort -u)" 65534
as_nobody cat "$mnt/.embar/token" >/dev/null
as_nobody fusermount3 -u "$mnt"
