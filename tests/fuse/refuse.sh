#!/usr/bin/env bash
# What cannot be mounted is refused with a sentence and its exit status, and changes nothing.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool
echo kept >>"$mnt/t"
other=$scratch/other
mkdir "$other"

# refused STATUS TEXT ARGUMENT...
refused() {
    local text=$2
    status_is "$1" embarfs "${@:3}"
    case $said in
    *"$text"*) ;;
    *) die "embarfs ${*:3} said '$said', not '$text'" ;;
    esac
    is_mounted "$other" && die "mounted all the same: ${*:3}"
    return 0
}
free=(--listen 127.0.0.1:0 --socket "$scratch/other.sock")
refused 69 "is held by process $mount_pid" "$other" --cxl "$pool" "${free[@]}"
refused 69 "mount already" "$mnt" --cxl "$scratch/p2" --size 16M "${free[@]}"
[ ! -e "$scratch/p2" ] || die "a pool was made for nothing"
refused 66 "does not exist" "$scratch/none" --cxl "$scratch/p2" --size 16M "${free[@]}"
touch "$scratch/file"
refused 66 "not a directory" "$scratch/file" --cxl "$scratch/p2" --size 16M "${free[@]}"
port=$(sed -n 's/.*"port": *\([0-9]*\).*/\1/p' "$mnt/.embar/status")
refused 69 "listens on" "$other" --cxl "$scratch/p2" --size 16M --listen "127.0.0.1:$port"
refused 64 "--listen" "$other" --cxl "$scratch/p2" --size 16M --listen nonsense
refused 64 "-o nonsense" "$other" --cxl "$scratch/p2" --size 16M "${free[@]}" -o nonsense
refused 64 "loopback" "$other" --cxl "$scratch/p2" --size 16M --listen 0.0.0.0:0
[ ! -e "$scratch/p2" ] || die "a pool was made for nothing"
refused 64 "--socket" "$other" --cxl mem:16M --listen 127.0.0.1:0 --socket "/tmp/$(printf '%0110d' 0)"
refused 69 "not a socket" "$other" --cxl mem:16M --listen 127.0.0.1:0 --socket "$scratch/file"
refused 66 "is a directory" "$other" --cxl "$scratch" "${free[@]}"
refused 64 "--size" "$other" --cxl "$scratch/p2" --size -1
refused 64 "--size" "$other" --cxl "$scratch/p2" --size 10Q
refused 64 "--durability" "$other" --cxl mem:16M --durability forever
refused 64 "--flush" "$other" --cxl mem:16M --flush sometimes
refused 64 "--workers" "$other" --cxl mem:16M --workers many
refused 64 "--staging" "$other" --cxl mem:16M --staging 1M
refused 64 "mount point" --cxl mem:16M
refused 64 "one too many" "$other" "$mnt"
refused 64 "unrecognized option" "$other" --nonsense

# Pools that are none.
cp /etc/passwd "$scratch/foreign"
refused 65 "too small" "$other" --cxl "$scratch/foreign" "${free[@]}"
cmp /etc/passwd "$scratch/foreign" || die "a foreign file was changed"
real_text 5242880 | tee "$scratch/copy" >"$scratch/foreign"
refused 65 "not an embarfs pool" "$other" --cxl "$scratch/foreign" "${free[@]}"
cmp "$scratch/copy" "$scratch/foreign" || die "a foreign file was changed"
refused 64 "" "$other" --cxl mem:1M "${free[@]}"
refused 66 "" "$other" --cxl "$scratch/nowhere/pool" --size 16M "${free[@]}"

content "$mnt/t" 'kept\n'
embarfs --version | grep -q '^embarfs [0-9]' || die "--version"
embarfs --help | grep -q -- --cxl || die "--help"
