# shellcheck shell=bash
# What every script of this tree shares: packages, FUSE, waiting with a deadline, a mount with its
# pid, and cleaning up. Source it; it never ends a process that the script did not start.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C # bytes are bytes: sort, grep, sed and split must not look for characters

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A test that cannot run here says why; the runner accepts only the skips in tests/allowed-skips.
skip() {
    printf 'SKIP: %s\n' "$*"
    exit 77
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "'$*' needs root: run this as root, or install sudo"
    fi
}

# packages_of GROUP...: names from tests/packages.
packages_of() {
    local group
    for group in "$@"; do
        awk -v group="$group" '$1 == group { print $2 }' "$top/tests/packages"
    done
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 "$@" </dev/null
}

# need_packages GROUP...: install what is missing. The package lists are fetched only when apt
# cannot do with those it has: a bare machine has none.
need_packages() {
    local missing=() package
    for package in $(packages_of "$@"); do
        is_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    command -v apt-get >/dev/null ||
        die "needs these packages, under whatever name your system has them: ${missing[*]}"
    say "installing: ${missing[*]}"
    if apt_get install -y --no-install-recommends "${missing[@]}" >"$scratch/apt.log" 2>&1; then
        return 0
    fi
    if apt_get update >"$scratch/apt.log" 2>&1 &&
        apt_get install -y --no-install-recommends "${missing[@]}" >>"$scratch/apt.log" 2>&1; then
        return 0
    fi
    tail -n 20 "$scratch/apt.log" >&2
    die "apt-get could not install: ${missing[*]}"
}

# need_fuse: /dev/fuse and fusermount3, made or installed when this is root; else the reason stands
# in $fuse_missing and the answer is no.
need_fuse() {
    fuse_missing=
    if [ ! -e /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
        mknod -m 0666 /dev/fuse c 10 229 2>/dev/null || true
    fi
    if [ ! -e /dev/fuse ]; then
        fuse_missing="no /dev/fuse (as root: modprobe fuse, or mknod /dev/fuse c 10 229)"
    elif ! (exec 3<>/dev/fuse) 2>/dev/null; then
        fuse_missing="/dev/fuse cannot be opened by uid $(id -u), or the kernel has no FUSE"
    elif ! command -v fusermount3 >/dev/null; then
        fuse_missing="no fusermount3 (apt-get install fuse3)"
    fi
    [ -z "$fuse_missing" ]
}

# wait_until SECONDS COMMAND...: poll until it succeeds; no when the deadline passes first.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# is_running PID: and it is a child of this script. A number that the system gave away again to
# somebody else is not ours to signal.
is_running() {
    local state
    state=$(awk -v parent=$$ '{ sub(/^.*\) /, ""); if ($2 == parent) print $1 }' \
        "/proc/$1/stat" 2>/dev/null) || return 1
    [ -n "$state" ] && [ "$state" != Z ]
}

is_ended() {
    ! is_running "$1"
}

is_mounted() {
    grep -q " $1 fuse" /proc/self/mounts
}

is_unmounted() {
    ! is_mounted "$1"
}

size_is_at_least() {
    [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -ge "$2" ]
}

# end_process PID: ask, then insist. Only for processes that the script started itself.
end_process() {
    is_running "$1" || return 0
    kill -TERM "$1" 2>/dev/null || true
    wait_until 60 is_ended "$1" || kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# Everything a script starts or mounts is noted here and ended when it leaves, however it leaves.
own_pids=()
own_mounts=()
own_files=()
scratch=$(mktemp -d "${TMPDIR:-/tmp}/embar.XXXXXX")
export XDG_RUNTIME_DIR=$scratch # sockets and tokens of daemons that are killed go with it

clean_up() {
    local status=$? mount pid
    trap - EXIT
    for mount in "${own_mounts[@]}"; do
        if is_mounted "$mount"; then
            fusermount3 -u "$mount" 2>/dev/null || fusermount3 -uz "$mount" 2>/dev/null ||
                umount -l "$mount" 2>/dev/null || true
        fi
    done
    for pid in "${own_pids[@]}"; do
        end_process "$pid"
    done
    if [ -n "${KEEP:-}" ]; then
        say "kept: $scratch" >&2
    else
        rm -rf --one-file-system "$scratch" "${own_files[@]}"
    fi
    exit "$status"
}
trap clean_up EXIT
# Where errexit strikes, it says so.
trap 'printf "%s: line %s: failed with status %s: %s\n" "${0##*/}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# mount_start MOUNTPOINT [OPTION...]: embarfs in the foreground, so that its pid is ours: in
# $mount_pid. Its output goes to $mount_log.
mount_start() {
    local point=$1
    shift
    mount_log=$scratch/embarfs.log
    own_mounts+=("$point")
    embarfs "$point" -f "$@" </dev/null >>"$mount_log" 2>&1 &
    mount_pid=$!
    own_pids+=("$mount_pid")
    if ! wait_until 60 mount_ready_or_ended "$point" "$mount_pid" || ! is_mounted "$point"; then
        tail -n 20 "$mount_log" >&2
        die "embarfs did not mount $point"
    fi
}

mount_ready_or_ended() {
    { is_mounted "$1" && stat "$1/.embar/status" >/dev/null 2>&1; } || is_ended "$2"
}

# mount_stop MOUNTPOINT PID: unmount as a user would, and wait for the daemon's own end.
mount_stop() {
    fusermount3 -u "$1"
    wait_until 60 is_ended "$2" || die "embarfs (pid $2) still runs after its unmount"
    wait "$2"
}

# drop_others_mounts: in a mount namespace of the script's own. What others had mounted was copied into it,
# and their daemons would live on for as long as the copies do.
drop_others_mounts() {
    local other
    while read -r other; do
        umount -l "$other" || true # perhaps it is gone
    done < <(awk '$3 ~ /^fuse\.(embarfs|null)$/ { print $2 }' /proc/self/mounts)
}

# free_port: a loopback port where nobody answers now. The one who binds it may still lose a race:
# use port 0 where the program can tell what it got.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    die "no free loopback port found"
}

# unpack_packages FOLDER PACKAGE...: their files, private: nothing is installed, no service starts.
unpack_packages() {
    local folder=$1 archive
    shift
    mkdir -p "$folder/archives"
    if ! (cd "$folder/archives" && apt-get -q -o APT::Sandbox::User=root download "$@") \
        >"$scratch/apt.log" 2>&1; then
        apt_get update >>"$scratch/apt.log" 2>&1 || return 1
        (cd "$folder/archives" && apt-get -q -o APT::Sandbox::User=root download "$@") \
            >>"$scratch/apt.log" 2>&1 || return 1
    fi
    for archive in "$folder"/archives/*.deb; do
        dpkg-deb -x "$archive" "$folder" || return 1
    done
}

# use_build DIR: the programs of that build come first.
use_build() {
    PATH=$1:$PATH
    export PATH
}
