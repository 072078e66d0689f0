/* Errors of embarfs, as every part of it and every client sees them.
 *
 * Functions return 0 or a negative code: -errno for what the system refused, -EMBAR_E... for what
 * we refused. embar_strerror() turns either into one sentence with the cause and the remedy;
 * struct embar_error carries such a sentence with the particulars (which file, which size).
 * The numbers travel over the wire and never change.
 */
#ifndef EMBAR_ERROR_H
#define EMBAR_ERROR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum embar_errc {
    EMBAR_ENOTPOOL = 1001,     /* no superblock: empty, foreign or damaged beyond recognition */
    EMBAR_EVERSION = 1002,     /* a format or protocol version we do not speak */
    EMBAR_EFEATURE = 1003,     /* an incompat feature bit we do not know */
    EMBAR_ECORRUPT = 1004,     /* a checksum or bound that must hold does not */
    EMBAR_ETOOSMALL = 1005,    /* pool or device below the minimum */
    EMBAR_ESIZE = 1006,        /* --size contradicts the existing pool */
    EMBAR_EBUSY = 1007,        /* the slot or device is held by another process */
    EMBAR_EFULL = 1008,        /* no pool space; waiting for it would help */
    EMBAR_ETOOBIG = 1009,      /* batch or message above the limit told at the handshake */
    EMBAR_ENAME = 1010,        /* not a valid topic name or path */
    EMBAR_ERESERVED = 1011,    /* the name .embar at the root */
    EMBAR_ETRIMMED = 1012,     /* that offset was trimmed away */
    EMBAR_EGONE = 1013,        /* the topic was deleted */
    EMBAR_ESESSION = 1014,     /* RESUME of a session that is not known (any more) */
    EMBAR_EFENCED = 1015,      /* the session was fenced; resubmit above the committed mark */
    EMBAR_EORDER = 1016,       /* the topic's order is not the one the publisher expects */
    EMBAR_EACK = 1017,         /* the ack level cannot be given here (ack 2 without a replica) */
    EMBAR_EPROTO = 1018,       /* the peer's bytes make no sense */
    EMBAR_ECRC = 1019,         /* payload checksum mismatch */
    EMBAR_EAUTH = 1020,        /* wrong or missing token, or not the principal */
    EMBAR_ELIMIT = 1021,       /* a bounded table (sessions, topics, connections) is full */
    EMBAR_EINCARNATION = 1022, /* the pool was restored since; the client's position is void */
    EMBAR_EFAULTED = 1023,     /* the pool failed under us (I/O error, device gone) */
    EMBAR_ESHUTDOWN = 1024,    /* the broker is stopping */
    EMBAR_ESPEC = 1025,        /* a --cxl, --size or address argument that cannot be read */
    EMBAR_ENOSERVER = 1026,    /* no broker found to talk to */
    EMBAR_EINVALID = 1027,     /* an argument or field outside its bounds */
    EMBAR_ETAKEN = 1028,       /* another process has resumed the session and goes on with it */
};

/* A code with its particulars. text is always NUL-terminated and is a whole sentence. Control characters
 * of names in it are written out (\n, \x1b), so that it can be shown on a terminal. */
struct embar_error {
    int code; /* negative, as returned */
    char text[512];
};

/* One sentence for a code of ours or an errno (either sign). Static storage; thread-safe. */
const char *embar_strerror(int code);

/* The errno a filesystem call should answer with for a code of ours (positive). */
int embar_to_errno(int code);

/* Fill err (may be NULL) and return code, so that callers can `return embar_fail(...)`. The
 * formatted particulars are followed by the code's own sentence when fmt ends without a full
 * stop. */
int embar_fail(struct embar_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif
#endif
