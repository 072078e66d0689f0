#!/usr/bin/env bash
# Editors of what is append-only fail, say so, change nothing and leave nothing behind: vim, nano, and
# sed -i, which would rename its copy over what was appended since. The twin: they write new files.
# shellcheck source=tests/fuse/lib.sh
. "$(dirname "$0")/lib.sh"
unpacked vim.tiny vim-tiny vim-common nano
vim=$unpacked
unpacked nano vim-tiny vim-common nano
nano=$unpacked
mount_pool
cd "$mnt"
export TERM=xterm HOME=$scratch

seq 1 100 >>t
seq 1 100 >"$scratch/t"
number=$(xattr id t)
unchanged() {
    cmp t "$scratch/t" || die "after $1"
    equal "id after $1" "$(xattr id t)" "$number"
    equal "files after $1" "$(ls -A)" t
}
refuses 'Operation not permitted' sed -i 's/5/five/' t
unchanged 'sed -i'
for way in auto yes no; do
    status_is 1 "$vim" -n -u NONE -i NONE -es -c "set backupcopy=$way" -c '%s/5/five/' -c w -c 'q!' t
    unchanged "vim, backupcopy=$way"
done
cat >"$scratch/type.py" <<'PY'
"""type.py COMMAND... : runs it on a terminal, types X, saves, and leaves without saving."""
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
end, seen = time.time() + 120, b''
def until(text):
    global seen
    while text not in seen:
        if time.time() > end or not select.select([fd], [], [], 1)[0] and time.time() > end:
            sys.exit('%r did not come in %r' % (text, seen[-300:]))
        seen += os.read(fd, 4096)
    seen = b''
until(b'Read 100 lines'); os.write(fd, b'X\x0f')
until(b'File Name to Write'); os.write(fd, b'\r')
until(b'Error writing'); os.write(fd, b'\x18')
until(b'Save modified'); os.write(fd, b'n')
try:
    while os.read(fd, 4096): pass
except OSError: pass  # the terminal is gone: it ended
os.waitpid(pid, 0)
PY
python3 "$scratch/type.py" "$nano" -I t
unchanged nano

for new in new "$scratch/new"; do
    "$vim" -n -u NONE -i NONE -es -c "r $scratch/t" -c '%s/5/five/' -c w -c 'q!' "$new"
done
cmp new "$scratch/new"
sed 's/5/five/' t >copy
sed 's/5/five/' "$scratch/t" | cmp - copy
