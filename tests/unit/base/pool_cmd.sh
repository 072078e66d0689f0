#!/usr/bin/env bash
# `embar pool create` and `show`: what they make, and that each refusal is one sentence, an exit
# status of 1 and no byte changed.
set -euo pipefail
# shellcheck source=tests/functions.sh
. "$EMBAR_SOURCE_DIR/tests/functions.sh"
use_build "$EMBAR_BIN_DIR"
cd "$scratch"
export XDG_STATE_HOME=$scratch/state

# refused WORDS COMMAND...: status 1, one sentence on stderr with the words in it, nothing else.
refused() {
    local words=$1 status=0
    shift
    "$@" >out 2>err || status=$?
    [ "$status" -eq 1 ] || die "$*: exit status $status, not 1"
    [ ! -s out ] || die "$*: wrote to standard output"
    [ "$(wc -l <err)" -eq 1 ] || die "$*: not one line: $(cat err)"
    grep -qF -- "$words" err || die "$*: \"$words\" is not in: $(cat err)"
    grep -q '\.$' err || die "$*: not a sentence: $(cat err)"
}

# shows WORDS [POOL]: and all of it is read, or the pipe would end embar early.
shows() {
    local words=$1
    shift
    embar pool show "$@" >out || die "embar pool show $*: failed"
    grep -qF -- "$words" out || die "embar pool show $*: \"$words\" is not in: $(cat out)"
}

unchanged() {
    sha256sum --quiet -c sums || die "a file was changed"
}

embar pool create new --size 64M
shows '64.0 MiB' new
embar pool show new --json >facts
version=$(sed -n 's/^#define MEDIA_VERSION *\([0-9]*\)u.*/\1/p' "$top/core/media.h")
next=$((version + 1))
python3 - "$version" <<'PYTHON' || die "show --json is not what was made"
import json, sys
facts = json.load(open('facts'))
assert facts['size'] == 64 << 20 and facts['durability'] == 'process' and facts['version'] == int(sys.argv[1])
assert len(facts['slots']) == facts['geometry']['slots'] == 8
assert all(s['state'] == 'never used' and not s['held'] for s in facts['slots'])
PYTHON
[ "$(stat -c '%a %s' new)" = "600 67108864" ] || die "mode or size: $(stat -c '%a %s' new)"

embar pool create own --size 16M --slots 3 --producers 2 --descriptors 8 --index-entries 64 \
    --block 8K --regions 5
shows '3 slots, each with 2 pending rings of 8 and an index ring of 64; 5 regions' own

embar pool create --size 8M # the default pool
[ -f state/embar/pool ] || die "the default pool is not in the state directory"
shows "$scratch/state/embar/pool"

head -c 6M /dev/urandom >foreign
cp new newer
for at in 8 4104; do # of both superblocks
    printf '%b' "\\0$(printf %o "$next")" | dd of=newer bs=1 seek="$at" conv=notrunc status=none
done
cp new short && truncate -s 40M short
cp new odd && truncate -s 40000001 odd
: >void
cp new damaged
head -c 64 /dev/urandom | dd of=damaged bs=1 seek=64 conv=notrunc status=none
head -c 64 /dev/urandom | dd of=damaged bs=1 seek=4160 conv=notrunc status=none
printf 'words' >words
head -c 8M /dev/zero >late # zeros like a disk image's beginning, and then a word
printf 'end' | dd of=late bs=1 seek=5000000 conv=notrunc status=none
sha256sum new own foreign newer short damaged words late state/embar/pool >sums
refused 'already' embar pool create new
refused 'leave --size out' embar pool create new --size 65M
refused 'not an embarfs pool' embar pool create foreign
refused 'not an embarfs pool' embar pool show foreign
refused 'not an embarfs pool' embar pool create late
refused "version $next" embar pool show newer
refused "version $next" embar pool create newer
refused 'truncate -s 67108864' embar pool show short
refused 'truncate -s 67108864' embar pool show odd
refused 'embar pool create --size' embar pool show void
(ulimit -f 1024 && refused 'ulimit -f' embar pool create none --size 64M)
refused 'damaged' embar pool show damaged
refused 'too small' embar pool show words
refused 'no pool' embar pool show none
refused 'give --size' embar pool create none
refused 'too small' embar pool create none --size 1M
refused 'smaller size' embar pool create none --size 1000T
refused 'no such file or directory' embar pool create none/none --size 64M
refused 'directory' embar pool create . --size 64M
refused 'gone when this command ends' embar pool create mem:8M
refused 'slots (1 to 64)' embar pool create none --size 16M --slots 65
refused 'two extents' embar pool create none --size 4M --slots 64 --producers 64
refused 'dax' embar pool create /dev/null
refused 'there is no device' embar pool show /dev/dax77.7
[ ! -e none ] || die "a refused create left a file"
unchanged

# One damaged superblock is no loss.
cp new half
head -c 256 /dev/urandom | dd of=half bs=1 conv=notrunc status=none
embar pool show half --json >half.json
cmp <(grep uuid facts) <(grep uuid half.json) || die "the copy of the superblock was not used"

# What cannot be read on the line is usage.
for line in 'create x --size 8MB' 'create x --size -1' 'create x --flush magic' \
    'create x --durability lunch' 'create x --slots none' 'create x --block 5K' 'what' '' \
    'show a b'; do
    status=0
    # shellcheck disable=SC2086
    embar pool $line >out 2>err || status=$?
    [ "$status" -eq 2 ] || die "embar pool $line: exit status $status, not 2"
    [ -s err ] || die "embar pool $line: says nothing"
done
