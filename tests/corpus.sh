# shellcheck shell=bash
# Real text from this machine, for whoever needs input that no generator made: package metadata,
# documentation, headers, manuals, program listings. Source it after functions.sh.

# read_apart FILE...: as text, whatever packed it; an unreadable one is passed over.
read_apart() {
    local file
    for file in "$@"; do
        case $file in
        *.gz) zcat "$file" 2>/dev/null || true ;;
        *.lz4 | *.xz) /usr/lib/apt/apt-helper cat-file "$file" 2>/dev/null || true ;;
        *) cat "$file" 2>/dev/null || true ;;
        esac
    done
}

# Each source is one function's worth of files; they are taken in this order until there is enough.
corpus_source() {
    case $1 in
    'package database') find /var/lib/dpkg -maxdepth 1 -name status -o -path '*/info/*.md5sums' ;;
    'package lists') find /var/lib/apt/lists -maxdepth 1 -type f -name '*_Packages*' ;;
    'documentation') find /usr/share/doc -type f ;;
    'headers') find /usr/include /usr/lib/gcc -type f -name '*.h' ;;
    'manuals') find /usr/share/man -type f ;;
    'scripts and modules') find /usr/share/perl /usr/share/perl5 /usr/lib/python3* /usr/share/cmake* \
        -type f \( -name '*.pm' -o -name '*.pl' -o -name '*.py' -o -name '*.cmake' -o -name '*.rst' \) ;;
    esac 2>/dev/null | sort || true # a folder that is not there is no fault
}

# make_corpus FILE BYTES: at least so many bytes of text, no NUL in it, every line ended; says on
# stdout what it is made of. When the files do not suffice, disassembled programs fill up: real text
# too, and every compiler brings some.
make_corpus() {
    local file=$1 want=$2 source before after
    local sources=('package database' 'package lists' documentation headers manuals
        'scripts and modules')
    : >"$file"
    for source in "${sources[@]}"; do
        before=$(stat -c %s "$file")
        [ "$before" -lt "$want" ] || break
        corpus_source "$source" | tr '\n' '\0' | xargs -0 -r -n 500 bash -c "
            $(declare -f read_apart)"'
            read_apart "$@"' read_apart | tr -d '\000' | head_bytes $((want - before)) >>"$file"
        end_line "$file"
        after=$(stat -c %s "$file")
        [ "$after" -eq "$before" ] || say "  $(((after - before) / 1000000)) MB $source"
    done
    for source in /usr/lib/gcc/*/*/cc1 /usr/bin/cmake /usr/bin/perl.* /usr/bin/bash /bin/bash; do
        before=$(stat -c %s "$file")
        [ "$before" -lt "$want" ] || break
        if [ ! -f "$source" ] || ! command -v objdump >/dev/null; then
            continue
        fi
        { objdump -d "$source" 2>/dev/null || true; } | head_bytes $((want - before)) >>"$file"
        end_line "$file"
        after=$(stat -c %s "$file")
        say "  $(((after - before) / 1000000)) MB objdump -d $source"
    done
    [ "$(stat -c %s "$file")" -ge "$want" ] ||
        die "found only $(stat -c %s "$file") bytes of text on this machine, $want wanted"
}

# head_bytes N: the first N bytes and the rest of the line there; reads all of its input, so that
# nobody who writes to it sees a broken pipe.
head_bytes() {
    awk -v left="$1" 'left > 0 { print; left -= length($0) + 1 }'
}

# end_line FILE: add the newline that the last line may lack.
end_line() {
    if [ -s "$1" ] && [ -n "$(tail -c 1 "$1" | tr '\n' ' ' | tr -d ' ')" ]; then
        echo >>"$1"
    fi
}

# tagged_part FILE TAG N PARTS: the N-th of so many parts of a text, each line beginning with a tag
# and its number in that part: no two lines of a test are equal, so none can be lost or doubled
# unseen.
tagged_part() {
    split -n "l/$3/$4" "$1" | awk -v tag="$2" '{ print tag, NR, $0 }'
}

# trickle FILE PIECE PAUSE STOP: the file to stdout, a piece and a pause in turn; once the file STOP
# exists the rest goes out at once.
trickle() {
    local size at
    size=$(stat -c %s "$1")
    exec 3<"$1"
    for ((at = 0; at < size; at += $2)); do
        head -c "$2" <&3
        if [ -e "$4" ]; then
            cat <&3
            break
        fi
        sleep "$3"
    done
    exec 3<&-
}
