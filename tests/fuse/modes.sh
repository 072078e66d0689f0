#!/usr/bin/env bash
# Modes, owners and umask mean what they mean anywhere, for other users too, and last.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
mount_pool
no='Permission denied'

(umask 027 && touch "$mnt/t" && mkdir "$mnt/d")
equal modes "$(stat -c %a "$mnt/t" "$mnt/d" | tr '\n' ' ')" "640 750 "
echo secret >>"$mnt/t"
refuses "$no" as_nobody cat "$mnt/t"
refuses "$no" as_nobody tee -a "$mnt/t" <<<x
refuses "$no" as_nobody touch "$mnt/d/u" "$mnt/u"
refuses "$no" as_nobody setfattr -n user.embar.trim -v 7 "$mnt/t"
chmod 644 "$mnt/t"
as_nobody cat "$mnt/t" | cmp - <(echo secret)
refuses "$no" as_nobody tee -a "$mnt/t" <<<x
refuses 'Operation not permitted' as_nobody chmod 666 "$mnt/t"
chmod 666 "$mnt/t"
as_nobody tee -a "$mnt/t" <<<x >"$scratch/out"
content "$mnt/t" 'secret\nx\n'

chown 65534:65534 "$mnt/d"
(umask 077 && as_nobody tee -a "$mnt/d/m" <<<mine >"$scratch/out")
as_nobody mkdir "$mnt/d/e"
as_nobody mv "$mnt/d/m" "$mnt/d/e/m"
equal owner "$(stat -c %u:%g:%a "$mnt/d/e/m")" 65534:65534:600
as_nobody rm "$mnt/d/e/m"
# Sticky: in a common directory only the owner removes.
chmod 1777 "$mnt/d"
touch "$mnt/d/roots"
as_nobody touch "$mnt/d/nobodys"
chown 12:12 "$mnt/d"
refuses 'Operation not permitted' as_nobody rm -f "$mnt/d/roots"
as_nobody rm "$mnt/d/nobodys"
# The directory's group goes down where it says so.
chown 0:12 "$mnt/d" && chmod 2775 "$mnt/d"
mkdir "$mnt/d/sub" && touch "$mnt/d/sub/t"
equal group "$(stat -c %g:%a "$mnt/d/sub")" 12:2755
equal group "$(stat -c %g "$mnt/d/sub/t")" 12

touch -d '2001-02-03 04:05:06 UTC' "$mnt/d/sub/t"
equal mtime "$(stat -c %Y "$mnt/d/sub/t")" 981173106
before=$(stat -c '%a %u %g' "$mnt/t" "$mnt/d")
unmount_pool
mount_pool
equal "after a remount" "$(stat -c '%a %u %g' "$mnt/t" "$mnt/d")" "$before"
