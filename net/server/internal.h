/* Inside the network front end: its structs and, sectioned by file, its functions.
 *
 * Threads and ownership. A worker is one thread with its own epoll; everything it accepted
 * or was handed (connections, channels, batches under way, staging) is touched by that thread alone,
 * without locks. Other threads reach it in one way: they push a struct mail on its box and wake
 * it. Completions and watchers of the log do exactly that and nothing else.
 *
 * A connection that closes while batches or control actions of it are under way stays, closed,
 * until the last of them came back (conn.refs); only then its memory goes.
 */
#ifndef NET_SERVER_INTERNAL_H
#define NET_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/log.h"
#include "net/server/server.h"
#include "net/server/slab.h"
#include "net/server/staging.h"
#include "net/wire.h"

#define SERVER_WORKERS     64u
#define SERVER_CONNECTIONS 16384u
#define SERVER_CHANNELS    65536u      /* of all connections */
#define CONN_CHANNELS      256u        /* of one */
#define SERVER_TEXT        (64u << 20) /* bytes of TEXT not yet read by all clients together */
#define CONN_HEAD          (16u + WIRE_MAX_ASK + 48u) /* the longest frame but a PUBLISH, or its head */
#define CONN_IN            (16u << 10)
#define CONN_SMALL         (CONN_IN / 2) /* batches of which several are received at once */
#define CONN_OUT           4096u
#define CONN_OUT_KEEP      1024u        /* of it for the answer to the next ask */
#define TURN_IN            (512u << 10) /* bytes a connection may bring in a turn while it is alone */
#define TURN_SHARED        (64u << 10)  /* the same beside others: some 30 us of their time */
#define TURN_OUT           (1u << 20)   /* bytes a connection may be sent in a turn */
#define TURN_LEAST         (4u << 10)   /* of it, whatever it had before */
#define RECV_MAX           (256u << 10) /* bytes a recv: what stays hot until it is written back */
#define RESERVE_AT         (64u << 10)  /* reserve when min(body, this) has arrived */
#define SCRATCH_SIZE       (64u << 10)

#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

struct worker;
struct conn;
struct line;
struct channel;

/* ---- Mail (mail.c): the one way into a worker --------------------------------------------- */

struct mail {
    struct mail *next;
    void (*deliver)(struct worker *w, struct mail *m); /* on the worker; may push or free m */
};

struct mailbox {
    _Alignas(64) _Atomic(struct mail *) head;
    atomic_bool asleep; /* pairs with head, both seq_cst: see mail.c */
    int wake_fd;
};

int mailbox_init(struct mailbox *b) __attribute__((warn_unused_result));
void mailbox_destroy(struct mailbox *b);
void mail_push(struct mailbox *b, struct mail *m); /* any thread */
/* Deliver all there is, oldest first; how many. */
unsigned mail_drain(struct worker *w);
/* About to block: false when there is mail after all. */
bool mail_sleep(struct mailbox *b);
void mail_awake(struct mailbox *b);

/* ---- Publishing ---------------------------------------------------------------------------- */

/* A batch under way. From the worker's free list; in the log's hands from announce to done. */
struct pub {
    struct batch b;
    struct completion completion;
    struct commit result; /* written by the thread that ran the epoch, before it pushes mail */
    struct mail mail;
    struct conn *conn;
    struct channel *channel;
    uint64_t ref;
    bool done;             /* NONE: committed, waiting for those before it */
    TAILQ_ENTRY(pub) link; /* NONE: the channel's batches in order; else the free list */
};
TAILQ_HEAD(pub_list, pub);

/* The PUBLISH that is arriving. */
struct incoming {
    struct channel *channel;
    struct pub *pub; /* once reserved */
    uint64_t ref, sequence;
    uint32_t count, payload, payload_crc, lengths_crc, epoch;
    uint32_t lengths;    /* bytes of lengths */
    uint32_t body;       /* of lengths and payload: what goes into the pool */
    uint32_t total, got; /* bytes behind the header: body, then the sum if it has one */
    uint32_t crc;        /* of the payload so far */
    struct wire_sum sum; /* as far as it is here */
    bool equal, duplicate;
};

/* Body bytes in the staging pool, oldest first: see stage.c. */
struct stage {
    struct piece *head, *tail;
    uint32_t fill;      /* bytes in all pieces */
    uint32_t tail_fill; /* of them in the last */
    unsigned waited;    /* ticks without the memory it needs */
    bool slow;          /* all of the batch is collected here before it reserves */
    bool late;          /* slow, and it came slower than its minimum rate at some tick */
};

enum channel_kind { CHANNEL_PUBLISH, CHANNEL_SUBSCRIBE };

struct channel {
    struct conn *conn;
    struct worker *worker;
    struct topic *topic; /* one reference */
    uint16_t id;
    uint8_t kind;
    bool dirty; /* on conn.dirty: something below is due */
    bool error_due;
    struct { /* the ERROR that is due */
        int code;
        uint32_t epoch;
        uint64_t ref, sequence, messages;
        char text[160];
    } error;
    TAILQ_ENTRY(channel) dirty_link;

    /* Publishing. */
    uint8_t ack, order;
    bool broken, ack_due;
    unsigned inflight;
    uint64_t session;
    uint32_t epoch;
    uint64_t mark, messages; /* as to be acked */
    uint64_t seen;           /* highest sequence that was taken in here */
    uint64_t *ahead;         /* ahead.c: bits of what is committed above the mark, or NULL */
    unsigned ahead_count;    /* of them set */
    uint64_t offset;         /* end of the newest batch of this channel */
    uint64_t next;           /* NONE: sequence expected */
    struct pub_list pubs;    /* NONE: in order */

    /* Subscribing: see subscribe.c. */
    bool follow, active, cancel, end_due, dead;
    uint64_t sub_ref, cancel_ref;
    uint64_t limit, limited; /* messages left, when limited */
    uint64_t message;        /* number of the next message to send */
    struct batch_cursor cursor;
    uint64_t sent; /* bytes of the frame at the cursor that were sent */
    TAILQ_ENTRY(channel) active_link;
    /* Other threads' part, apart from the owner's flags, which the compiler may load together. */
    struct watcher watcher;
    struct mail mail;
    atomic_bool queued; /* its mail is on the stack: set by fire, cleared on delivery */
};
TAILQ_HEAD(channel_list, channel);

/* ---- Connections --------------------------------------------------------------------------- */

enum conn_state {
    CONN_FRAME,   /* collecting a frame in `in` */
    CONN_STAGE,   /* a PUBLISH header is in; waiting for enough of its body, then for space */
    CONN_MOVE,    /* its body was too slow for the pool: what is there goes to staging */
    CONN_POOL,    /* its body goes into the pool */
    CONN_SCRATCH, /* its body is read and dropped */
};

/* Handlers of frames say: */
enum turn {
    TURN_NEXT, /* go on */
    TURN_WAIT, /* nothing more to do until something happens */
};

/* A control action that a connection's current frame waits for. */
struct ask {
    struct control control;
    struct completion completion;
    struct commit result;
    struct mail mail;
    struct conn *conn;
    unsigned stage; /* the frame handler's own */
    bool pending;
};

struct conn {
    struct slab_item item; /* the slab's */
    int fd;
    enum conn_state state;
    bool readable, writable, hup; /* as epoll last told, edge-triggered */
    bool tells;                   /* a receive says what waits in the socket behind it */
    bool came;                    /* something may have come since the last one did */
    uint32_t queued;              /* bytes that wait there at least */
    bool hello;                   /* HELLO was accepted */
    bool local;                   /* Unix socket */
    bool ready;                   /* on worker.ready */
    bool bulk;                    /* on worker.bulk */
    uint32_t used;                /* bytes brought in its worker's cycle `cycle`, or up to it */
    uint64_t cycle;
    bool parked;    /* on worker.parked, waits for pool space, or */
    bool ringed;    /* on worker.ringing, for a place in the ring with a whole batch */
    bool summoned;  /* was told to look for pool space, and has not yet: see space.c */
    bool behind;    /* found none because of those before it */
    uint64_t place; /* in that line, from 1; 0: in none */
    uint64_t space; /* bytes that it waits for */
    bool called;    /* was told to look for staging memory, and has not yet: see line.c */
    uint8_t passed; /* times that it was, and found none */
    bool timed;     /* on worker.timed */
    bool closing;   /* no more input; close when what is due was sent */
    bool linger;    /* our side is shut; drop input until the peer closes */
    bool closed;
    struct worker *worker;
    unsigned refs; /* batches and control actions under way */
    uint32_t in_from, in_to, out_from, out_to;
    bool small; /* the newest batch was: all of the input buffer is for what may follow */
    struct incoming cur;
    struct stage stage;
    struct tenant *tenant;
    struct line *line; /* in it: waits for staging memory */
    uint64_t ticket;   /* its place there */
    bool suspect;      /* its last batch was too slow for the pool: the next begins in staging */
    struct ask *ask;
    struct channel *mid; /* subscription whose DATA frame is half sent: nothing else may be */
    struct channel_list dirty, active;
    struct channel **channels; /* ascending by id */
    unsigned channel_count, channel_capacity, last_channel;
    char *text; /* TEXT frame being sent */
    uint32_t text_from, text_to;
    uint32_t uid, gid; /* the principal */
    bool out_full;     /* input stopped for want of room in `out` */
    uint64_t received; /* bytes ever */
    uint64_t ticked;   /* of them at the last tick */
    unsigned strikes;  /* ticks without enough progress */
    unsigned alone;    /* ticks that it was parked and its peer would send no more */
    struct mail mail;  /* hand-over to its worker */
    TAILQ_ENTRY(conn) all_link, ready_link, wait_link, timed_link;
    uint8_t out[CONN_OUT];
    uint8_t in[CONN_IN]; /* last: what was never received there takes no memory */
};
TAILQ_HEAD(conn_list, conn);
TAILQ_HEAD(line_list, line);

/* ---- Workers and the server ---------------------------------------------------------------- */

/* Written by the worker, read by anyone: relaxed, they order nothing. */
struct counters {
    atomic_uint_fast64_t accepted, refused, errors, batches, bytes_in, duplicates, acks, bytes_out,
        connections, channels, subscriptions, waiting, moved, put_off;
};

struct worker {
    struct mailbox box;
    atomic_uint placed; /* connections given to it and not closed; relaxed: a hint for placing */
    struct server *server;
    struct log *log;
    struct producer *producer;
    unsigned index;
    pthread_t thread;
    bool opened, started;
    int epoll_fd, timer_fd, listen_fd;
    bool timer_armed, listeners_off;
    bool stopping;
    bool hurry;           /* at the last tick somebody waited for space or memory */
    unsigned todo;        /* announced and controls queued since the last log_commit */
    unsigned outstanding; /* completions still to come */
    struct conn_list all, ready, bulk, parked, ringing, timed, dead; /* see worker.c */
    struct line *lines;
    struct line_list open, shut; /* of `lines`, those in which somebody waits: see line.c */
    uint64_t ticket;             /* the newest */
    uint64_t cycle;              /* times that everybody on the bulk list had a turn */
    struct conn *cycle_end; /* the last of them in this one; NULL: it begins with the next turn */
    const struct conn *last_in;    /* whose turn brought something last; only compared */
    unsigned shared;               /* turns for which the worker counts as shared by several */
    uint64_t brought;              /* bytes received, ever */
    uint64_t called, called_since; /* bytes for those who were called; the first one's place */
    struct watcher space;
    struct space_line *line; /* of those who wait for pool space: see space.c */
    struct mail space_mail;
    atomic_bool space_queued;
    struct pub_list pub_free;
    unsigned pub_free_count;
    struct mail staging_mail;
    atomic_bool staging_queued; /* its mail is on the stack: see stage_tell */
    bool gave;                  /* staging was given back in this round */
    bool first;                 /* in this round it looks before all other workers */
    bool one_gave_up;           /* in this tick, for want of staging */
    struct gather *gather;      /* subscribe.c */
    uint8_t *scratch;
    struct counters count;
};

struct server {
    struct server_options opt;
    struct log *log;
    struct staging *staging;
    struct slab conns;
    uint8_t token[WIRE_TOKEN];
    uint32_t max_batch, max_connections;
    uint32_t uid, gid; /* the daemon's: principal of TCP peers */
    char address[128];
    char *unix_path;
    bool tells; /* its TCP connections say at each receive what they left in the socket */
    int unix_fd;
    uint64_t unix_dev, unix_ino; /* of the socket file we made: only that is unlinked */
    atomic_bool stop;            /* set by server_stop, then each worker is woken */
    atomic_uint connections, channels, text;
    /* When it was noted last that connections are put off; 0: never. Relaxed: it orders nothing, and the
     * exchange lets one worker say it. */
    atomic_uint_fast64_t put_off_at;
    unsigned workers;
    struct worker worker[SERVER_WORKERS];
};

static inline void count_add(atomic_uint_fast64_t *c, uint64_t n)
{
    /* One writer: no read-modify-write needed. */
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void count_sub(atomic_uint_fast64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) - n,
                          memory_order_relaxed);
}

/* The principal of those that have not said HELLO on TCP: nobody's uid (chown's -1). */
#define STRANGER UINT32_MAX

/* listener.c */
int listener_tcp(struct server *s, struct embar_error *err) __attribute__((warn_unused_result));
int listener_unix(struct server *s, struct embar_error *err) __attribute__((warn_unused_result));
void listener_close(struct server *s);
void listener_accept(struct worker *w, int fd, bool local);
/* Take a worker's listeners in or out of its epoll (out of descriptors; stopping). */
void listener_arm(struct worker *w, bool on);

/* worker.c */
/* All workers are open before the first is started: that one hands connections to any of them. */
int worker_open(struct worker *w, struct embar_error *err) __attribute__((warn_unused_result));
int worker_start(struct worker *w, struct embar_error *err) __attribute__((warn_unused_result));
void worker_destroy(struct worker *w); /* joined or never started, or not even opened */
void worker_wake(struct worker *w);
/* A connection needs the next 1 s tick. */
void worker_timer(struct worker *w);

/* conn.c */
/* One more connection, counted as the principal's. False: not, and *why says at which bound. */
bool conn_join(struct conn *c, struct server *s, uint32_t uid, const char **why)
    __attribute__((warn_unused_result));
/* Who was a stranger showed the token: from here on it counts as c->uid's. 0, -EMBAR_ELIMIT. */
int conn_known(struct conn *c, const char **why) __attribute__((warn_unused_result));
struct conn *conn_new(struct server *s, int fd, bool local);
void conn_free(struct server *s, struct conn *c);
void conn_adopt(struct worker *w, struct mail *m);
void conn_ready(struct conn *c);
/* It had its share and could go on: a turn after those who have waited for something. Who had a
 * whole share since the bulk list went round gets there by conn_ready, too. */
void conn_bulk(struct conn *c);
/* It is its turn in this round or the next, whatever it had. */
void conn_next(struct conn *c);
void conn_unready(struct conn *c);
/* Bytes that it may bring in a turn now. */
uint32_t conn_share(const struct conn *c);
/* A turn brought so much. */
void conn_brought(struct conn *c, uint64_t n);
void conn_turn(struct conn *c);
void conn_tick(struct conn *c);
/* A tick of one that is parked: whose peer has gone does not keep its place for as long as there is no room. */
void conn_parked_tick(struct conn *c);
void conn_close(struct conn *c);
void conn_unref(struct conn *c);
void conn_wait_end(struct conn *c); /* off the waiting lists */
/* The peer erred (or we stop): ERROR with channel and ref 0, then close. */
void conn_fail(struct conn *c, int code, const char *text);
/* An ask was refused; the connection lives. text NULL: the code's own sentence. */
void conn_refuse(struct conn *c, const struct wire_frame *f, int code, const char *text);
void conn_put(struct conn *c, enum wire_type type, uint16_t channel, uint64_t ref, const void *body,
              uint32_t length);
void conn_ok(struct conn *c, const struct wire_frame *f, uint64_t value);
void conn_ok_two(struct conn *c, const struct wire_frame *f, uint64_t value, uint64_t value2);
/* Queue a TEXT frame made in place: buf holds a frame header's room, then length bytes. Takes buf. */
int conn_text(struct conn *c, const struct wire_frame *f, char *buf, uint32_t length, bool more)
    __attribute__((warn_unused_result));
/* Where frames end that are received ahead: what is copied to its place later is kept short. */
static inline uint32_t conn_in_end(const struct conn *c)
{
    return c->small ? CONN_IN : CONN_HEAD;
}
/* Bytes received into iov, 0: none now, -1: the connection is done for. */
ssize_t conn_recv(struct conn *c, struct iovec *iov, int pieces);
/* Bytes sent, 0: none now, -1: done for; -EMBAR_EFAULTED: pool memory in iov is gone, c lives. */
ssize_t conn_send(struct conn *c, struct iovec *iov, int pieces);

/* channel.c */
struct channel *channel_find(struct conn *c, uint16_t id);
struct channel *channel_new(struct conn *c, uint16_t id, enum channel_kind kind, int *rc);
void channel_drop(struct channel *ch); /* out of its connection; freed when nothing points to it */
void channel_dirty(struct channel *ch);
void channel_error(struct channel *ch, int code, uint64_t ref, uint64_t sequence, const char *text);
/* Move what channels owe into the out-buffer while it has room: true when anything was. */
bool channel_collect(struct conn *c);

/* parse.c */
void parse_input(struct conn *c);

/* publish.c */
enum turn publish_begin(struct conn *c, const struct wire_frame *f, const struct wire_publish *p);
/* Enough of the body is here: into the pool, or wait for space. */
enum turn publish_reserve(struct conn *c);
/* Give the space back, as if nothing of the body had come. */
void publish_unreserve(struct conn *c);
/* Body bytes that are in memory go to their places. False: the pool is gone, and c is told. */
bool publish_put(struct conn *c, const uint8_t *p, uint32_t n);
enum turn publish_pool(struct conn *c);
enum turn publish_scratch(struct conn *c);
void publish_drop(struct conn *c); /* forget the batch that is arriving: its space is given back */

/* space.c */
void space_init(struct worker *w);
bool space_waits(const struct worker *w);
/* As log_reserve, but what there is for those before c is left to them: -EMBAR_EFULL. */
int space_reserve(struct conn *c, struct batch *b);
/* It looked and found none, or might not; the ring is full. */
void space_join(struct conn *c);
void space_join_ring(struct conn *c);
/* It waits no more: it has its space, or gave up. */
void space_end(struct conn *c);
void space_call(struct worker *w); /* something came free: who is to look next */
void space_tick(struct worker *w); /* the same, when nobody told; and who has gone leaves */

/* ahead.c */
void ahead_set(struct channel *ch, uint64_t sequence);
void ahead_pass(struct channel *ch, uint64_t mark); /* the mark rises to there */
/* The words behind an ACK; how many. */
unsigned ahead_words(const struct channel *ch, le64 words[WIRE_AHEAD]);

/* stage.c */
enum turn stage_collect(struct conn *c); /* CONN_STAGE */
enum turn stage_move(struct conn *c);    /* CONN_MOVE */
/* Staged bytes into the reservation: TURN_NEXT when all are there, TURN_WAIT: next turn, or c failed. */
enum turn stage_land(struct conn *c);
void stage_drop(struct conn *c);
/* The batch is too slow for the pool, or for the beginning of one: from here on it is collected in staging. */
void stage_slow(struct conn *c);
void stage_tick(struct worker *w);
void stage_tell(struct worker *w); /* end of a round: what was given back is told to who waits */
void stage_init(struct worker *w);

/* line.c */
int line_init(struct worker *w) __attribute__((warn_unused_result));
/* Are others before c, so that it may not look for memory yet? */
bool line_before(const struct conn *c);
/* It waits; looked: and there was none, after its worker's bit was set. */
void line_join(struct conn *c, bool looked);
void line_leave(struct conn *c);
bool line_waits(const struct worker *w);
void line_open(struct worker *w); /* something was given back, somewhere */
void line_call(struct worker *w); /* who is to look next */
/* Who was called and has had its share already is to look in this round all the same. */
void line_hurry(struct worker *w);

/* share.c */
enum share { SHARE_TAKEN, SHARE_OWN, SHARE_ALL }; /* else the bound that is reached */
/* n more of at most `most`, of which a principal that has `own` never has the last eighth. */
enum share share_take(atomic_uint *all, atomic_uint *own, uint32_t n, uint32_t most)
    __attribute__((warn_unused_result));
void share_give(atomic_uint *all, atomic_uint *own, uint32_t n);
/* What one principal had is another one's. False: that one's bound is reached. */
bool share_move(atomic_uint *from, atomic_uint *to, uint32_t n, uint32_t most)
    __attribute__((warn_unused_result));

/* ask.c */
int ask_begin(struct conn *c, unsigned stage, struct ask **out) __attribute__((warn_unused_result));
void ask_submit(struct conn *c);
void ask_end(struct conn *c);

/* walk.c */
struct walked {
    struct node_stat node; /* found: it; missing: the directory that would hold it */
    struct node_stat dir;  /* found: the directory that holds it (of the root: itself) */
    const char *name;      /* last component looked at; missing: the first one that is */
    size_t name_length;
    bool more; /* missing: further components follow it */
};
/* 0, -ENOENT (see above), -ENOTDIR, -EACCES, -EMBAR_ENAME, -EMBAR_ERESERVED. Empty path: the root. */
int walk(const struct conn *c, const char *path, size_t length, struct walked *out)
    __attribute__((warn_unused_result));
/* May the connection's principal do `bits` (4 read, 2 write, 1 pass) to the node? */
bool may(const struct conn *c, const struct node_stat *st, unsigned bits);
/* Is the principal its owner, or one who may all? */
bool owns(const struct conn *c, const struct node_stat *st);
/* May the principal take the node out of its directory (a sticky one gives only to owners)? 0,
 * -EACCES, -EPERM. */
int may_take(const struct conn *c, const struct node_stat *dir, const struct node_stat *st)
    __attribute__((warn_unused_result));
/* What a chmod of the node to `mode` gives: set-group-id only to who is in the group. */
uint32_t mode_given(const struct conn *c, const struct node_stat *st, uint32_t mode);
/* Walk, and make what is missing: 0 found or made; 1 asked the log, call again with its answer; or
 * an error. When 0, *made says whether this very ask made the last component. */
struct making {
    bool parents, directory;
    uint32_t mode;              /* 0: default */
    uint8_t order, ack, policy; /* order, ack: or WIRE_ANY */
    uint64_t keep_bytes, keep_age;
};
int make_path(struct conn *c, const char *path, size_t length, const struct making *how,
              struct walked *out, bool *made) __attribute__((warn_unused_result));

/* open.c: frames that are answered once (TURN_WAIT: asked the log; called again with the answer) */
enum turn open_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body);
enum turn close_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body);
/* hello.c */
enum turn hello_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body);
/* subscribe.c */
enum turn subscribe_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body);
enum turn cancel_frame(struct conn *c, const struct wire_frame *f);
struct gather *gather_new(void);
/* Send from one subscription; budget shrinks. 1: go on, 0: the socket is full or it has no more,
 * -1: the connection is done for. */
int subscribe_send(struct channel *ch, size_t *budget);
/* admin.c */
enum turn admin_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body);
/* report.c: answers in JSON; 0 when the answer was queued */
int report_topic(struct conn *c, const struct wire_frame *f, const struct node_stat *st)
    __attribute__((warn_unused_result));
int report_broker(struct conn *c, const struct wire_frame *f) __attribute__((warn_unused_result));
int report_session(struct conn *c, const struct wire_frame *f, uint64_t id)
    __attribute__((warn_unused_result));
int report_list(struct conn *c, const struct wire_frame *f, uint32_t top, uint32_t after,
                bool directories) __attribute__((warn_unused_result));

#endif
