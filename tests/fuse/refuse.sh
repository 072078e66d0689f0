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
refused 69 "no such address" "$other" --cxl "$scratch/p2" --size 16M --listen 192.0.2.1:0 --insecure
refused 66 "too long" "$other" --cxl "$scratch/$(printf '%0300d' 0)" --size 16M "${free[@]}"
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

# What would move a terminal's cursor is written out.
bad=$(printf 'a\033[31mb')
for line in "$scratch/$bad" "$other --cxl $scratch/$bad" "$other --$bad" "$other --size $bad" "$other $bad" \
    "$other --listen $bad" "$other --cxl mem:16M -o $bad" "$other --cxl mem:16M --listen 127.0.0.1:0 --socket $scratch/file/$bad"; do
    status=0
    # shellcheck disable=SC2086
    said=$(embarfs $line 2>&1) || status=$?
    [ "$status" -ne 0 ] || die "mounted: embarfs $line"
    case $said in
    *$'\033'*) die "embarfs $line: said $(cat -v <<<"$said")" ;;
    *'\x1b[31m'*) ;;
    *) die "embarfs $line: said '$said'" ;;
    esac
done

# Pools that are none.
cp /etc/passwd "$scratch/foreign"
refused 65 "too small" "$other" --cxl "$scratch/foreign" "${free[@]}"
cmp /etc/passwd "$scratch/foreign" || die "a foreign file was changed"
real_text 5242880 | tee "$scratch/copy" >"$scratch/foreign"
refused 65 "not an embarfs pool" "$other" --cxl "$scratch/foreign" "${free[@]}"
cmp "$scratch/copy" "$scratch/foreign" || die "a foreign file was changed"
refused 64 "" "$other" --cxl mem:1M "${free[@]}"
refused 66 "" "$other" --cxl "$scratch/nowhere/pool" --size 16M "${free[@]}"

# A file that would be longer than ulimit -f allows is not begun.
status_is 73 bash -c 'ulimit -f 1024; exec embarfs "$@"' bash "$other" --cxl "$scratch/p2" --size 16M "${free[@]}"
case $said in
*"ulimit -f"*) ;;
*) die "said: $said" ;;
esac
[ ! -e "$scratch/p2" ] || die "a pool was made for nothing"

# A pool that lost its end says how to get its length back, whatever is left.
embar pool create "$scratch/short" --size 16M
for left in 10M 5000001 100000; do
    truncate -s "$left" "$scratch/short"
    refused 65 "truncate -s 16777216" "$other" --cxl "$scratch/short" "${free[@]}"
    equal "the file" "$(stat -c %s "$scratch/short")" "$(numfmt --from=iec "$left")"
done

# Nowhere to keep the default pool: which folder, and what to do.
status_is 66 env XDG_STATE_HOME="$scratch/file/state" embarfs "$other" "${free[@]}"
case $said in
*"$scratch/file/state, for the default pool"*XDG_STATE_HOME*--cxl*) ;;
*) die "said: $said" ;;
esac

# Too few descriptors: a sentence of ours alone at each number of them, and the daemon that has just enough leaves its
# caller's output alone.
wanted=
for ((n = 5; n < 80; n++)); do
    status=0
    said=$(ulimit -n "$n" && embarfs "$other" --cxl mem:16M --workers 1 "${free[@]}" 2>&1) || status=$?
    [ "$status" -ne 0 ] || break
    equal "status with $n descriptors (which said: $said)" "$status" 71
    grep -qv '^embarfs: ' <<<"$said" && die "with $n descriptors something else says: $said"
    case $said in
    *"could not be mounted"*"ulimit -n"*"ulimit -n"*) die "with $n descriptors it said a thing twice: $said" ;;
    *"could not be mounted"*"ulimit -n"*) wanted=yes ;;
    *"ulimit -n"*) ;;
    *) die "with $n descriptors it said: $said" ;;
    esac
done
own_mounts+=("$other")
equal "status with $n descriptors" "$status" 0
[ -n "$wanted" ] || die "no number of descriptors was too small for the mount itself"
fusermount3 -u "$other"

# Too little memory: refused with a sentence, or served, if by fewer threads. Never a mount that was said to
# answer and is none.
wanted=
for v in 30000 100000 300000 400000 420000 440000 460000 480000 500000 520000 540000 560000; do
    status=0
    said=$(ulimit -v "$v" && embarfs "$other" --cxl mem:16M --listen 127.0.0.1:0 2>&1) || status=$?
    if [ "$status" -eq 0 ]; then
        echo "with $v" >>"$other/t"
        content "$other/t" "with $v\n"
        fusermount3 -u "$other"
        continue
    fi
    equal "status with $v KiB (which said: $said)" "$status" 71
    case $said in
    *"--staging"*"ulimit -v"*) wanted=yes ;;
    *"ulimit -"*) ;;
    *) die "with $v KiB it said: $said" ;;
    esac
done
[ -n "$wanted" ] || die "there was memory for staging always"

# The command is told a mount where a pool is meant, and the other way round.
status_is 8 embar fsck "$mnt"
case $said in
*"is a mount of the pool $pool: unmount it"*) ;;
*) die "said: $said" ;;
esac
status_is 8 embar fsck "$pool"
case $said in
*"it is mounted at $mnt: unmount it"*) ;;
*) die "said: $said" ;;
esac

content "$mnt/t" 'kept\n'
embarfs --version | grep -q '^embarfs [0-9]' || die "--version"
embarfs --help | grep -q -- --cxl || die "--help"
