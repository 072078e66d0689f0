#!/usr/bin/env bash
# Who may do what, asked twice: an ordinary user tries each thing through the mount and over the
# daemon's socket, and is let or not let do it alike.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
chmod 0711 "$scratch"
install -m 0755 -D "$(command -v embar)" "$scratch/bin/embar" # the build folder may be closed
mount_pool
chmod 0666 "$scratch/socket"
embar=("$scratch/bin/embar")
server=(-s "$scratch/socket")

# A fresh set for each side: root's things that a user meets, and the user's own.
make() {
    mkdir -m 0777 "$1" && cd "$1" && mkdir -m 1777 sticky && mkdir -m 0755 roots && mkdir -m 0700 closed &&
        mkdir -m 0311 blind && mkdir -m 0777 open && mkdir -m 2777 group && mkdir -m 0755 open/rootdir &&
        mkdir -m 0777 open/dir
    for name in closed/t roots/t blind/t sticky/t open/t; do echo x >>$name && chmod 644 $name; done
    echo x >>secret && chmod 600 secret
    echo x >>dropbox && chmod 622 dropbox
    echo x >>all && chmod 666 all
    chown :12 group
    as_nobody touch sticky/own open/own
    as_nobody mkdir open/owndir
    cd /
}
make "$mnt/mount"
make "$mnt/net"

# try YES|NO 'MOUNT COMMAND' EMBAR-ARGUMENT...: the one in mount, the other in net/.
try() {
    local wanted=$1 by_mount=no by_net=no
    cd "$mnt/mount"
    as_nobody sh -c "$2" >"$scratch/out" 2>&1 </dev/null && by_mount=yes
    cd /
    shift 2
    as_nobody "${embar[@]}" "$1" "${server[@]}" "${@:2}" >"$scratch/out2" 2>&1 <<<line && by_net=yes
    equal "by the mount: $*: $(cat "$scratch/out")" "$by_mount" "$wanted"
    equal "over the socket: $*: $(cat "$scratch/out2")" "$by_net" "$wanted"
}
# Publishing and reading.
try no 'echo line >>roots/t' pub net/roots/t
try no 'echo line >>secret' pub net/secret
try yes 'echo line >>dropbox' pub net/dropbox
try yes 'echo line >>all' pub net/all
try no 'echo line >>closed/t' pub net/closed/t
try no 'echo line >>roots/new' pub net/roots/new
try yes 'echo line >>open/new' pub net/open/new
try yes 'cat roots/t' sub net/roots/t
try no 'cat secret' sub net/secret
try no 'cat dropbox' sub net/dropbox
try no 'cat closed/t' sub net/closed/t
try yes 'cat blind/t' sub net/blind/t
try no 'ls blind' topics net/blind
try no 'ls closed' topics net/closed
try yes 'ls roots' topics net/roots
# Names.
try no 'mkdir roots/d' mkdir net/roots/d
try yes 'mkdir open/d' mkdir net/open/d
try yes 'mkdir group/d' mkdir net/group/d
try no 'rm -f roots/t' rm net/roots/t
try no 'mv roots/t open/moved' mv net/roots/t net/open/moved
try no 'mv open/own roots/own' mv net/open/own net/roots/own
try yes 'mv open/own open/own2' mv net/open/own net/open/own2
try yes 'mv open/t open/t2' mv net/open/t net/open/t2
try yes 'rm -f open/t2' rm net/open/t2
try no 'rm -f sticky/t' rm net/sticky/t
try no 'mv sticky/t open/t' mv net/sticky/t net/open/t
try yes 'mv sticky/own sticky/own2' mv net/sticky/own net/sticky/own2
try yes 'rm -f sticky/own2' rm net/sticky/own2
try no 'mv open/rootdir open/dir/x' mv net/open/rootdir net/open/dir/x
try yes 'mv open/rootdir open/rootdir2' mv net/open/rootdir net/open/rootdir2
try yes 'mv open/owndir open/dir/x' mv net/open/owndir net/open/dir/x
# Trims.
try no 'setfattr -n user.embar.trim -v 1 roots/t' trim -b latest net/roots/t
try yes 'setfattr -n user.embar.trim -v 1 all' trim -b latest net/all

left() {
    (cd "$mnt/$1" && find . -printf '%P %y %m %U %G\n' | sort)
}
left mount | sed 's/^\(group.d d\) .*/\1/' >"$scratch/a"
left net | sed 's/^\(group.d d\) .*/\1/' | diff "$scratch/a" - || die "what is left differs"
equal "group handed down" "$(stat -c %g "$mnt/mount/group/d" "$mnt/net/group/d" | sort -u)" 12
