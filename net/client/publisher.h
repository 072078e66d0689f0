/* A publisher from inside: batches, connections, and who touches what.
 *
 * Design notes. One I/O thread per publisher owns the connections while it is awake; user threads fill
 * batches. A user thread that sealed a small batch while nothing else is on its way writes it itself
 * (pub_kick), which spares the wake-up: it owns the connections while `driven`, which begins only
 * when the I/O thread is `asleep`, and that one waits for its end when it wakes up meanwhile. Only
 * writing is done so: errors, acks and callbacks are the I/O thread's.
 * `lock` guards every field below it and every batch on the live list; the I/O thread drops it
 * around system calls and callbacks, and nothing else is locked while it is held. A batch is made
 * by a user thread in its own lane (pub_lane.c) and filled there without the lock, sealed (numbered,
 * put on the live list) under both the lane's hold and the lock, and from then on only
 * the I/O thread changes it, until it recycles it: exactly once, after its callbacks returned. Its
 * payload may be read without the lock by the I/O thread because sealed bytes never change.
 *
 * The live list holds sealed batches in the order of their tickets. `taken`: a connection wrote or
 * is writing it. `acked`: it is done; it leaves the list when no connection writes it any more (a
 * frame that was begun must be ended). At order 5 the acked ones are a prefix of the list; at orders
 * 0 and 2 an ACK's bits name others behind a gap. Without acks a batch is requeued only when the
 * connection that wrote it was closed, so whoever ends a write has written what counts. Stop: `cancel` makes waits end, `stop` ends the thread; what is
 * then left on the list is told -ECANCELED by the closing thread.
 */
#ifndef NET_CLIENT_PUBLISHER_H
#define NET_CLIENT_PUBLISHER_H

#include <pthread.h>

#include "net/client/client.h"

#define PUB_CHANNEL         1u
#define PUB_MAX_CONNECTIONS 64u
#define PUB_MAX_LIVE        4096u /* batches, so that tiny ones stay bounded too */
#define PUB_MAX_PIECES      1024  /* iovecs of one batch */
#define PUB_IN              (sizeof(struct wire_frame) + sizeof(struct wire_error) + 65536u)

struct pub_told {
    embar_done done;
    void *arg;
};

struct pub_batch {
    struct pub_batch *next, *prev; /* live or free list */
    uint64_t ticket;               /* order of sealing, from 1 */
    uint64_t sequence;             /* of the session, or of the connection that took it */
    uint32_t length, count;
    uint32_t crc;
    bool summed; /* crc is known */
    bool equal, taken, acked;
    unsigned writers;
    unsigned pins;          /* sends of its bytes that the kernel has not completed */
    struct pub_conn *owner; /* that took it last */
    size_t charge;          /* of the window */
    unsigned char *buffer;  /* own bytes; NULL: the caller's */
    size_t capacity;
    struct iovec *iov; /* payload */
    int pieces;
    struct iovec one; /* iov of an own buffer */
    le32 *lengths;
    uint32_t lengths_capacity;
    struct pub_told *told;
    uint32_t told_count, told_capacity;
};

/* Where one user thread's messages go: the batch that it fills. Made when a thread first publishes, on
 * the publisher's list until that is freed: a thread that ends leaves its batch there to be sealed by
 * the linger, and a later thread of the same id takes it over. */
struct pub_lane {
    _Alignas(64) struct pub_lane *next; /* never changes once it is on the list */
    pthread_t thread;
    /* 1: somebody fills or seals `current`. The exchange (acquire) of who takes it pairs with the store
     * (release) of who gave it back. Taken before the publisher's lock, or tried under it. */
    atomic_uint held;
    /* Changes under `held` and the lock: either suffices to read it. Its contents: under `held`. */
    struct pub_batch *current;
    uint64_t due;          /* the lock: when current's linger ends */
    bool alone;            /* held: nothing was on its way when current was begun */
    uint32_t max_messages; /* held: of a batch, when current was begun */
};

/* A connection: its owner's alone. */
struct pub_conn {
    struct embar_publisher *pub;
    int fd;       /* -1: down */
    bool blocked; /* the socket took no more; until the next EPOLLOUT */
    uint64_t up_since, retry_at;
    unsigned backoff_ms;
    uint64_t sequence, acked; /* without a session: counted per connection */
    struct pub_batch *writing;
    size_t written; /* bytes of its frame */
    size_t summed;  /* bytes of its payload that may be written: they are in `sum` */
    uint32_t sum;
    int sum_iov; /* where the next byte to be summed is */
    size_t sum_at;
    struct wire_sum behind; /* its last bytes, when `tail` is not 0 */
    size_t tail;
    struct {
        struct wire_frame frame;
        struct wire_publish publish;
    } head;                         /* of writing */
    bool zero;                      /* the socket can send without a copy */
    uint32_t zero_first, zero_next; /* such sends, as the kernel counts them: not completed */
    struct pub_batch **zero_ring; /* their batches; NULL: completed out of order. Pins: the lock */
    size_t in_have;
    unsigned char in[PUB_IN];
};

struct embar_publisher {
    struct embar_client *client;
    char *topic;
    size_t topic_length;
    uint64_t id;                        /* of all publishers there ever were in this process */
    _Atomic(struct pub_lane *) lanes;   /* newest first. Release under the lock, acquire anywhere */
    struct embar_publisher_options opt; /* defaults filled in */
    bool has_session;
    unsigned connections;
    struct pub_conn *conns;
    int epoll, wake;
    pthread_t thread;
    unsigned crc_errors;  /* I/O thread's: since the last progress */
    struct outage outage; /* I/O thread's */
    atomic_bool cancel;   /* release by close; acquire in link waits */

    pthread_mutex_t lock;
    pthread_cond_t room;       /* window space came free, or failed */
    pthread_cond_t idle;       /* a batch is done and told, or failed */
    pthread_cond_t free_again; /* nobody drives any more */
    bool stop;
    bool asleep;               /* the I/O thread, until it is told to wake up or does */
    bool driven;               /* a user thread owns the connections */
    bool sealed;               /* batches that neither the I/O thread nor pub_kick was told of */
    struct embar_error failed; /* code 0: alive */
    struct link_peer peer;
    bool zero_copied; /* the kernel copies: no more of it. Written by the owner under the lock */
    bool hungry;      /* somebody waits for room: seal what is begun */
    struct pub_batch *head, *tail, *queued; /* live list; the first that may not be taken yet */
    struct pub_batch *free;
    unsigned live;
    uint64_t ticket;    /* newest given */
    uint64_t sequence;  /* newest given, of the session */
    uint64_t committed; /* of the session: the mark, all up to it are acked */
    uint64_t acked_top; /* of the session: no batch above it is acked */
    bool ahead;         /* some batch was acked above the mark */
    uint64_t charged;   /* window bytes in use */
    uint64_t down_since;
    struct embar_publisher_info info;
};

/* ---- pub_batch.c: all under the lock ------------------------------------------------------ */

/* An empty batch with a buffer of at least `length` bytes, charged. NULL: no memory. */
struct pub_batch *pub_batch_get(struct embar_publisher *p, size_t length);
/* Number it and put it on the live list. */
void pub_batch_seal(struct embar_publisher *p, struct pub_batch *b);
/* A caller's batch. */
int pub_enqueue(struct embar_publisher *p, struct pub_batch *b) __attribute__((warn_unused_result));
struct pub_batch *pub_foreign(const struct iovec *iov, int pieces, const uint32_t *lengths,
                              uint32_t count, uint32_t max_batch, struct embar_error *err);
void pub_batch_free(struct pub_batch *b);
bool pub_has_room(const struct embar_publisher *p, size_t need);
/* First batch to be sent, marked as taken by c; NULL. */
struct pub_batch *pub_take(struct embar_publisher *p, struct pub_conn *c);
void pub_requeue(struct embar_publisher *p, struct pub_batch *b);
/* Off the live list, back to the free list or gone; `ok`: count it as done. */
void pub_recycle(struct embar_publisher *p, struct pub_batch *b, bool ok);
/* Wake the I/O thread if it sleeps. */
void pub_wake(struct embar_publisher *p);
/* After sealing, before the lock is given back: have it sent, or send it. Drops the lock meanwhile. */
void pub_kick(struct embar_publisher *p);

/* ---- pub_buffer.c -------------------------------------------------------------------------- */

/* For a batch's own bytes. NULL: no memory. */
unsigned char *pub_buffer_new(size_t capacity);
void pub_buffer_free(unsigned char *p, size_t capacity);

/* ---- pub_lane.c ---------------------------------------------------------------------------- */

/* The calling thread's. NULL: no memory. */
struct pub_lane *pub_lane_own(struct embar_publisher *p);
/* One message, sealing what is full; waits for room unless the publisher does not. */
int pub_lane_append(struct embar_publisher *p, struct pub_lane *l, const void *data, size_t length,
                    embar_done done, void *arg) __attribute__((warn_unused_result));
void pub_lane_hold(struct pub_lane *l);
void pub_lane_give(struct pub_lane *l);
/* Seal what it holds. Under `held` and the lock. */
void pub_lane_seal(struct embar_publisher *p, struct pub_lane *l);
/* Seal what all of them hold. Without the lock. */
void pub_lanes_seal(struct embar_publisher *p);
/* Under the lock: seal what is due, or all when nothing is in flight, but of lanes that are being filled
 * right now. When to look again; UINT64_MAX: nothing is begun. */
uint64_t pub_lanes_due(struct embar_publisher *p, uint64_t now);
/* Under the lock: is any message in a batch that is not sealed? */
bool pub_lanes_begun(const struct embar_publisher *p);
/* What is accepted and not sealed, with all of *info of one moment. */
void pub_lanes_info(struct embar_publisher *p, struct embar_publisher_info *info);
void pub_lanes_free(struct embar_publisher *p);

/* ---- pub_conn.c: the I/O thread, without the lock ----------------------------------------- */

/* Dial and OPEN. The first of a publisher is called by the opening thread. */
int pub_conn_open(struct pub_conn *c, struct embar_error *err) __attribute__((warn_unused_result));
void pub_conn_close(struct pub_conn *c);
/* Take in what arrived. */
void pub_conn_read(struct pub_conn *c);

/* ---- pub_send.c: the connections' owner, without the lock --------------------------------- */

/* Write what the socket takes of one batch. 1: there may be more to do at once; 0: not now; a
 * negative code: the connection broke. The first leaves that to another call of the second. */
int pub_conn_write(struct pub_conn *c);
bool pub_conn_pump(struct pub_conn *c);

/* ---- pub_zero.c: the connections' owner, without the lock --------------------------------- */

void pub_zero_open(struct pub_conn *c);
void pub_zero_close(struct pub_conn *c);
bool pub_zero_may(const struct pub_conn *c);
/* As link_write, from the payload of c->writing, without a copy where that is possible. */
ssize_t pub_zero_write(struct pub_conn *c, const struct iovec *iov, int pieces);
/* Take in what was completed, and tell what waited for it. */
void pub_zero_read(struct pub_conn *c);

/* ---- pub_io.c ----------------------------------------------------------------------------- */

void *pub_thread(void *arg);
/* A connection broke: give its batches back, dial again later; without a session, fail. */
void pub_lost(struct pub_conn *c, const struct embar_error *why);
/* Everything pending fails, and every later call. */
void pub_fail(struct embar_publisher *p, const struct embar_error *why);
/* What an ACK (or OPENED, or EFENCED: without bits) tells. */
struct pub_mark {
    uint64_t sequence, messages, end;
    unsigned words;
    le64 ahead[WIRE_AHEAD];
};
/* The session (or connection c, without one) is committed up to the mark, and where c's bits say so
 * above it. */
void pub_acked(struct embar_publisher *p, struct pub_conn *c, const struct pub_mark *m);
/* A new epoch: at order 5 it begins above the committed mark, and what is above is sent again. */
void pub_fenced(struct embar_publisher *p, uint32_t epoch, uint64_t sequence, uint64_t messages);
/* Its write ended (or was given up with the connection). */
void pub_written(struct embar_publisher *p, struct pub_conn *c, bool whole);
/* Tell every acked batch that nobody writes; in order. */
void pub_tell(struct embar_publisher *p, const struct embar_error *why);

#endif
