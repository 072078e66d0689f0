#!/usr/bin/env bash
# A corpus as the tree keeps it, a line of hexadecimal digits for each input, and as libFuzzer wants it,
# a file for each.
#
#   tests/fuzz/corpus.sh unpack FILE DIRECTORY
#   tests/fuzz/corpus.sh pack DIRECTORY FILE
set -euo pipefail

case ${1:-} in
unpack)
    mkdir -p "$3"
    n=0
    while read -r line; do
        n=$((n + 1))
        # shellcheck disable=SC2001,SC2059
        printf "$(sed 's/../\\x&/g' <<<"$line")" >"$3/$(printf '%04d' "$n")"
    done <"$2"
    ;;
pack)
    for input in "$2"/*; do
        od -An -v -tx1 "$input" | tr -d ' \n'
        echo
    done | LC_ALL=C sort -u >"$3"
    ;;
*)
    printf 'usage: %s unpack FILE DIRECTORY | pack DIRECTORY FILE\n' "$0" >&2
    exit 2
    ;;
esac
