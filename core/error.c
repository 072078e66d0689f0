/* Codes to sentences and to errnos: the one place that words what went wrong. Serves every step;
 * must never allocate, and holds no state.
 */
#include "embar/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/plain.h"

struct sentence {
    int number; /* errno that a filesystem call answers with */
    const char *text;
};

#define FIRST EMBAR_ENOTPOOL
#define LAST  EMBAR_ETAKEN

/* Indexed by code - FIRST. Each says the cause, then the remedy. */
static const struct sentence ours[LAST - FIRST + 1] = {
    [EMBAR_ENOTPOOL - FIRST] = {EINVAL,
                                "this is not an embarfs pool, and it is not empty either; nothing "
                                "was changed; check the path, or make a pool elsewhere with "
                                "`embar pool create`."},
    [EMBAR_EVERSION - FIRST] = {EPROTONOSUPPORT,
                                "the other side's format or protocol version is not the one this "
                                "program speaks; use the embarfs release that wrote it, or upgrade "
                                "the older side."},
    [EMBAR_EFEATURE - FIRST] = {EOPNOTSUPP,
                                "the pool uses a feature that this program does not know; open it "
                                "with a newer embarfs."},
    [EMBAR_ECORRUPT - FIRST] = {EIO,
                                "stored data fails its checksum or points outside of its bounds; "
                                "it is damaged: `embar fsck` tells what is hit and repairs the "
                                "rest, or restore it from a replica or a copy of the pool."},
    [EMBAR_ETOOSMALL - FIRST] = {EINVAL,
                                 "that is too small for a pool; give at least 4 MiB, or fewer "
                                 "slots and smaller rings."},
    [EMBAR_ESIZE - FIRST] = {EINVAL,
                             "the size asked for is not the size of what is there; leave the size "
                             "out, or make a new pool of the size wanted."},
    [EMBAR_EBUSY - FIRST] = {EBUSY,
                             "another process holds it; unmount or stop that one first, or open it "
                             "for reading only."},
    [EMBAR_EFULL - FIRST] = {ENOSPC,
                             "the pool is full; trim or remove topics, set a retention, or wait "
                             "until space is freed."},
    [EMBAR_ETOOBIG - FIRST] = {EMSGSIZE,
                               "the batch or message is larger than this pool takes; send smaller "
                               "batches."},
    [EMBAR_ENAME - FIRST] = {EINVAL,
                             "that is not a valid topic name; use components of 1 to 255 bytes of "
                             "UTF-8 without control characters, not `.` or `..`, separated by `/`, "
                             "1,024 bytes in all."},
    [EMBAR_ERESERVED - FIRST] = {EPERM,
                                 "the name .embar at the root is reserved for the filesystem "
                                 "itself; choose another name."},
    [EMBAR_ETRIMMED - FIRST] = {ENODATA,
                                "that part of the topic was trimmed away; read from the oldest "
                                "retained offset on."},
    [EMBAR_EGONE - FIRST] = {ESTALE,
                             "the topic was deleted; open it again by name if a new one has "
                             "taken its place."},
    [EMBAR_ESESSION - FIRST] = {EINVAL,
                                "that publisher session is not known (any more); find out what was "
                                "committed and open a new one."},
    [EMBAR_EFENCED - FIRST] = {ESTALE,
                               "the publisher session was fenced because a batch of it never came; "
                               "open it again and resubmit what lies above the committed mark."},
    [EMBAR_EORDER - FIRST] = {EINVAL,
                              "the topic has another order than the publisher expects; expect the "
                              "topic's order, or change the topic."},
    [EMBAR_EACK - FIRST] = {EOPNOTSUPP,
                            "that ack level cannot be given here; ack 2 needs a broker with a "
                            "replica: use ack 1."},
    [EMBAR_EPROTO - FIRST] = {EPROTO,
                              "the other side sent bytes that make no sense in the protocol; check "
                              "that the address is that of an embarfs broker."},
    [EMBAR_ECRC - FIRST] = {EIO,
                            "the payload does not match its checksum: it was damaged on its way or "
                            "in memory; send or read it again."},
    [EMBAR_EAUTH - FIRST] = {EACCES,
                             "the broker does not accept who asks; check the token file of the "
                             "mount (.embar/token) and the owner of the topic or session."},
    [EMBAR_ELIMIT - FIRST] = {ENOSPC,
                              "a bounded table of the broker (sessions, topics or connections) is "
                              "full; close or remove some, or raise its limit."},
    [EMBAR_EINCARNATION - FIRST] = {ESTALE,
                                    "the pool was restored from a replica since, so positions from "
                                    "before are void; look up the position again and go on from "
                                    "there."},
    [EMBAR_EFAULTED - FIRST] = {EIO, "the pool's device or file failed while in use and the broker "
                                     "stopped trusting it; check the system log, then restart the "
                                     "broker."},
    [EMBAR_ESHUTDOWN -
        FIRST] = {ESHUTDOWN, "the broker is stopping; connect again when it is back."},
    [EMBAR_ESPEC - FIRST] = {EINVAL,
                             "that argument cannot be read; pools are /dev/daxX.Y, a file path, "
                             "mem:SIZE or node:N[:SIZE], sizes are like 4096, 64M or 2GiB, and "
                             "addresses are HOST:PORT or a socket path."},
    [EMBAR_ENOSERVER - FIRST] = {ECONNREFUSED,
                                 "no broker was found to talk to; mount one with `embarfs "
                                 "MOUNTPOINT`, or name one with --server or EMBAR_SERVER."},
    [EMBAR_EINVALID - FIRST] = {EINVAL,
                                "an argument or field lies outside of its bounds; see the manual "
                                "for what it may be."},
    [EMBAR_ETAKEN - FIRST] = {ESTALE,
                              "another process has resumed this session; what was not acknowledged "
                              "here may be missing: give each publisher a session of its own."},
};

/* What the system refuses most often; everything else is worded by the C library. */
static const struct sentence system_table[] = {
    {0, "no error."},
    {EPERM, "the system does not permit it; run it as the owner, or as root."},
    {ENOENT, "no such file or directory; check the path."},
    {EIO, "the device reported an I/O error; check the system log."},
    {ENXIO, "no driver answers for the device; check that its module is loaded and bound."},
    {ENOMEM,
     "not enough memory; use a smaller size, stop other programs, or raise the limit (ulimit "
     "-v)."},
    {EAGAIN,
     "the system gives no more of them now; stop other programs, or raise the limits (ulimit "
     "-u for threads, ulimit -v for memory)."},
    {EACCES, "permission denied; check the owner and mode of the path, or run it as its owner."},
    {EBUSY, "it is in use by another process; stop that one first."},
    {EEXIST, "it exists already; choose another name, or use what is there."},
    {ENODEV, "no such device; check that it exists and its module is loaded."},
    {ENOTDIR, "a part of the path is a file, not a directory; check the path."},
    {EISDIR, "it is a directory; name a file in it."},
    {EINVAL, "the system rejects an argument; check its value."},
    {EMFILE, "too many open files; raise the limit (ulimit -n)."},
    {ENFILE, "the system has too many open files; close some, or raise fs.file-max."},
    {ENOSPC, "no space left on the device; free some, or use a smaller size."},
    {EDQUOT, "the disk quota is used up; free some space, or use a smaller size."},
    {EFBIG,
     "the file would be larger than its filesystem or the limit of this process allows; use a "
     "smaller size, or raise the limit (ulimit -f)."},
    {EROFS, "the filesystem is read-only; remount it writable or use another path."},
    {EPIPE, "the other side closed the connection; connect again."},
    {ENAMETOOLONG, "the name is too long; use a shorter one."},
    {ENOTEMPTY, "the directory is not empty; remove what is in it first."},
    {EADDRINUSE, "the address is in use; stop who listens there, or choose another port."},
    {EADDRNOTAVAIL, "this machine has no such address; check it."},
    {ECONNREFUSED, "nobody listens at that address; check it and that the broker runs."},
    {ECONNRESET, "the other side reset the connection; connect again."},
    {ETIMEDOUT, "no answer came in time; check the address and the network."},
    {EHOSTUNREACH, "the host cannot be reached; check the address and the network."},
    {EOPNOTSUPP, "it is not supported here; see the manual."},
};

static const struct sentence *find(int code)
{
    for (size_t i = 0; i < sizeof(system_table) / sizeof(system_table[0]); i++)
        if (system_table[i].number == code)
            return &system_table[i];
    return NULL;
}

/* Codes come from peers too: INT_MIN has no positive twin. */
static int magnitude(int code)
{
    if (code >= 0)
        return code;
    return code < -LAST ? LAST + 1 : -code;
}

const char *embar_strerror(int code)
{
    code = magnitude(code);
    if (code >= FIRST && code <= LAST)
        return ours[code - FIRST].text;
    const struct sentence *known = find(code);
    if (known)
        return known->text;
    const char *text = strerrordesc_np(code);
    return text ? text : "an unknown error code; the other side may be newer: compare versions.";
}

int embar_to_errno(int code)
{
    code = magnitude(code);
    if (code >= FIRST && code <= LAST)
        return ours[code - FIRST].number;
    return strerrordesc_np(code) ? code : EIO;
}

/* Keep at most so many bytes, whole characters, and say that there were more. Room for four is behind. */
static size_t cut(char *text, size_t most)
{
    size_t n = strnlen(text, most);
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    memcpy(text + n, "...", 4);
    return n + 3;
}

int embar_fail(struct embar_error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    err->code = code;
    const char *own = embar_strerror(code);
    size_t length = fmt ? strlen(fmt) : 0;
    if (length == 0) {
        snprintf(err->text, sizeof(err->text), "%s", own);
        return code;
    }
    va_list args;
    char raw[sizeof(err->text)];
    va_start(args, fmt);
    int wrote = vsnprintf(raw, sizeof(raw), fmt, args);
    va_end(args);
    /* Names in it come from command lines, pools and peers. */
    size_t used = plain_text(err->text, sizeof(err->text), raw);
    if (wrote >= (int)sizeof(raw))
        used = sizeof(err->text);
    if (fmt[length - 1] == '.') {
        if (used >= sizeof(err->text))
            (void)cut(err->text, sizeof(err->text) - 4);
        return code;
    }
    /* Long particulars give way, so that the sentence always fits behind them. */
    size_t room = sizeof(err->text) - strlen(own) - sizeof("...: ");
    if (used > room)
        used = cut(err->text, room);
    const char *joint = fmt[length - 1] == ':' ? " " : ": ";
    snprintf(err->text + used, sizeof(err->text) - used, "%s%s", joint, own);
    return code;
}
