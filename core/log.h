/* The log: what net, fs and the command see of core. One object per pool and process.
 *
 * A batch's way through here (DESIGN section 3):
 *   log_reserve     step 3   pool space, or -EMBAR_EFULL
 *   log_span        step 4   where payload bytes go; the caller stores them in place
 *   log_writeback   step 5   begin writing back a received piece while it is hot
 *   log_announce    step 6   side record, drain, descriptor with its commit word
 *   log_commit      step 7,8 runs the epoch unless another thread is at it: order, entries, drain
 *   completion      step 9   the publisher may be acked; readers see the bytes
 *
 * Threads. A producer belongs to one thread at a time (its pending ring is single-producer). All
 * other functions are safe from any thread. Completions and watchers are called by whichever
 * thread runs the epoch: they must not block and must not call log_announce, log_commit,
 * log_control_wait or log_close. They reply, or queue work for a thread of their own.
 *
 * Ownership. Topics are reference-counted. A struct batch and its completion belong to the caller
 * and must stay in place from log_announce until the completion was called.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/pool.h"
#include "embar/error.h"

struct log;
struct topic;
struct producer;
struct extent;

struct log_options {
    struct region *region;    /* open, locked by log_open; outlives the log; formatted when blank */
    struct pool_geometry geo; /* for formatting */
    bool readonly;            /* no lock, nothing written, no producers: dump, show, fsck */
    unsigned hold_ms;         /* gap: hold later batches this long, then fence. 0: 2000 */
    unsigned sessions;        /* bound of the session table; a principal may have a quarter of one
                               * above 256. 0: 65536 */
    unsigned session_lifetime_s; /* idle for longer: its place may be given away. 0: 24 h */
    unsigned topics;             /* bound of topics and directories. 0: 100000 */
    const uint8_t *boot_id;      /* tests: pretend that this host booted as this; NULL: its own */
    bool manual;                 /* tests: no background thread; log_tick() does its work */
    /* Called once when the pool fails, with the sentence of log_cause, on whichever thread found it,
     * perhaps with locks held: note it and return. */
    void (*fault)(void *arg, const char *why);
    void *fault_arg;
};

int log_open(struct log **out, const struct log_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Commits what is announced, checkpoints, syncs, marks the claim clean, stops the background
 * thread. No producer may be in use and no completion is outstanding when it returns. */
void log_close(struct log *log);

/* The pool failed (a guard or an EFAULT said so: -EMBAR_EFAULTED; a sync: -errno): from here on
 * nothing is accepted, acked or made visible; what can be read is. The first cause is kept. */
void log_fault(struct log *log, int status);
/* Why, as sentences for a person, in buf; NULL when it did not fail. */
#define LOG_CAUSE_SIZE 512
const char *log_cause(const struct log *log, char *buf, size_t size);

struct pool *log_pool(struct log *log);
unsigned log_producers(const struct log *log);
struct producer *log_producer(struct log *log, unsigned i);

/* ---- Completions -------------------------------------------------------------------------- */

struct commit {
    int status;      /* 0, or the negative code why it was not committed */
    uint64_t number; /* entry number */
    uint64_t offset; /* batch: log offset of its first byte. Control: see struct control */
    uint64_t session;
    uint64_t sequence; /* batch of a session: its mark, up to which all batches are committed; at
                        * orders 0 and 2 this batch itself may stand above it */
    uint64_t messages; /* batch of a session: messages in the batches up to the mark */
    uint32_t id;       /* control: id made (MKDIR, CREATE) */
    uint64_t bytes;    /* TRIM: how many were given up */
    uint32_t epoch;    /* session control or fence: the epoch now */
    bool duplicate;    /* was committed before; nothing was added */
};

struct completion {
    void (*done)(struct completion *self, const struct commit *commit);
    struct completion *next; /* free for the receiver's queue once done was called */
};

/* ---- Publishing --------------------------------------------------------------------------- */

struct batch {
    /* in */
    struct topic *topic;  /* caller holds a reference until completion */
    uint32_t length;      /* payload bytes, 1..pool.max_batch */
    uint32_t count;       /* messages, 1..MEDIA_MAX_MESSAGES */
    bool equal;           /* all messages have length / count bytes (no remainder) */
    uint64_t session;     /* 0: none (no deduplication) */
    uint64_t sequence;    /* from 1, one a batch; with a session only */
    uint32_t epoch;       /* the session's, as the publisher knows it: a stale one is refused, so
                            * that what was sent before a fence cannot land after it */
    bool past_removal;    /* an open file's: taken though its topic was removed. See log_announce */
    uint32_t payload_crc; /* CRC32C of the payload, set before announce */
    struct completion *completion;
    /* log's own */
    uint64_t run0, run1, side; /* pool offsets */
    uint32_t run0_length;
    uint32_t check;    /* CRC of the side record */
    uint32_t producer; /* whose announced it + 1, 0: the sequencer's own */
    bool fifo;         /* its topic was at order 5 by then */
    uint64_t after;    /* an entry committed before it was announced */
    struct extent *extent0, *extent1;
    uint64_t time;
    struct batch *next; /* hold list of its session, then list of what is told */
    int status;
    bool duplicate;
};

/* Reserve space for b->length bytes and its side record. -EMBAR_EFULL (wait with log_space_watch),
 * -EMBAR_ETOOBIG, -EMBAR_EINVALID, -EMBAR_EGONE, -EMBAR_EFAULTED, -EROFS. */
int log_reserve(struct log *log, struct batch *b) __attribute__((warn_unused_result));
/* The same, but only in space that the topic has already, which nobody else can have; of the bound on what
 * is reserved it leaves `owed` bytes to those who wait (at most seven eighths). -EMBAR_EFULL is no
 * wait: log_space_watch may not tell. */
int log_reserve_there(struct log *log, struct batch *b, uint64_t owed)
    __attribute__((warn_unused_result));
/* Address of payload byte `at`; *n gets how many bytes stand there contiguously. */
void *log_span(struct log *log, const struct batch *b, uint32_t at, uint32_t *n);
/* Where the caller puts count le32 lengths before log_announce; NULL when b->equal. Their sum must be
 * b->length: checked by log_announce. */
le32 *log_lengths(struct log *log, const struct batch *b);
/* Payload bytes [at, at+n) are stored: write them back. Should they be gone, log_announce says so. */
void log_writeback(struct log *log, const struct batch *b, uint32_t at, uint32_t n);
/* Payload bytes [at, at+n) were received in place: add them to *crc (CRC32C; NULL: not wanted) and
 * begin writing them back. 0 or -EMBAR_EFAULTED. */
int log_landed(struct log *log, const struct batch *b, uint32_t at, uint32_t n, uint32_t *crc)
    __attribute__((warn_unused_result));
/* The same for bytes that stand elsewhere: copied there first. */
int log_store(struct log *log, const struct batch *b, uint32_t at, const void *from, uint32_t n,
              uint32_t *crc) __attribute__((warn_unused_result));
/* Bytes [at, at+n) of the lengths, copied there. 0 or -EMBAR_EFAULTED. */
int log_store_lengths(struct log *log, const struct batch *b, uint32_t at, const void *from,
                      uint32_t n) __attribute__((warn_unused_result));
/* Bytes [at, at+n) of what was stored of the payload, or of the lengths, copied out again. 0 or
 * -EMBAR_EFAULTED. */
int log_peek(struct log *log, const struct batch *b, uint32_t at, void *to, uint32_t n)
    __attribute__((warn_unused_result));
int log_peek_lengths(struct log *log, const struct batch *b, uint32_t at, void *to, uint32_t n)
    __attribute__((warn_unused_result));
/* The CRC32C of all lengths. 0 or -EMBAR_EFAULTED. */
int log_lengths_crc(struct log *log, const struct batch *b, uint32_t *crc)
    __attribute__((warn_unused_result));
/* Hand the whole batch to the sequencer. On success the completion will be called exactly once
 * (not before log_commit runs somewhere). On error (-EMBAR_EINVALID: lengths do not add up,
 * -EMBAR_EFAULTED; -EAGAIN: the producer's ring is full: again when a space watcher is fired) the
 * reservation still stands: log_abandon it, if it is not to be announced again. Never waits.
 * A batch for a topic that was removed is refused with -EMBAR_EGONE, unless it is `past_removal`: then
 * whoever has the topic reads it, it has no entry (number 0), and it goes with the last reference. */
int log_announce(struct producer *p, struct batch *b) __attribute__((warn_unused_result));
/* Give a reservation back that was not announced. */
void log_abandon(struct log *log, struct batch *b);
/* Run epochs until what was announced before the call is taken by this or another thread. */
void log_commit(struct log *log);
/* Returns when no completion is being called any more that was due before: what they refer to may
 * go. Waits for the epoch that runs; never from a completion. */
void log_quiesce(struct log *log);

/* ---- Control actions ---------------------------------------------------------------------- */

struct control {
    /* in: fields as struct media_control says for its kind */
    enum media_control_kind kind;
    uint32_t id, parent, mode, uid, gid, epoch;
    uint16_t flags;
    uint8_t order, ack, policy;
    uint64_t value, value2, time;
    uint64_t altered;       /* filled in: when it is done, CLOCK_REALTIME ns */
    uint64_t number;        /* filled in: of its entry */
    uint64_t end, messages; /* TRIM, filled in: of the topic, by then */
    bool taken;             /* FENCE: for a new process, which earlier ones must not follow */
    char name[MEDIA_MAX_NAME + 1];
    struct completion *completion;
    /* log's own */
    struct control *next;
};

/* Flag of RENAME: an existing target is -EEXIST. Without it an empty directory or topic is replaced;
 * a topic that holds data is -EPERM. */
#define LOG_RENAME_NOREPLACE 0x8000u

/* Queue a control action; the completion is called when it is committed or refused (after
 * log_commit). Any thread. What MKDIR and CREATE make in a set-group-id directory gets its group.
 * CREATE of an existing topic answers -EEXIST with its id in commit.id.
 * OPEN: commit.session is the new session's id. TRIM: commit.offset is the new base.
 * ATTR of a topic that was removed and is still referred to holds until it goes. */
void log_control(struct log *log, struct control *c);
/* The same, waiting. For commands, tests and set-up only: never from a worker or handler. */
int log_control_wait(struct log *log, struct control *c, struct commit *commit)
    __attribute__((warn_unused_result));

/* ---- Names -------------------------------------------------------------------------------- */

#define LOG_ROOT_ID 1u /* the root directory; topic and directory ids share one space */

struct node_stat {
    uint32_t id, parent, mode, uid, gid; /* mode with S_IFREG or S_IFDIR */
    uint8_t order, ack, policy;
    uint64_t base, end;         /* topic: readable log offsets are [base, end) */
    uint64_t first, messages;   /* topic: numbers of retained messages are [first, messages) */
    uint64_t created, modified; /* CLOCK_REALTIME ns */
    uint64_t altered; /* the same: last change of whatever stands here, bytes or attributes */
    uint64_t keep_bytes, keep_age;
    uint64_t batches;    /* committed since the log was opened */
    uint32_t children;   /* directory: entries in it */
    uint32_t generation; /* topic: raised by each trim */
    char name[MEDIA_MAX_NAME + 1];
};

/* One valid name component: 0, -EMBAR_ENAME. */
int name_check(const char *name, size_t length);
/* All of a path, as of log_resolve: the same. The root is one, too, and has no names. */
int path_check(const char *path, size_t length);
/* Child of a directory. -ENOENT, -ENOTDIR, -EMBAR_ENAME. */
int log_lookup(struct log *log, uint32_t parent, const char *name, size_t length,
               struct node_stat *st);
/* A path of components separated by '/', a leading one allowed: the node. */
int log_resolve(struct log *log, const char *path, struct node_stat *st);
/* The node by id, also when deleted but still referenced (then -EMBAR_EGONE with st filled). */
int log_stat(struct log *log, uint32_t id, struct node_stat *st);
/* The path of a node into buf (MEDIA_MAX_PATH + 1 bytes). */
int log_path(struct log *log, uint32_t id, char *buf, size_t size);
/* Children of a directory in id order, starting after id `after`: fill up to n; returns how many,
 * or -ENOTDIR / -ENOENT. */
int log_list(struct log *log, uint32_t parent, uint32_t after, struct node_stat *st, unsigned n);

/* ---- Topics and reading ------------------------------------------------------------------- */

/* A counted reference. NULL when there is no such topic (any more). */
struct topic *log_topic(struct log *log, uint32_t id);
/* The same, also for one that was removed and that somebody still refers to. */
struct topic *log_topic_held(struct log *log, uint32_t id);
struct topic *topic_ref(struct topic *t);
void topic_put(struct topic *t);
uint32_t topic_id(const struct topic *t);
/* Readable end: monotonic; every byte below it can be read (or was trimmed). */
uint64_t topic_end(const struct topic *t);
uint64_t topic_base(const struct topic *t);
bool topic_deleted(const struct topic *t);
/* It was removed, and nobody but the caller refers to it: nobody will ever read it. */
bool topic_is_last(const struct topic *t);

#define READ_PIECES 128
struct read_view {
    struct iovec iov[READ_PIECES]; /* in pool memory: read-only */
    int pieces;
    size_t bytes;
    struct extent *pins[READ_PIECES];
    struct log *log;
};
/* Pin up to `max` bytes at `offset`. Fewer only at the end of the topic, before what fsck noted as
 * damaged or what is gone from memory, or when the pieces run out; 0 bytes at the end.
 * -EMBAR_ETRIMMED below the base, -EMBAR_ECORRUPT where the damage stands, -EMBAR_EFAULTED where
 * memory is gone. Short-lived: from reply to release; never across a wait. */
int topic_read(struct topic *t, uint64_t offset, size_t max, struct read_view *v)
    __attribute__((warn_unused_result));
void read_release(struct read_view *v);
/* A log that was opened for reading only pins nothing in a pool that another process serves. Copy what a
 * view or batch shows (payload, lengths), then ask: 0: the copy is right. -ESTALE: its place may have been
 * given away meanwhile; open the log again. */
int log_settled(struct log *log) __attribute__((warn_unused_result));

/* Batches one by one, with their message boundaries. Zero the cursor to begin. */
struct batch_cursor {
    uint64_t offset, message; /* of the batch that comes next */
    uint64_t hint[4];         /* log's own */
};
struct batch_view {
    uint64_t offset, message, time;
    uint32_t length, count, payload_crc;
    const le32 *lengths; /* NULL: all equal */
    struct read_view data;
};
/* The batch that holds cursor->offset (which may lie inside it), pinned; moves the cursor behind it.
 * 1: a batch; 0: at the end; -EMBAR_ETRIMMED; -EMBAR_ECORRUPT. Release view->data. */
int topic_next(struct topic *t, struct batch_cursor *c, struct batch_view *view)
    __attribute__((warn_unused_result));
/* Bytes of messages [from, to) of a batch. -EMBAR_ECORRUPT, -EMBAR_EFAULTED. */
int view_bytes(const struct batch_view *v, uint32_t from, uint32_t to, uint64_t *bytes)
    __attribute__((warn_unused_result));
/* The message of a batch that holds log offset `offset`: its index and where it begins. */
int view_message(const struct batch_view *v, uint64_t offset, uint32_t *index, uint64_t *at)
    __attribute__((warn_unused_result));
/* Offset where message number n begins (n == messages: the end). -EMBAR_ETRIMMED, -EMBAR_EINVALID. */
int topic_seek_message(struct topic *t, uint64_t n, uint64_t *offset);
/* Offset of the first batch whose time is >= ns (the end when none). Times are the index's: they never
 * go back from one batch to the next, whatever clocks and publishers did. */
int topic_seek_time(struct topic *t, uint64_t ns, uint64_t *offset);

/* Called after bytes were added, the base moved or the topic was deleted. One of net's connections
 * or fs's handles registers one; `fire` runs under the topic's watch lock: only push and wake. */
struct watcher {
    void (*fire)(struct watcher *self);
    struct watcher *next, **link;
};
/* Look at topic_end() after registering: what came before is not told again. */
void topic_watch(struct topic *t, struct watcher *w);
void topic_unwatch(struct topic *t, struct watcher *w); /* not called again once it returned */
/* Any commit that changed names or attributes: `fire` as above. */
void log_names_watch(struct log *log, struct watcher *w);
void log_names_unwatch(struct log *log, struct watcher *w);
/* Called when space was freed after a log_reserve answered -EMBAR_EFULL, or a ring emptied after a
 * log_announce answered -EAGAIN; also to hear who still waits: nothing is done for who does not try again. */
void log_space_watch(struct log *log, struct watcher *w);
void log_space_unwatch(struct log *log, struct watcher *w);
/* Bytes that reservations might find by now: free, and below the bound of those that are open. Says that
 * somebody waits, as a log_reserve that found none: space watchers are called when there is more. */
uint64_t log_space_room(struct log *log);
/* Bytes of it that a batch takes, where its topic's extent has no room for it. */
uint64_t log_space_need(struct log *log, uint32_t length, uint32_t count, bool equal);
/* Those who wait have an order, whatever the way they came by: see places.c. A line is of one owner, which hands on
 * space to those in it; w is fired as log_space_watch says, and when others before got in or left. NULL: there
 * are too many lines. */
struct space_line;
struct space_line *log_space_line(struct log *log, struct watcher *w);
void log_space_line_end(struct log *log, struct space_line *l);
#define SPACE_NOBODY UINT64_MAX
/* Who begins to wait has this place in the order, from 1, until it does no more. */
uint64_t log_space_place(struct log *log);
/* The first of the line has the place `since` (SPACE_NOBODY: nobody waits) and those that may look now need `owed`
 * bytes. Then look whether others are still before, for who left meanwhile may not have seen that somebody
 * waits. One thread at a time. */
void log_space_say(struct log *log, struct space_line *l, uint64_t since, uint64_t owed);
/* Bytes to be left to those before a place (SPACE_NOBODY: all): of other lines; of this one, as it was said. */
uint64_t log_space_owed(const struct log *log, const struct space_line *mine, uint64_t place);
uint64_t log_space_said(const struct space_line *l, uint64_t place);
/* Nobody waits anywhere: cheap. */
bool log_space_quiet(const struct log *log);
/* Who was before others waits no more: fires those where somebody does. No lock of any watcher's is held. */
void log_space_tell(struct log *log);
/* As log_reserve where there is room for b beside `owed` bytes, else as log_reserve_there: *behind. */
int log_reserve_behind(struct log *log, struct batch *b, uint64_t owed, bool *behind)
    __attribute__((warn_unused_result));
/* How many batches might be announced before the ring is full. The producer's thread. */
unsigned log_ring_room(const struct producer *p);

/* ---- Sessions and facts ------------------------------------------------------------------- */

struct session_stat {
    uint64_t id, sequence, messages, time;
    uint32_t topic, epoch, principal;
};
/* The low bits of a session's epoch count fences for a gap, the others how often a new process took
 * it over. More gaps in a row than fit look like a takeover: that ends a publisher, and loses nothing. */
#define LOG_EPOCH_GAPS 12u
/* Why a batch of epoch `known` is refused in epoch `now`: -EMBAR_EFENCED: a gap; its publisher goes on
 * in that epoch. -EMBAR_ETAKEN: its numbers are another process's now. */
int log_fenced(uint32_t known, uint32_t now);
/* -EMBAR_ESESSION when unknown. */
int log_session(struct log *log, uint64_t id, struct session_stat *st);

struct log_stat {
    uint64_t size, data, used, reserved, free; /* bytes; used: in extents that hold something */
    uint64_t committed, durable, synced;       /* entry numbers */
    uint64_t checkpoint;                       /* number covered by the newest checkpoint */
    uint64_t epochs, batches, messages, bytes; /* since open */
    uint64_t topics, directories, max_nodes;   /* max_nodes: of both together */
    uint64_t sessions, max_sessions;
    uint64_t recovered, recovery_ns; /* entries replayed at open, time it took */
    uint64_t duplicates, held, fenced;
    uint64_t trims, trimmed; /* since open: how often, bytes; by hand or by retention */
    uint64_t moves, moved; /* since open: blocks cleared for a batch that found none, bytes moved */
    uint32_t term, slot;
    uint64_t incarnation;
    bool faulted; /* log_cause says why */
};
void log_stat_all(struct log *log, struct log_stat *st);

/* Write a checkpoint now (it also happens by itself at half an index ring). */
int log_checkpoint(struct log *log);
/* manual logs: expire holds, checkpoint when due, retention. now_ns: CLOCK_MONOTONIC; when that is
 * in the future, so is the moment that ages are counted to. */
void log_tick(struct log *log, uint64_t now_ns);

#endif
