# shellcheck shell=bash
# What the mount's tests share: a private pool, a mount in the foreground, and assertions that show
# both sides. Each test is one behaviour, with what must not work beside what must.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
use_build "${EMBAR_BIN_DIR:-$top/build/release/bin}"

need_fuse || skip "$fuse_missing"
chmod 0755 "$scratch" # other users look in too
mnt=$scratch/mnt
pool=$scratch/pool
mkdir "$mnt"

# mount_with OPTION...: the test's own pool at $mnt; its daemon is $mount_pid.
mount_with() {
    mount_start "$mnt" --cxl "$pool" --listen 127.0.0.1:0 --socket "$scratch/socket" "$@"
}

mount_pool() {
    mount_with --size 64M
}

unmount_pool() {
    mount_stop "$mnt" "$mount_pid"
}

# equal WHAT GOT WANTED
equal() {
    [ "$2" = "$3" ] || die "$1: got '$2', not '$3'"
}

# content FILE TEXT: the file holds exactly that (printf escapes).
content() {
    # shellcheck disable=SC2059
    cmp "$1" <(printf "$2") || die "$1 holds '$(head -c 300 "$1")', not '$2'"
}

# refuses TEXT COMMAND...: it fails and says so.
refuses() {
    local text=$1 said
    shift
    if said=$("$@" 2>&1); then
        die "worked, but must not: $*"
    fi
    case $said in
    *"$text"*) ;;
    *) die "$*: said '$said', not '$text'" ;;
    esac
}

# status_is NUMBER COMMAND...: exactly that exit status; what it said is in $said.
status_is() {
    local wanted=$1 got=0
    shift
    # shellcheck disable=SC2034
    said=$("$@" 2>&1) || got=$?
    equal "status of $* (which said: $said)" "$got" "$wanted"
}

# What a write to a file of mode 0444 says: root passes the mode and meets the daemon's refusal.
# shellcheck disable=SC2034
if [ "$(id -u)" -eq 0 ]; then
    read_only='Operation not permitted'
else
    read_only='Permission denied'
fi

# append FILE TEXT, write_over FILE TEXT
append() {
    printf '%s\n' "$2" >>"$1"
}
write_over() {
    printf '%s\n' "$2" >"$1"
}

# xattr NAME FILE
xattr() {
    getfattr --absolute-names --only-values -n "user.embar.$1" "$2"
}

# trim FILE OFFSET
trim() {
    setfattr -n user.embar.trim -v "$2" "$1"
}

ino() {
    stat -c %i "$1"
}

# as_nobody COMMAND...: without root's privileges; for those who run as root.
as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

need_root() {
    [ "$(id -u)" -eq 0 ] || skip "needs root to become another user"
}

content_is() {
    # shellcheck disable=SC2059
    cmp -s "$1" <(printf "$2")
}

# real_text BYTES: real lines: what the machine itself says in text, over again where it is too little.
# The last one is ended: what is unfinished is published by RELEASE, which no close waits for.
real_text() {
    local text=$scratch/real
    if [ ! -e "$text" ]; then
        cat /usr/share/common-licenses/* /var/lib/dpkg/status 2>/dev/null >"$text" || true
    fi
    while [ "$(stat -c %s "$text")" -lt "$1" ]; do
        cat "$text" "$text" >"$text.more"
        mv "$text.more" "$text"
    done
    head -c $(($1 - 1)) "$text"
    echo
}

# unpacked COMMAND PACKAGE...: Debian's program out of private folders: nothing is installed, no service
# starts. Its path is in $unpacked; what its libraries are found by is exported.
unpacked() {
    local command=$1
    shift
    unpack_packages "$scratch/debian" "$@" ||
        skip "$* cannot be fetched: $(tail -n 1 "$scratch/apt.log")"
    unpacked=$(find "$scratch/debian" -path "*bin/$command" -type f -perm -1 | head -n 1)
    [ -n "$unpacked" ] || die "no $command in $*"
    LD_LIBRARY_PATH=$(find "$scratch/debian" -name '*.so*' -printf '%h\n' | sort -u | tr '\n' ':')
    export LD_LIBRARY_PATH
}
