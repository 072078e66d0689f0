#!/usr/bin/env bash
# Facts and settings of a topic are user.embar.*: settings last, facts cannot be set.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
mount_pool

printf 'a\nbb\nccc\n' >>"$mnt/t"
# These names, and no others.
getfattr --absolute-names -m - "$mnt/t" | grep -v '^#' | grep . | sort >"$scratch/names"
printf 'user.embar.%s\n' ack base end first_message first_offset id last_commit messages \
    next_message order retention_age retention_bytes when_full |
    cmp - "$scratch/names" || die "the names are $(cat "$scratch/names")"
equal base "$(xattr base "$mnt/t")" 0
equal end "$(xattr end "$mnt/t")" 9
equal messages "$(xattr messages "$mnt/t")" 3
equal first "$(xattr first_message "$mnt/t")" 0
equal next "$(xattr next_message "$mnt/t")" 3
equal order "$(xattr order "$mnt/t")" 5
equal last_commit "$(($(xattr last_commit "$mnt/t") / 1000000000))" "$(stat -c %Y "$mnt/t")"
last=$(xattr last_commit "$mnt/t")
touch -d 2001-02-03 "$mnt/t"
equal "last commit, touched" "$(xattr last_commit "$mnt/t")" "$last"
trim "$mnt/t" 2
equal first "$(xattr first_message "$mnt/t")" 1
equal "first offset" "$(xattr first_offset "$mnt/t")" 2
equal messages "$(xattr messages "$mnt/t")" 2
equal next "$(xattr next_message "$mnt/t")" 3
equal end "$(xattr end "$mnt/t")" 9

set_to() {
    setfattr -n "user.embar.$1" -v "$2" "$mnt/t"
}
set_to retention_bytes 10M
equal retention_bytes "$(xattr retention_bytes "$mnt/t")" 10485760
set_to retention_age 2h
equal retention_age "$(xattr retention_age "$mnt/t")" 7200
set_to when_full trim
equal when_full "$(xattr when_full "$mnt/t")" trim
for bad in 'retention_bytes -1' 'retention_bytes many' 'retention_age 1y' 'order 7' 'order x' \
    'when_full never' 'trim -1'; do
    read -r name value <<<"$bad"
    refuses 'Invalid argument' set_to "$name" "$value"
done
for fact in base first_offset end messages first_message next_message id last_commit; do
    refuses 'Operation not permitted' set_to "$fact" 1
done
refuses 'Operation not supported' setfattr -n user.mine -v x "$mnt/t"
# Labels and access lists: there are none of their kind, which programs remember.
refuses 'Operation not supported' getfattr --only-values -n security.selinux "$mnt/t"
refuses 'Operation not supported' getfattr --only-values -n system.posix_acl_access "$mnt/t"
refuses 'Operation not permitted' setfattr -x user.embar.base "$mnt/t"
refuses 'No such attribute' getfattr --only-values -n user.embar.none "$mnt/t"
refuses 'No such attribute' getfattr --only-values -n user.embar.trim "$mnt/t"
equal "of a directory" "$(getfattr -d "$mnt" 2>&1)" ""

# A copy with its attributes has the settings, and all of the content.
head -c 2000 /dev/zero | tr '\0' '\n' >>"$mnt/t"
trim "$mnt/t" 1000
cp -a "$mnt/t" "$mnt/copy"
cmp "$mnt/t" "$mnt/copy"
equal "copied setting" "$(xattr retention_age "$mnt/copy")" 7200
cp -a "$mnt/t" "$scratch/copy"
cmp "$mnt/t" "$scratch/copy"
mv "$scratch/copy" "$mnt/moved"
cmp "$mnt/t" "$mnt/moved"

unmount_pool
mount_pool
equal retention "$(xattr retention_bytes "$mnt/t") $(xattr retention_age "$mnt/t") $(xattr when_full "$mnt/t")" "10485760 7200 trim"
setfattr -x user.embar.retention_bytes "$mnt/t"
equal retention_bytes "$(xattr retention_bytes "$mnt/t")" 0

# Order and ack are the publishers', unless they ask otherwise. What the daemon cannot give is refused.
refuses 'Operation not supported' set_to ack 2
for bad in 'ack 3' 'ack x' 'order 1'; do
    read -r name value <<<"$bad"
    refuses 'Invalid argument' set_to "$name" "$value"
done
equal "order, ack" "$(xattr order "$mnt/t") $(xattr ack "$mnt/t")" "5 1"
set_to ack 0
set_to order 2
equal "order, ack" "$(xattr order "$mnt/t") $(xattr ack "$mnt/t")" "2 0"
before=$(xattr end "$mnt/t")
echo sent | embar -s "$mnt" pub t 2>"$scratch/err"
grep -q 'MB/s sent$' "$scratch/err" || die "pub said: $(cat "$scratch/err")"
echo acked | embar -s "$mnt" pub t --ack 1 --order 2 2>"$scratch/err"
grep -q 'MB/s acked$' "$scratch/err" || die "pub said: $(cat "$scratch/err")"
refuses 'has another order' embar -s "$mnt" pub t --order 5 </dev/null
both_are_there() {
    [ "$(xattr end "$mnt/t")" -eq $((before + 11)) ]
}
wait_until 60 both_are_there || die "the topic ends at $(xattr end "$mnt/t"), not at $((before + 11))"
