#!/usr/bin/env bash
# fsck: a pool is checked and repaired from the command line, and every mistake gets a sentence.
set -euo pipefail
# shellcheck source=tests/cmd/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

real_text "$scratch/text" 4
embar pool create "$pool" --size 64M >/dev/null
embar append "$pool" logs/text -q "$scratch/text"
embar append "$pool" other -q <<<'hello'

say "a pool without damage"
embar fsck "$pool" | grep -q 'Nothing is wrong' || die "it is not found clean"
embar fsck --json "$pool" | grep -q '"clean": true' || die "not clean in JSON"
before=$(sum_of <"$pool")
embar fsck --repair "$pool" >/dev/null
same "the pool after a repair of nothing" "$before" "$(sum_of <"$pool")"

say "a damaged message is told of, and nothing is changed"
at=$(grep -abo -m 1 -F -- "$(head -c 300 "$scratch/text" | head -n 1)" "$pool" | head -n 1 | cut -d: -f1)
[ -n "$at" ] || die "the text was not found in the pool"
printf '\001' | dd of="$pool" bs=1 seek="$((at + 5))" conv=notrunc status=none
before=$(sum_of <"$pool")
status=0
embar fsck "$pool" >"$scratch/out" || status=$?
same status 4 "$status"
grep -q '^error, payload of logs/text: Messages 0 up to' "$scratch/out" || die "the damage is not told of"
same "the pool after a check" "$before" "$(sum_of <"$pool")"

say "repaired, and clean from then on; the rest stands where it stood"
status=0
embar fsck --repair --save "$scratch/saved" "$pool" >"$scratch/out" || status=$?
same status 1 "$status"
grep -q 'All of it was repaired' "$scratch/out" || die "the repair is not told of"
find "$scratch/saved" -name index.txt -size +0 | grep -q . || die "nothing was saved"
embar fsck --json "$pool" >"$scratch/json"
grep -q '"clean": true' "$scratch/json" || die "not clean after the repair"
grep -q '"kind": "known"' "$scratch/json" || die "the known damage is not told of"
python3 - "$scratch/json" <<'EOF' || die "the JSON has another shape"
import json, sys
report = json.load(open(sys.argv[1]))
counts = "errors warnings remarks left uncounted topics directories sessions entries batches messages bytes"
assert set(report) == set(counts.split()) | {"pool", "clean", "repaired", "quick", "findings"}
for finding in report["findings"]:
    assert {"kind", "severity", "action", "repaired", "text"} <= set(finding), finding
EOF
same other hello "$(embar dump "$pool" other)"
fails 1 'damaged' embar dump "$pool" logs/text
broker_start 64M
end=$(grep -A2 '"offsets"' "$scratch/json" | sed -n 3p | tr -dc 0-9)
embar sub --from "offset:$end" logs/text >"$scratch/rest"
tail -c +"$((end + 1))" "$scratch/text" | cmp - "$scratch/rest" || die "the rest is not what it was"

say "a file that is truncated under the command ends it with a sentence"
embar pool create "$scratch/cut" --size 64M >/dev/null
head -c 8M /dev/urandom | base64 >"$scratch/long"
embar append "$scratch/cut" t -q "$scratch/long"
mkfifo "$scratch/pipe"
embar dump "$scratch/cut" t >"$scratch/pipe" 2>"$scratch/said" &
dump=$!
exec 9<"$scratch/pipe"
head -c 1 <&9 >/dev/null
truncate -s 1M "$scratch/cut"
cat <&9 >/dev/null
exec 9<&-
status=0
wait "$dump" || status=$?
same status 1 "$status"
grep -q 'cannot be read at byte' "$scratch/said" || die "the fault is not told of: $(cat "$scratch/said")"

say "mistakes"
fails 8 'held by' embar fsck "$pool"
fails 8 'held by' embar fsck --repair "$pool"
broker_stop
fails 8 'there is no pool' embar fsck "$scratch/absent"
[ ! -e "$scratch/absent" ] || die "fsck made a pool"
fails 8 'directory' embar fsck "$scratch"
: >"$scratch/void"
fails 8 'empty file.*embar pool create' embar fsck "$scratch/void"
cp "$pool" "$scratch/short"
truncate -s 40M "$scratch/short"
fails 8 'truncate -s 67108864' embar fsck "$scratch/short"
printf 'not a pool' >"$scratch/tiny"
fails 8 'is not a pool' embar fsck "$scratch/tiny"
head -c 8388608 /dev/urandom >"$scratch/foreign"
fails 8 'not an embarfs pool' embar fsck --repair "$scratch/foreign"
truncate -s 8M "$scratch/blank"
fails 8 'blank' embar fsck "$scratch/blank"
fails 8 'dax device' embar fsck /dev/null
fails 8 '' embar fsck /dev/dax99.0
fails 8 'memory' embar fsck mem:64M
fails 16 '' embar fsck --bogus "$pool"
fails 16 'save goes with' embar fsck --save /tmp "$pool"
fails 16 'one pool' embar fsck "$pool" "$pool"
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$scratch"
    chmod 600 "$pool"
    fails 8 'ermission' setpriv --reuid 65534 --regid 65534 --clear-groups "$EMBAR_BIN_DIR/embar" fsck "$pool"
    chmod 644 "$pool"
    fails 8 'ermission' setpriv --reuid 65534 --regid 65534 --clear-groups "$EMBAR_BIN_DIR/embar" fsck --repair "$pool"
fi
