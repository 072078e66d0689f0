#!/usr/bin/env bash
# An install is whole: programs, library, header, pkg-config file, man pages, unit file; and a
# program compiles and links against nothing but what was installed.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

build=${EMBAR_BUILD_DIR:-$top/build/release}
dest=$scratch/dest
DESTDIR=$dest cmake --install "$build" --prefix /usr >"$scratch/install.log" 2>&1 ||
    { cat "$scratch/install.log" >&2; die "cmake --install failed"; }

# installed PATTERN: exactly one such file.
installed() {
    local found
    found=$(cd "$dest" && find . -path "./$1")
    [ "$(printf '%s\n' "$found" | grep -c .)" -eq 1 ] || die "$1: not installed once: ${found:-nowhere}"
    say "  ${found#.}"
}

installed usr/bin/embar
installed usr/bin/embarfs
installed 'usr/lib*/libembar.a'
installed usr/include/embar/embar.h
installed usr/include/embar/error.h
installed 'usr/lib*/pkgconfig/libembar.pc'
installed usr/share/man/man1/embar.1
installed usr/share/man/man8/embarfs.8
installed 'usr/lib/systemd/system/embarfs@.service'
installed usr/sbin/mount.fuse.embarfs

"$dest/usr/bin/embar" --version
"$dest/usr/bin/embarfs" --version

pc=$(dirname "$(find "$dest" -name libembar.pc)")
read -r -a flags < <(PKG_CONFIG_PATH=$pc PKG_CONFIG_SYSROOT_DIR=$dest pkg-config --cflags --libs --static libembar)
for example in publish subscribe; do
    cc -Wall -Wextra -o "$scratch/$example" "$top/examples/$example.c" "${flags[@]}" ||
        die "examples/$example.c does not build against the install: ${flags[*]}"
done
if find "$dest" -type f -exec grep -lF "$top" {} + | grep -v '/bin/' | grep .; then
    die "the files above name the build machine's folder"
fi
say "the install is whole"
