#!/usr/bin/env bash
# Both README commands on a bare Debian 12: a fresh debootstrap chroot, a fresh clone of this tree's
# last commit, nothing else. Needs root and a network; takes minutes; not one of the tests of
# tests/run, which it calls.
#
#   tests/bare_chroot.sh [FOLDER]    where the chroot goes (default: a private one, removed after)
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

[ "$(id -u)" -eq 0 ] || die "needs root"
# The mounts live in a namespace of their own: they are gone with it, whatever happens.
if [ -z "${EMBAR_BARE_NAMESPACE:-}" ]; then
    EMBAR_BARE_NAMESPACE=1 unshare --mount --propagation private "$0" "$@"
    exit
fi
for need in debootstrap git; do
    command -v "$need" >/dev/null || apt_get install -y --no-install-recommends "$need" >/dev/null
done

root=${1:-$scratch/root}
if [ ! -e "$root/etc/debian_version" ]; then
    say "debootstrap"
    # shellcheck disable=SC2016 # apt's own placeholder
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' |
        sed -n 1p)
    debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"} >"$scratch/debootstrap.log" ||
        { tail -n 20 "$scratch/debootstrap.log" >&2; die "debootstrap failed"; }
fi
# The chroot reaches the packages the way this machine does.
rm -rf "$root/etc/apt"
cp -a /etc/apt "$root/etc/apt"
cp -a /usr/share/keyrings/. "$root/usr/share/keyrings/"
[ ! -d /etc/ssl/certs ] || { mkdir -p "$root/etc/ssl" && cp -aL /etc/ssl/certs "$root/etc/ssl/"; }
cp /etc/hosts /etc/resolv.conf "$root/etc/" 2>/dev/null || true
# A mount point of its own, so that tests can have mount namespaces in it.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# Both a container and an installed machine have it; debootstrap alone leaves it out.
ln -sfn ../proc/self/mounts "$root/etc/mtab"
rm -rf "$root/src"
git clone -q "$top" "$root/src"

for command in examples/quickstart/run tests/run; do
    say "== $command, in the chroot"
    chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb CI=true \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" no_proxy="${no_proxy:-}" \
        bash -c "cd /src && $command" </dev/null
done
umount "$root/proc" "$root/sys" "$root"
say "both commands pass on a bare Debian $(cat "$root/etc/debian_version")"
