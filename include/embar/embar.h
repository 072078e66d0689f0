/* libembar: publish to and subscribe from an embarfs broker.
 *
 * Handles are opaque. Every function may be called from any thread, with two exceptions: a
 * subscription is used by one thread at a time, and no handle is used after it was closed. The
 * library keeps no state but in its handles, and in each thread where it published last; it
 * installs no signal handler and raises no signal.
 *
 * Functions return 0 (or a count) or a negative code, -errno or -EMBAR_E... (embar/error.h). Where
 * they take a struct embar_error * it may be NULL; on failure it holds a whole sentence.
 *
 * Topics are paths: components of UTF-8 joined by '/', as they stand below the mount. Offsets are
 * log offsets: bytes since the topic began; they never change. Message numbers count from 0.
 */
#ifndef EMBAR_EMBAR_H
#define EMBAR_EMBAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "embar/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0". Static storage. */
const char *embar_version(void);

/* ---- Client ------------------------------------------------------------------------------- */

struct embar_client;

/* Zeroed: all defaults. Strings are copied. */
struct embar_options {
    const char *server; /* host:port, [ipv6]:port, path of a socket, or mount point. NULL:
                             * $EMBAR_SERVER, else the one fuse.embarfs mount in /proc/self/mounts
                             * that this user or root made */
    const char
        *token_file;   /* NULL: the mount's .embar/token, and for host:port what a daemon of this
                             * user has left (embarfs(8), FILES). Read again at each reconnect */
    const void *token; /* the token itself, instead of a file */
    size_t token_length;
    unsigned timeout_ms;   /* for each connect with its handshake, and each request. 0: 10,000 */
    unsigned reconnect_ms; /* publishers and subscriptions try this long to reach the broker again
                             * before they fail. A connection that breaks at once, before anything
                             * was acknowledged or came, counts as none. 0: 60,000 */
    /* Told when a publisher or a subscription has had no connection for a second and tries again, with
     * the reason, and with NULL when it has one again that is of use or stands for a second. By the publisher's own thread, or inside of
     * embar_next; it must not block and must not call functions of that handle. NULL: nobody is told. */
    void (*outage)(void *arg, const char *address, const struct embar_error *why);
    void *outage_arg;
};

/* Find the broker, connect, shake hands. opt may be NULL. -EMBAR_ENOSERVER, -EMBAR_EAUTH,
 * -EMBAR_EVERSION, -EMBAR_ESPEC, -errno of connect. */
int embar_connect(struct embar_client **client, const struct embar_options *opt,
                  struct embar_error *err) __attribute__((warn_unused_result));

/* Publishers and subscriptions that are still open keep what they need of it. NULL is allowed. */
void embar_disconnect(struct embar_client *client);

struct embar_client_info {
    char address[300];     /* where it is connected: host:port or the socket's path */
    uint64_t incarnation;  /* of the pool: raised by a restore */
    uint8_t uuid[16];      /* of the pool */
    uint32_t max_batch;    /* payload bytes of a batch; a message fits a batch */
    uint32_t max_messages; /* of a batch */
    uint32_t window;       /* batches of one session that may be unacked */
    bool durable_machine;  /* an ack survives the machine, not only the daemon */
};
void embar_client_info(const struct embar_client *client, struct embar_client_info *info);

/* ---- Publishing --------------------------------------------------------------------------- */

struct embar_publisher;

#define EMBAR_ANY (-1) /* the topic's own order, ack or mode */

enum embar_session {
    EMBAR_SESSION_AUTO = 0,   /* NEW, forgotten by a clean close; NONE when the ack is 0 */
    EMBAR_SESSION_NEW = 1,    /* exactly once; embar_publisher_info tells the id for RESUME */
    EMBAR_SESSION_RESUME = 2, /* session_id goes on; -EMBAR_ESESSION when it is not known */
    EMBAR_SESSION_NONE = 3, /* no deduplication: what is in flight when a connection breaks fails */
};

/* Sending from the batch's own memory (MSG_ZEROCOPY), 64 KiB and more at once. */
enum embar_zerocopy {
    EMBAR_ZEROCOPY_AUTO = 0,   /* until the kernel says that it copied after all, as on loopback */
    EMBAR_ZEROCOPY_ALWAYS = 1, /* even then */
    EMBAR_ZEROCOPY_NEVER = 2,
};

/* Begin with EMBAR_PUBLISHER_OPTIONS. */
struct embar_publisher_options {
    enum embar_session session;
    uint64_t session_id; /* with RESUME */
    int order; /* 0, 2, 5: fail with -EMBAR_EORDER unless the topic's is this; EMBAR_ANY */
    int ack; /* 0: done when written to the socket; 1: committed; 2: and replicated; EMBAR_ANY: the
              * topic's own, but at least 1 with NEW and RESUME */
    size_t batch_bytes;   /* a batch is sent when it holds this much. 0: 2 MiB */
    unsigned linger_us;   /* a started batch waits at most this long; it is sent before, as soon as
                           * none is in flight any more: so it waits about as long as acks take, and
                           * not at all when the publisher is idle. 0: 1,000 */
    unsigned connections; /* of the one session, 1..64. 0: 1 */
    size_t window;        /* payload bytes accepted and not yet done. 0: 32 MiB */
    bool no_create;       /* fail with -ENOENT instead of making the topic and its parents */
    bool nonblocking;     /* -EAGAIN instead of waiting when the window is full */
    enum embar_zerocopy zerocopy;
};
#define EMBAR_PUBLISHER_OPTIONS                                                                    \
    {                                                                                              \
        EMBAR_SESSION_AUTO, 0, EMBAR_ANY, EMBAR_ANY, 0, 0, 0, 0, false, false, EMBAR_ZEROCOPY_AUTO \
    }

/* Told once for each message or batch that was accepted: err is NULL when it is done in the sense
 * of the publisher's ack, else why it is not. Called by the publisher's own thread, in the
 * topic's order (each thread's messages in theirs) at order 5; at orders 0 and 2 a batch is told as
 * soon as it is committed itself. It must not block and must not call functions of this publisher. */
typedef void (*embar_done)(void *arg, const struct embar_error *err);

/* Open a topic for publishing. Waits until the broker answered. opt may be NULL. */
int embar_publisher_open(struct embar_publisher **pub, struct embar_client *client,
                         const char *topic, const struct embar_publisher_options *opt,
                         struct embar_error *err) __attribute__((warn_unused_result));

/* Copy one message (1..max_batch bytes) into the calling thread's current batch. Each thread fills one
 * of its own, without waiting for the others: its messages keep their order, those of
 * different threads have none but by embar_flush. A thread may end at any time; what it
 * published goes on. done may be NULL: failures are
 * then told by embar_flush and every later call. -EAGAIN (nonblocking), -EMBAR_ETOOBIG, or the
 * error that ended the publisher. Nothing was taken when it fails. */
int embar_publish(struct embar_publisher *pub, const void *data, size_t length, embar_done done,
                  void *arg) __attribute__((warn_unused_result));

/* A batch that stays where it is: the payload's memory must not change until done was called. The
 * pieces of iov together hold `count` messages back to back, of the given lengths; lengths NULL:
 * all equal. The arrays iov and lengths are copied. It follows what the calling thread published
 * before.
 * Each message at least 1 byte, the batch at most max_batch bytes and max_messages. */
int embar_publish_batch(struct embar_publisher *pub, const struct iovec *iov, int pieces,
                        const uint32_t *lengths, uint32_t count, embar_done done, void *arg)
    __attribute__((warn_unused_result));

/* One message, at once, waiting until it is done. */
int embar_publish_wait(struct embar_publisher *pub, const void *data, size_t length,
                       struct embar_error *err) __attribute__((warn_unused_result));

/* Send what is begun, by any thread, and wait until all that was accepted before is done and told.
 * timeout_ms < 0: no limit but the reconnect deadline; -ETIMEDOUT. */
int embar_flush(struct embar_publisher *pub, int timeout_ms, struct embar_error *err)
    __attribute__((warn_unused_result));

struct embar_publisher_info {
    uint64_t session;      /* 0: none */
    uint32_t epoch;        /* of the session: raised by a fence */
    uint32_t max_batch;    /* payload bytes */
    uint32_t max_messages; /* of a batch */
    int order, ack;        /* the topic's order; the ack in force */
    uint64_t sequence;     /* batches of the session, committed up to the first gap */
    uint64_t messages;     /* messages of the session, committed up to the first gap: a restarted
                               * producer skips this many of its input. At orders 0 and 2 what was
                               * committed behind a gap when it ended comes twice */
    uint64_t resumed;      /* the same when it was opened */
    uint64_t end;          /* newest end of the topic that an ack or the opening told */
    uint64_t taken_messages, taken_bytes; /* accepted by this publisher */
    uint64_t done_messages, done_bytes;   /* of these, done in the sense of ack */
    uint64_t in_flight;                   /* batches sealed and not done */
    unsigned connected;                   /* connections up now */
    uint64_t reconnects, fences;
    uint64_t zerocopies, zerocopies_copied; /* sends without a copy; that were copied after all */
};
void embar_publisher_info(struct embar_publisher *pub, struct embar_publisher_info *info);

enum embar_close {
    EMBAR_CLOSE_KEEP = 0,   /* flush; the session can be resumed (but AUTO's is forgotten) */
    EMBAR_CLOSE_FORGET = 1, /* flush, then end the session for good */
    EMBAR_CLOSE_NOW = 2,    /* wait for nothing; what is pending is told -ECANCELED; the session
                             * stays, so that it can be resumed */
};
/* The handle is gone whatever it returns: 0 when all that was accepted is done. NULL is allowed. */
int embar_publisher_close(struct embar_publisher *pub, enum embar_close how,
                          struct embar_error *err);

/* ---- Subscribing -------------------------------------------------------------------------- */

struct embar_subscription;

enum embar_from {
    EMBAR_EARLIEST = 0,
    EMBAR_LATEST = 1,
    EMBAR_OFFSET = 2,  /* value: a log offset at a message's beginning */
    EMBAR_MESSAGE = 3, /* value: a message number */
    EMBAR_TIME = 4,    /* value: CLOCK_REALTIME ns: the first batch at or after it */
};

/* Zeroed: from the earliest message to the end there is now. */
struct embar_subscribe_options {
    enum embar_from from;
    uint64_t value;
    bool follow;    /* wait for more at the end */
    uint64_t limit; /* messages, 0: no limit */
};

/* -ENOENT, -EMBAR_ETRIMMED, -EMBAR_EINVALID... opt may be NULL. */
int embar_subscribe(struct embar_subscription **sub, struct embar_client *client, const char *topic,
                    const struct embar_subscribe_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));

/* data points into the receive buffer: valid until the next call on the subscription. */
struct embar_message {
    const void *data;
    size_t length;
    uint64_t offset;  /* log offset of its first byte */
    uint64_t message; /* its number */
    uint64_t time;    /* CLOCK_REALTIME ns when the broker had its batch whole */
};

/* The next message. 1: one; 0: the end (not following, or limit reached); -ETIMEDOUT when none came
 * within timeout_ms (< 0: wait; 0: do not); -EINTR by a signal handler; else an error that ends the
 * subscription. A broken connection is made good by itself from the next offset; -EMBAR_EINCARNATION
 * when the pool behind it was replaced or restored meanwhile. */
int embar_next(struct embar_subscription *sub, struct embar_message *msg, int timeout_ms,
               struct embar_error *err) __attribute__((warn_unused_result));

/* The rest of the current batch, or the next one, whole: payloads back to back. */
struct embar_batch {
    const void *data;
    size_t length;
    const uint32_t *lengths; /* count of them; NULL: all are length / count */
    uint32_t count;
    uint64_t offset, message, time;
};
int embar_next_batch(struct embar_subscription *sub, struct embar_batch *batch, int timeout_ms,
                     struct embar_error *err) __attribute__((warn_unused_result));

/* Readable when embar_next may have something: call it with timeout 0 until -ETIMEDOUT, then poll.
 * The same descriptor for the subscription's life. */
int embar_sub_fd(const struct embar_subscription *sub);

struct embar_sub_info {
    uint64_t offset, message; /* of what comes next */
    uint64_t base, end;       /* of the topic when it was (last) subscribed */
    uint64_t reconnects;
};
void embar_sub_info(const struct embar_subscription *sub, struct embar_sub_info *info);

void embar_unsubscribe(struct embar_subscription *sub);

/* ---- Topics ------------------------------------------------------------------------------- */

enum embar_when_full { EMBAR_BLOCK = 0, EMBAR_TRIM = 1 };

/* EMBAR_ANY: the default of a new topic; of one that is there, what it has. */
struct embar_topic_options {
    int order;          /* 0, 2, 5 or EMBAR_ANY */
    int ack;            /* default for publishers, or EMBAR_ANY */
    int mode;           /* permission bits, or EMBAR_ANY */
    bool parents;       /* make missing directories */
    int64_t keep_bytes; /* at least the newest so many bytes are kept; 0: no bound, or EMBAR_ANY */
    int64_t keep_ns;    /* batches are kept so long at least; 0: no bound, or EMBAR_ANY */
    int when_full;      /* enum embar_when_full, or EMBAR_ANY: EMBAR_BLOCK by default */
};
#define EMBAR_TOPIC_OPTIONS                                                                        \
    {                                                                                              \
        EMBAR_ANY, EMBAR_ANY, EMBAR_ANY, false, EMBAR_ANY, EMBAR_ANY, EMBAR_ANY                    \
    }

/* -EEXIST. opt may be NULL. Answered when committed, as all below. */
int embar_create(struct embar_client *client, const char *topic,
                 const struct embar_topic_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
int embar_mkdir(struct embar_client *client, const char *path, bool parents,
                struct embar_error *err) __attribute__((warn_unused_result));
/* A topic or an empty directory. */
int embar_remove(struct embar_client *client, const char *path, struct embar_error *err)
    __attribute__((warn_unused_result));
int embar_rename(struct embar_client *client, const char *path, const char *to,
                 struct embar_error *err) __attribute__((warn_unused_result));
/* Settings of what is there; `parents` is not looked at. -EMBAR_EINVALID when none is given. */
int embar_set(struct embar_client *client, const char *path, const struct embar_topic_options *opt,
              struct embar_error *err) __attribute__((warn_unused_result));
/* Give up what stands before the position; *base is the oldest offset from now on, *bytes how many
 * were given up (both may be NULL). */
int embar_trim(struct embar_client *client, const char *topic, enum embar_from from, uint64_t value,
               uint64_t *base, uint64_t *bytes, struct embar_error *err)
    __attribute__((warn_unused_result));

/* JSON, NUL-terminated, to be freed with free(). path NULL or "": all topics, the broker. */
int embar_list(struct embar_client *client, const char *path, char **json, struct embar_error *err)
    __attribute__((warn_unused_result));
int embar_stat(struct embar_client *client, const char *path, char **json, struct embar_error *err)
    __attribute__((warn_unused_result));

#ifdef __cplusplus
}
#endif
#endif
