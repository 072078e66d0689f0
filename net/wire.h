/* The native protocol's frames, version 3: what stands on the wire, byte by byte. Prose and
 * conversations: net/PROTOCOL.md. Sizes and offsets are asserted in wire.c.
 *
 * Little-endian throughout. A connection is a stream of frames in both directions: a 16-byte
 * header, then `length` bytes. Strings are counted, UTF-8, without NUL. The first frame from the
 * client is HELLO; the server says nothing before it.
 */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/le.h"

#define WIRE_MAGIC    0x52424d45u /* "EMBR" */
#define WIRE_VERSION  4u
#define WIRE_TOKEN    32u                 /* bytes of a token */
#define WIRE_MAX_ASK  4096u               /* body of any client frame but PUBLISH */
#define WIRE_MAX_TEXT (1u << 20)          /* body of a TEXT frame */
#define WIRE_WINDOW   1024u               /* default of wire_welcome.window */
#define WIRE_AHEAD    (WIRE_WINDOW / 64u) /* words behind an ACK, at most */

enum wire_type {
    WIRE_HELLO = 1,     /* c->s wire_hello, token;          s->c wire_welcome */
    WIRE_OPEN = 2,      /* c->s wire_open, path;            s->c wire_opened (or ERROR) */
    WIRE_PUBLISH = 3,   /* c->s wire_publish, lengths, payload, wire_sum (with SUM) */
    WIRE_ACK = 4,       /* s->c wire_ack, words */
    WIRE_CLOSE = 5,     /* c->s wire_close;                 s->c OK: the channel is gone */
    WIRE_SUBSCRIBE = 6, /* c->s wire_subscribe, path;       s->c wire_subscribed, then DATA... */
    WIRE_DATA = 7,      /* s->c wire_data, lengths, payload: one batch or the rest of one */
    WIRE_END = 8,       /* s->c wire_end: a subscription that stops has reached its end */
    WIRE_CANCEL = 9,    /* c->s (channel): stop a subscription; s->c OK after its last DATA */
    WIRE_ADMIN = 10,    /* c->s wire_admin, path, second;   s->c OK or TEXT or ERROR */
    WIRE_TEXT = 11,     /* s->c JSON */
    WIRE_OK = 12,       /* s->c wire_ok */
    WIRE_ERROR = 13,    /* s->c wire_error, text. With channel and ref of what failed; both 0: the
                         *      connection is closed after it (so asks carry a ref above 0) */
    WIRE_PING = 14,     /* c->s empty;                      s->c OK */
};

/* Every frame's header. */
struct wire_frame {
    le32 length;   /* 0..3  bytes after this header */
    uint8_t type;  /* 4     enum wire_type */
    uint8_t flags; /* 5     WIRE_F_... */
    le16 channel;  /* 6..7  client's choice, 1..65535: names a publisher or subscription here */
    le64 ref;      /* 8..15 client's choice; an answer repeats it */
};

#define WIRE_F_EQUAL 0x01u /* PUBLISH, DATA: all messages have the same length; no lengths stand */
#define WIRE_F_MORE  0x02u /* TEXT: a list goes on; ask again with value = id of its last element */
#define WIRE_F_SUM   0x04u /* PUBLISH: a wire_sum stands behind the payload; payload_crc is 0 */

struct wire_hello {
    le32 magic;       /*  0..3  */
    le16 version;     /*  4..5  newest the client speaks */
    le16 oldest;      /*  6..7  oldest */
    le32 features;    /*  8..11 0 */
    le32 token;       /* 12..15 bytes of token that follow (0 on a Unix socket), <= 64 */
    le64 incarnation; /* 16..23 of the pool as the client knows it, 0: none; ahead of the server's:
                       * EMBAR_EINCARNATION */
    uint8_t uuid[16]; /* 24..39 of the pool as the client knows it, zeros: none */
};

struct wire_welcome {
    le32 magic;        /*  0..3  */
    le16 version;      /*  4..5  to be spoken from here on */
    le16 zero;         /*  6..7  */
    le32 max_batch;    /*  8..11 payload bytes */
    le32 max_messages; /* 12..15 */
    le32 window;       /* 16..19 batches of one session that may be unacked */
    le32 durability;   /* 20..23 enum media_durability */
    le64 incarnation;  /* 24..31 */
    uint8_t uuid[16];  /* 32..47 */
    le64 time;         /* 48..55 server's CLOCK_REALTIME ns */
    le64 zero2;        /* 56..63 */
};

enum wire_session {
    WIRE_S_NONE = 0,
    WIRE_S_NEW = 1,
    WIRE_S_RESUME = 2,
    WIRE_S_AUTO = 3, /* NEW; NONE when the ack in force is 0 */
};
#define WIRE_ANY 255u /* any order, ack: the topic's own */

/* Open a topic for publishing on `channel`. Several connections may RESUME one session. */
struct wire_open {
    le64 session;    /*  0..7  with RESUME */
    le32 epoch;      /*  8..11 with RESUME: as last told; 0: unknown: fence first */
    uint8_t mode;    /* 12     enum wire_session */
    uint8_t order;   /* 13     expected order, or WIRE_ANY */
    uint8_t ack;     /* 14     0, 1, 2, or WIRE_ANY */
    uint8_t create;  /* 15     1: make the topic and its parents when absent */
    le16 path;       /* 16..17 bytes of path that follow */
    uint8_t zero[6]; /* 18..23 */
};

struct wire_opened {
    le64 session;    /*  0..7  0: none */
    le64 sequence;   /*  8..15 go on above it; see PROTOCOL.md for orders 0 and 2 */
    le64 messages;   /* 16..23 of the session, committed without a gap before them */
    le64 end;        /* 24..31 end of the topic */
    le32 epoch;      /* 32..35 */
    le32 topic;      /* 36..39 */
    uint8_t order;   /* 40     */
    uint8_t ack;     /* 41     in force */
    uint8_t zero[6]; /* 42..47 */
};

/* A batch; with frame header 64 bytes.
 * frame.length = 48 + (EQUAL ? 0 : 4 * count) + payload + (SUM ? 4 : 0).
 * Without a session the server acks by counting: sequence is still 1, 2, 3... on the channel. */
struct wire_publish {
    le64 sequence;    /*  0..7  from 1, one a batch */
    le32 count;       /*  8..11 messages */
    le32 payload;     /* 12..15 payload bytes */
    le32 payload_crc; /* 16..19 CRC32C of the payload, 0 with SUM */
    le32 lengths_crc; /* 20..23 CRC32C of the lengths, 0 with EQUAL */
    le32 epoch;       /* 24..27 of the session */
    le32 crc;         /* 28..31 CRC32C of frame header and this struct, with this field as zero */
    uint8_t zero[16]; /* 32..47 */
};

/* Behind the payload, with SUM: whoever sends it need not have read all of the payload before the
 * first byte leaves, and reads each piece just before it goes. */
struct wire_sum {
    le32 payload_crc; /* 0..3 CRC32C of the payload */
};

/* All batches of the channel's session up to `sequence`, the mark, are committed (ack 1). Cumulative.
 * frame.length = 32 + 8 * words. Behind it stand `words` le64, 0 at order 5 and without a session:
 * bit i of them (bit i % 64 of word i / 64) says that batch sequence + 1 + i came over this channel
 * and is committed, ahead of a gap. */
struct wire_ack {
    le64 sequence; /*  0..7  */
    le64 messages; /*  8..15 of the session in all, up to the mark */
    le64 offset;   /* 16..23 log offset of the end of the newest batch it covers that came here */
    le32 epoch;    /* 24..27 */
    le32 words;    /* 28..31 0..WIRE_AHEAD */
};

struct wire_close {
    uint8_t forget;  /* 0    1: close the session too: it can never be resumed */
    uint8_t zero[7]; /* 1..7 */
};

enum wire_from {
    WIRE_FROM_EARLIEST = 0,
    WIRE_FROM_LATEST = 1,
    WIRE_FROM_OFFSET = 2,
    WIRE_FROM_MESSAGE = 3,
    WIRE_FROM_TIME = 4,
};

struct wire_subscribe {
    le64 value;     /*  0..7  offset, message number or ns */
    le64 limit;     /*  8..15 messages, 0: no limit */
    uint8_t from;   /* 16     enum wire_from */
    uint8_t follow; /* 17     1: wait for more at the end; 0: stop there */
    le16 path;      /* 18..19 bytes of path that follow */
    le32 zero;      /* 20..23 */
};

struct wire_subscribed {
    le64 offset;      /*  0..7  where it begins */
    le64 message;     /*  8..15 */
    le64 base;        /* 16..23 */
    le64 end;         /* 24..31 */
    le32 topic;       /* 32..35 */
    le32 zero;        /* 36..39 */
    le64 incarnation; /* 40..47 */
};

/* frame.length = 48 + (EQUAL ? 0 : 4 * count) + payload. A subscription that begins inside a batch
 * gets that batch's later messages with `crc` 0 (none): the CRC is of whole batches. */
struct wire_data {
    le64 offset;      /*  0..7  log offset of the payload's first byte */
    le64 message;     /*  8..15 number of the first message */
    le64 time;        /* 16..23 */
    le32 count;       /* 24..27 */
    le32 payload;     /* 28..31 */
    le32 crc;         /* 32..35 CRC32C of the payload, when `whole` */
    uint8_t whole;    /* 36     */
    uint8_t zero[11]; /* 37..47 */
};

struct wire_end {
    le64 offset;  /* 0..7  next offset */
    le64 message; /* 8..15 */
};

enum wire_verb {
    WIRE_V_CREATE = 1, /* order, ack, mode, value, value2, policy; flag PARENTS */
    WIRE_V_MKDIR = 2,
    WIRE_V_REMOVE = 3,
    WIRE_V_RENAME = 4,  /* second: the new path */
    WIRE_V_TRIM = 5,    /* value: offset, message number or ns, as `from` says */
    WIRE_V_ATTR = 6,    /* flags MEDIA_A_...; order, ack, mode, value, value2, policy */
    WIRE_V_LIST = 7,    /* TEXT: array of topics below path (recursive) */
    WIRE_V_STAT = 8,    /* TEXT: one topic, or the broker when path is empty */
    WIRE_V_SESSION = 9, /* TEXT: session `value` */
};

/* wire_admin.flags beside MEDIA_A_... */
#define WIRE_A_PARENTS     0x8000u /* CREATE, MKDIR: make missing parents too */
#define WIRE_A_DIRECTORIES 0x4000u /* LIST: name directories too */

struct wire_admin {
    uint8_t verb;   /*  0     enum wire_verb */
    uint8_t from;   /*  1     enum wire_from, for TRIM */
    uint8_t order;  /*  2     or WIRE_ANY: default */
    uint8_t ack;    /*  3     or WIRE_ANY */
    uint8_t policy; /*  4     */
    uint8_t zero;   /*  5     */
    le16 flags;     /*  6..7  MEDIA_A_... | WIRE_A_... */
    le32 mode;      /*  8..11 0: default */
    le16 path;      /* 12..13 bytes of path */
    le16 second;    /* 14..15 bytes of the second path */
    le64 value;     /* 16..23 TRIM, CREATE, ATTR, SESSION; LIST: id after which to go on */
    le64 value2;    /* 24..31 CREATE, ATTR */
};

struct wire_ok {
    le64 value;  /* 0..7  TRIM: the new base; CREATE, MKDIR: the id */
    le64 value2; /* 8..15 TRIM: bytes that were given up */
};

struct wire_error {
    le32 code;       /* 0..3  positive: errno below 1000, enum embar_errc above */
    le32 epoch;      /* 4..7  FENCED: the session's new epoch */
    le64 sequence;   /* 8..15 FENCED: highest committed; a refused PUBLISH: its sequence */
    le64 messages;   /* 16..23 FENCED: messages committed */
    le16 text;       /* 24..25 bytes of text that follow */
    uint8_t zero[6]; /* 26..31 */
};

/* ---- Helpers for both sides (wire.c) ------------------------------------------------------- */

/* A frame header. */
struct wire_frame wire_frame_of(enum wire_type type, unsigned flags, uint16_t channel, uint64_t ref,
                                uint32_t length);

/* Bytes of a PUBLISH or DATA body behind its fixed part, or UINT64_MAX when counts make no sense:
 * lengths (unless `equal`) and payload. */
uint64_t wire_batch_size(bool equal, uint32_t count, uint32_t payload);

/* CRC32C over frame header and publish header with p->crc as zero: what p->crc must be. */
uint32_t wire_publish_crc(const struct wire_frame *f, const struct wire_publish *p);

/* Is this PUBLISH header sound (crc, bounds, length)? 0, -EMBAR_ECRC, -EMBAR_EPROTO,
 * -EMBAR_EINVALID, -EMBAR_ETOOBIG; *why (never NULL) gets what is wrong. */
int wire_publish_check(const struct wire_frame *f, const struct wire_publish *p, uint32_t max_batch,
                       uint32_t max_messages, const char **why) __attribute__((warn_unused_result));

/* Is a body of `length` bytes a sound ACK? Its fixed part is *a. 0 or -EMBAR_EPROTO. */
int wire_ack_check(const struct wire_ack *a, size_t length) __attribute__((warn_unused_result));

/* The same for a DATA header as a client gets it. */
int wire_data_check(const struct wire_frame *f, const struct wire_data *d, uint32_t max_batch,
                    uint32_t max_messages) __attribute__((warn_unused_result));

#endif
