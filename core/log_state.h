/* The log's own state, shared by the files that implement core/log.h and by nobody else.
 *
 * State is the fold of the index (DESIGN section 5): names, topics' runs and sessions change only
 * in fold.c, by entries in their order, when they are committed and when they are recovered.
 *
 * Threads. Whoever holds `seq.running` is the sequencer: it alone orders, writes entries, folds
 * them in and checkpoints. Everyone else reads what it published under the locks below.
 *
 * Lock order (outer first): names.lock -> topic.lock -> extents.lock;
 * sessions.lock, idle.lock, every watch lock and the control stack are leaves. Completions are called with
 * none of them held.
 */
#ifndef CORE_LOG_STATE_H
#define CORE_LOG_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/extent.h"
#include "core/index.h"
#include "core/log.h"
#include "core/move.h"
#include "core/places.h"
#include "core/side.h"
#include "core/watch.h"

#include <sys/queue.h>
/* Without memory an element is not added: is_hashed tells. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#define is_hashed(element, handle) ((element)->handle.tbl != NULL)

/* ---- Topics (topic.c, reserve.c, read.c) -------------------------------------------------- */

#define RUN_BATCHES 512u /* a run ends here, which bounds a walk over its side records */

#define MASK48 ((1ull << 48) - 1)

/* Batches whose payloads and side records are adjacent; ends where the next run begins. */
struct run {
    uint64_t offset, message;
    uint64_t payload : 48, order : 8, flags : 8; /* flags: MEDIA_RUN_... */
    uint64_t side : 48, batches : 16;            /* batches 0: second part of a split batch */
};
_Static_assert(sizeof(struct run) == 32, "DRAM index: 32 bytes a run");

struct node_key { /* name index key: hashed as bytes up to the end of the name */
    uint32_t parent;
    char name[MEDIA_MAX_NAME + 1];
};

/* Recovery: the side record that says when something was; `check` as its entry has it. */
struct when {
    uint64_t side; /* 0: none */
    uint32_t topic, check;
    bool session; /* the entry has one: `check` is 16 bits */
};

/* Queues of retain.c: over its bytes; by date; by age of its oldest data, for a full pool. */
enum retain_kind { RETAIN_BYTES, RETAIN_AGE, RETAIN_FULL, RETAIN_KINDS };

/* A node of the namespace: a topic or a directory. */
struct topic {
    struct log *log;
    uint32_t id;
    atomic_uint refs;    /* the namespace holds one until the node is removed */
    atomic_bool deleted; /* set by the fold under names.lock; read anywhere */

    /* Attributes: written by the fold under names.lock (write), read under it. */
    struct node_key key;
    uint16_t name_length;
    uint32_t mode, uid, gid;
    uint8_t ack, policy;
    atomic_uchar topic_order; /* 0, 2 or 5 */
    uint64_t created, keep_bytes, keep_age;
    UT_hash_handle by_id, by_name;
    uint32_t *children; /* directory: ids, ascending */
    uint32_t child_count, child_capacity;

    /* Filling (reserve.c), under fill_lock. */
    pthread_mutex_t fill_lock; /* guards fill, fill_order and the extent's bottom and top */
    struct extent *fill;
    unsigned fill_order;
    bool idle; /* on log->idle: that perhaps holds nothing. Under its lock, as the link */
    TAILQ_ENTRY(topic) idle_link;

    /* Committed (topic.c), under lock; end and base may be read without it. */
    pthread_mutex_t lock;
    struct run *runs;
    size_t run_head, run_count, run_capacity;
    uint64_t run_dropped;     /* runs trimmed ever: makes run numbers absolute */
    uint64_t side_tail;       /* header of the last batch's side record; 0: nothing goes on there */
    uint64_t side_tail_below; /* bytes of lengths below it */
    uint64_t last_message_end; /* messages ever */
    uint64_t first_message;    /* number of the first retained message */
    uint64_t modified, batches;
    uint64_t altered;         /* last change of name, attributes, base or entries */
    uint64_t time;            /* index time: the largest of its batches so far */
    struct when when;         /* recovery: what that is to be read from */
    atomic_uint_fast64_t end; /* release by the fold, acquire by readers: bytes below are stored */
    atomic_uint_fast64_t base;
    atomic_uint generation; /* trims */

    /* Sequencer only: end and index time including what is ordered and not committed. */
    uint64_t ordered_end, ordered_time;

    /* Retention (retain.c), sequencer only. */
    bool retained;   /* has a setting that may trim it */
    uint32_t picked; /* among the trims of this round, from 1; 0: not */
    struct {
        uint64_t key;
        uint32_t place; /* in the queue, from 1; 0: not there */
    } queued[RETAIN_KINDS];
    struct watch_list watch;
    LIST_HEAD(topic_sessions, session) sessions; /* of this topic; sequencer only */

    /* Checkpoint (table.c, manifest.c), sequencer only. */
    uint64_t changed; /* generation of the checkpoint that is to tell of its last change, */
    uint64_t told;    /* and of the first that tells of it at all; 0: not known, before all */
    TAILQ_ENTRY(topic) changed_link;
    bool lost_table; /* it was (log->lenient): one lost run stands for what it told */
    bool adopted;    /* fsck_fold.c: no record tells of it, nor what it held before */
    bool doubted;    /* fsck_given.c: what it gave up was perhaps moved, not trimmed */
    struct table {   /* run table of the newest checkpoint */
        struct table_piece {
            struct extent *extent;
            uint64_t first; /* runs [first, first + count), as run_dropped counts */
            uint32_t count, crc;
            bool by_copy; /* it was loaded from its second place: the first is damaged */
            struct media_table *copy; /* while it is loaded to look only; owned */
        } * piece;                    /* oldest first; behind `count` of them `planned` ones */
        size_t count, capacity;
        uint64_t saved; /* runs before this one stand in pieces or are gone */
        /* The next one: pieces before `drop` are trimmed, from `keep` on taken into planned ones. */
        size_t drop, keep, planned;
    } table;
};

/* The control topic, id 0: not in the namespace. */

int topic_create(struct log *log, uint32_t id, struct topic **out)
    __attribute__((warn_unused_result));
void topic_destroy(struct topic *t); /* no references left */
/* One more reference, unless the last one is gone. names.lock held. */
bool topic_ref_held(struct topic *t);
/* Fold a batch in: takes over the reservation's extent references. Recovery has none (NULL): what a
 * new run needs is claimed. */
struct placed {
    uint64_t offset, run0, run1, side, time;
    uint32_t run0_length, length, count;
    uint8_t order0, order1;
    bool equal, late; /* late: `time` is before the topic's index time */
    struct extent *extent0, *extent1;
};
int topic_append(struct topic *t, const struct placed *b) __attribute__((warn_unused_result));
/* Run i stands elsewhere now: payload, its first side record (0: a second part, which has none) in an
 * extent of `order`, on which it holds a reference already. */
void topic_run_move(struct topic *t, size_t i, uint64_t payload, uint64_t side, unsigned order);
/* Drop everything below `base`, which is a message boundary whose message number is `first`. */
void topic_trim(struct topic *t, uint64_t base, uint64_t first);
/* Message boundary at or below `offset`: offset and number. */
int topic_boundary(struct topic *t, uint64_t offset, uint64_t *at, uint64_t *message);
/* Where the first batch begins that needs nothing of the extent around `offset`; the end when none
 * does. */
uint64_t topic_extent_end(struct topic *t, uint64_t offset);
/* Bytes of the extents that a trim to there would give up at most. */
uint64_t topic_extents_below(struct topic *t, uint64_t to);
/* End of run i (index into the live part). Lock held. */
uint64_t topic_run_end(const struct topic *t, size_t i);
/* The run that holds `offset`, which lies in [base, end). Lock held. */
size_t topic_run_find(const struct topic *t, uint64_t offset);
static inline bool run_is_damaged(const struct run *r)
{
    return r->flags & MEDIA_RUN_FLAGS;
}
static inline struct run *topic_run(const struct topic *t, size_t i)
{
    return &t->runs[t->run_head + i];
}
/* The record of a split batch says where its second part was put at first: where it stands now, which
 * is the run behind run i. Lock held. */
static inline void topic_part_place(const struct topic *t, size_t i, struct side *s)
{
    const struct run *part = i + 1 < t->run_count ? topic_run(t, i + 1) : NULL;
    if (s->run1 && part && part->batches == 0 && (part->flags & MEDIA_RUN_MOVED)) {
        s->run1 = part->payload;
        s->order1 = part->order;
    }
}
/* Room for n more runs at the end. Lock held. */
int topic_runs_grow(struct topic *t, size_t n) __attribute__((warn_unused_result));
/* Recovery: give back what growing took beyond need. */
void topic_runs_fit(struct topic *t);
/* read.c: the largest time of the retained batches, as far as they can be read. */
uint64_t topic_time_scan(const struct topic *t);
/* Resume filling the extent that the last committed bytes stand in (after recovery). */
int topic_refill(struct topic *t) __attribute__((warn_unused_result));

/* All open reservations together stay below this (DESIGN section 3). */
uint64_t reserve_bound(const struct log *log);
int reserve_in(struct log *log, struct batch *b, enum extent_class c)
    __attribute__((warn_unused_result));
/* Give up the extent that t fills when it holds nothing, neither committed nor reserved. */
void reserve_idle(struct topic *t);

struct idle {
    pthread_mutex_t lock; /* guards topics and count */
    TAILQ_HEAD(idle_topics, topic) topics;
    unsigned count;
    unsigned left; /* to be looked at in this pass. Sequencer only */
};
/* idle.c: those that perhaps have one; the topic is about to go. Any thread. */
void idle_init(struct idle *l);
void idle_note(struct topic *t);
void idle_forget(struct topic *t);
/* Give it up, or note the topic if it is only being read or received into. Role held, both of them. */
void idle_give_up(struct topic *t);
/* The same for some of those that are noted. False: for all of them. */
bool idle_squeeze(struct log *log);

/* ---- Names (names.c) ---------------------------------------------------------------------- */

struct names {
    pthread_rwlock_t lock; /* guards the two hashes and all nodes' attributes and children */
    struct topic *by_id, *by_name; /* changed by the fold only: the sequencer reads without lock */
    struct topic *removed;         /* by id: gone from the namespace, still referenced */
    uint32_t next_id;
    unsigned topics, directories, limit;
    struct watch_list watch;
};

int names_init(struct log *log);
void names_destroy(struct log *log);
/* Lock held for reading by the caller (any mode). */
struct topic *names_id(struct names *n, uint32_t id);
struct topic *names_removed(struct names *n, uint32_t id); /* one that is still referred to */
struct topic *names_child(struct names *n, uint32_t parent, const char *name, size_t length);
bool names_is_dir(const struct topic *t);
/* Lock held for writing. */
int names_insert(struct names *n, struct topic *t, uint32_t parent, const char *name, size_t length)
    __attribute__((warn_unused_result));
void names_remove(struct names *n, struct topic *t); /* log_stat still finds it, nobody else */
/* The two halves of an insert, for nodes that come in any order. */
int names_add(struct names *n, struct topic *t) __attribute__((warn_unused_result));
int names_link(struct names *n, struct topic *t, uint32_t parent, const char *name, size_t length)
    __attribute__((warn_unused_result));
int names_move(struct names *n, struct topic *t, uint32_t parent, const char *name, size_t length)
    __attribute__((warn_unused_result));

/* ---- Sessions (session.c) ----------------------------------------------------------------- */

struct session {
    uint64_t id;
    uint32_t topic, principal;
    /* Committed state: the fold's; read under sessions.lock. */
    uint32_t epoch;
    uint64_t sequence; /* the mark: all batches up to it are committed */
    uint64_t messages; /* in the batches up to the mark */
    uint64_t time;     /* of the last commit */

    /* Ordering state: the sequencer's alone. Between epochs the same as what is committed. */
    uint64_t ordered, ordered_messages; /* the mark, and messages up to it */
    uint32_t *ahead; /* messages of the batch `sequence % MEDIA_WINDOW` above the mark; 0: not
                                         * taken. NULL: none was ever */
    unsigned ahead_count;
    struct batch *held, *held_last; /* ascending by sequence */
    unsigned held_count;
    uint64_t held_bytes;
    uint64_t gap_since; /* CLOCK_MONOTONIC ns: the gap below them is this old */
    uint64_t arranged;  /* arrange.c: highest sequence seen in this pass */
    bool is_spent;      /* it holds more than its share: to be fenced */
    bool is_ready;      /* on seq.ready */
    struct session *ready_next;
    uint64_t changed, told; /* as a topic's */
    struct when when;       /* recovery: as a topic's */
    TAILQ_ENTRY(session) changed_link;
    TAILQ_ENTRY(session) gap_link; /* on seq.gaps while it holds something */
    TAILQ_ENTRY(session) age_link;
    LIST_ENTRY(session) topic_link;
    struct principal *owner;
    UT_hash_handle hh;
};

struct principal { /* how many sessions one has */
    uint32_t id;
    unsigned sessions;
    UT_hash_handle hh;
};

struct sessions {
    pthread_mutex_t lock; /* guards by_id, count and committed state */
    struct session *by_id;
    unsigned count, limit;
    /* The sequencer's alone: */
    unsigned each;  /* bound a principal */
    uint64_t ahead; /* of all sessions */
    uint64_t lifetime_ns;
    struct principal *principals;
    TAILQ_HEAD(by_age, session) by_age; /* longest idle first */
};

/* session.c. Sequencer only. */
struct session *session_find(struct log *log, uint64_t id);
/* A copy of `s` with what it says is committed, nothing ahead. -EMBAR_ECORRUPT: it is there, or its
 * topic is not. */
int session_add(struct log *log, const struct session *s) __attribute__((warn_unused_result));
void session_drop(struct log *log, struct session *s);
void sessions_destroy(struct log *log);
/* Was the batch taken (ordered, or committed)? Is it further above the mark than the window goes? */
bool session_taken(const struct session *s, uint64_t sequence);
bool session_is_far(const struct session *s, uint64_t sequence);
/* Take a batch that was not taken and is not far. -ENOMEM: it was not taken. */
int session_take(struct log *log, struct session *s, uint64_t sequence, uint32_t messages)
    __attribute__((warn_unused_result));
/* What was taken is committed; `time` is that of the last batch. */
void session_commit(struct log *log, struct session *s, uint64_t time);
/* A new epoch: gaps below the highest committed batch stay empty for ever. */
void session_fence(struct log *log, struct session *s, uint32_t epoch);
/* May `principal` have one more? May close one that has outlived its lifetime. 0, -EMBAR_ELIMIT. */
int session_room(struct log *log, uint32_t principal) __attribute__((warn_unused_result));

/* ---- Sequencer (seq.c, seq_act.c, control.c) ---------------------------------------------- */

#define EPOCH_BATCHES 512u
#define HOLD_BATCHES  4096u /* held a session */

struct producer {
    struct log *log;
    unsigned index;
    struct batch **batch; /* by position % descriptors */
    uint64_t limit, time; /* time: of what it announced last */
    unsigned arranged;    /* arrange.c: rank of its last batch without a session in this pass */
    _Alignas(64) atomic_uint_fast64_t tail; /* announced: release by the producer's thread */
    _Alignas(64) atomic_uint_fast64_t head; /* taken: release by the sequencer */
};

struct item {
    struct batch *batch;
    struct session *session;
    uint64_t number, offset;
    unsigned rank; /* as it came, from 1 */
    bool late;     /* as placed */
    struct producer *producer;
};

struct seq {
    _Alignas(64)
        atomic_bool running; /* the sequencer's role; seq_cst on both sides of the hand-over */
    uint64_t next;           /* number of the entry that comes next */
    uint32_t chain;
    struct item items[EPOCH_BATCHES];
    unsigned count;
    struct batch *told, **told_last; /* refused and duplicate batches, told after the epoch */
    struct session *ready;           /* sessions whose held batches are next in line */
    TAILQ_HEAD(gaps, session) gaps;  /* sessions that hold batches, oldest gap first */
    uint64_t held_bytes;             /* payload of all that is held */
    bool spent;                      /* some session is */
    atomic_bool queued;              /* as the role was last given: controls or ready are left */
    atomic_bool handed;              /* to the background thread: seq_cst, with asleep */
    atomic_bool stalled;             /* waiting for a checkpoint; the background thread resumes */
    unsigned turn;                   /* producer that is drained first */
    struct producer *taking;         /* whose ring is being drained */
    struct control *controls;        /* taken from the stack, in order */
    atomic_uint holds;               /* batches held in all sessions */
    _Atomic(struct control *) stack; /* MPSC: pushed by any thread, emptied by the sequencer */
    unsigned producers;
    struct producer *producer;
};

bool seq_take(struct log *log);
void seq_take_wait(struct log *log);
void seq_give(struct log *log);
/* arrange.c: the epoch's batches in the order that keeps topics' bytes adjacent. Role held. */
void seq_arrange(struct seq *q);
/* One epoch: how much it did; 0 when there was nothing. Role held. */
unsigned seq_epoch(struct log *log);
bool seq_pending(struct log *log);
/* Order, write, harden and fold one control action or the term entry. Role held. */
int seq_control(struct log *log, struct control *c, struct commit *commit);
int seq_term(struct log *log);
int seq_grant(struct log *log, uint32_t slot, uint64_t first, uint64_t count);
/* Entries of moves, whose bytes are durable where they go: all hardened at once, then folded. */
int seq_moves(struct log *log, struct entry *entry, unsigned n);
/* Call the completions of what was refused. Role held. */
void seq_tell(struct log *log);
/* Room for n more entries in the ring without overwriting what the checkpoint needs: 0; -EAGAIN: once
 * the background thread's checkpoint is through; -EMBAR_EFULL: none. */
int seq_room(struct log *log, uint64_t n);

/* order.c. Role held. Into the epoch, held, or refused and told after it; at most `limit` items. */
void order_batch(struct log *log, struct batch *b, unsigned limit);
void order_refuse(struct log *log, struct batch *b, int status);
/* Held batches of sessions on seq.ready; with a status they are refused. How many sessions. */
unsigned order_ready(struct log *log, unsigned limit, int status);
/* The topic's order was changed. */
void order_changed(struct log *log, struct topic *t);
/* Refuse all that a session holds. */
void order_release(struct log *log, struct session *s, int status);
/* Fence sessions that hold more than their share; those whose gap is older than hold_ms. */
void order_fence_spent(struct log *log);
void order_expire(struct log *log, uint64_t now_ns);

/* Is the action lawful now? Fills ids. 0; 1: nothing to do; or why not. Role held. */
int control_validate(struct log *log, struct control *c);
int control_attr(const struct topic *t, struct control *c) /* of an ATTR alone */
    __attribute__((warn_unused_result));
void control_encode(struct media_control *m, const struct control *c);
int control_decode(const void *payload, size_t size, struct control *c);
int fold_control(struct log *log, const struct control *c, uint64_t number, struct commit *commit)
    __attribute__((warn_unused_result));
/* ATTR of a topic that was removed: no entry tells of it. -ENOENT: nobody refers to it any more. */
int fold_removed_attr(struct log *log, struct control *c) __attribute__((warn_unused_result));
int fold_grant(struct log *log, uint32_t slot, uint64_t first, uint64_t count)
    __attribute__((warn_unused_result));
int fold_move(struct log *log, const struct entry *e) __attribute__((warn_unused_result));
/* Tell the allocator what a checkpoint of the state as it is would take. */
void fold_need(struct log *log);
/* The session took the batch already. */
int fold_batch(struct log *log, struct topic *t, struct session *s, const struct placed *p)
    __attribute__((warn_unused_result));

/* ---- Retention (retain.c) ----------------------------------------------------------------- */

struct retain {
    struct retain_queue { /* a heap: the smallest key first */
        struct topic **topic;
        size_t count, capacity;
    } queue[RETAIN_KINDS];
    uint64_t squeezed;         /* CLOCK_REALTIME ns */
    atomic_uint_fast64_t date; /* CLOCK_REALTIME ns of the next turn, UINT64_MAX: none. Relaxed */
    /* Bytes that a reservation did not find; [1]: in one piece. Relaxed. */
    atomic_uint_fast64_t want[2];
    atomic_bool said[2];  /* since the last attempt to move for it. Relaxed: stored before due */
    struct retain_given { /* for each, in turns that followed at once: */
        uint64_t bytes;   /* of data, */
        uint64_t freed;   /* when so many blocks had come free */
    } given[2];
    bool more;       /* the last turn was not the end of it */
    bool moving;     /* for which of them RETAIN_MOVE was said; who runs turns */
    atomic_bool due; /* a turn would do something; relaxed, see seq.handed */
};

/* The last two: when that is done, more. */
enum retain_next { RETAIN_DONE, RETAIN_MORE, RETAIN_SYNC, RETAIN_MOVE };

/* After a batch of t was committed. Role held. */
void retain_look(struct log *log, struct topic *t);
static inline void retain_batch(struct log *log, struct topic *t)
{
    if (t->retained)
        retain_look(log, t);
}
/* After a topic's settings changed; before it is removed. Role held. */
void retain_changed(struct log *log, uint32_t id);
void retain_forget(struct log *log, struct topic *t);
/* Opening: after recovery. Closing: with the last topic gone. */
void retain_resume(struct log *log);
void retain_destroy(struct log *log);
/* One turn: some trims, if due. now: CLOCK_REALTIME ns. Role held. */
enum retain_next retain_run(struct log *log, uint64_t now);
bool retain_due(const struct log *log);
/* ns until the next turn; UINT64_MAX: none. */
uint64_t retain_wait(const struct log *log, uint64_t now);
/* What RETAIN_MOVE asks for. aside: without the role. */
void retain_move(struct log *log, bool aside);
/* A reservation of so many bytes found no space (whole: it cannot stand in two pieces). Any thread. */
void retain_starve(struct log *log, uint64_t bytes, bool whole);

/* ---- The log ------------------------------------------------------------------------------ */

struct log {
    struct pool pool;
    struct region *region;
    unsigned slot;
    uint32_t term;
    bool readonly, manual, opening;
    uint64_t hold_ns;
    struct extents *extents;
    atomic_uint_fast64_t reserved; /* bytes in open reservations */
    struct names names;
    struct sessions sessions;
    struct topic *control; /* topic 0 */
    struct seq seq;
    struct retain retain;
    struct idle idle;
    struct move move[2]; /* for batches that go into two pieces, and for those that do not */
    struct survey survey;

    atomic_uint_fast64_t committed, durable, synced, checkpoint; /* entry numbers */
    /* Watermarks that were written in this term: with the sequencer's role; by whoever syncs. */
    unsigned marks, syncs;
    /* Largest index time of all topics: no batch that is announced now is older. Relaxed: who saw a
     * commit saw it by what told him. Stored by the sequencer. */
    atomic_uint_fast64_t clock;
    atomic_bool faulted;
    atomic_int cause; /* the code of the first log_fault, 0: none; seq_cst, before faulted */
    void (*on_fault)(void *arg, const char *why);
    void *on_fault_arg;
    atomic_uint_fast64_t runs; /* of all topics */
    atomic_bool starved; /* a reservation found no space: fire space watchers on the next free */
    struct watch_list space;
    struct space_lines lines;

    /* Checkpoint: sequencer only. */
    uint64_t root_generation;
    struct manifest {
        struct manifest_piece {
            struct extent *extent;
            uint64_t generation;
            size_t grants; /* of log->grant: in it and in those before it */
            uint32_t crc;
            bool by_copy; /* as a table's */
        } * piece;        /* oldest first; behind `count` of them `planned` ones */
        size_t count, capacity;
        size_t keep, planned; /* the next one: pieces from `keep` on are taken into planned ones */
        TAILQ_HEAD(node_list, topic) nodes; /* all, by their last change */
        TAILQ_HEAD(session_list, session) sessions;
        struct gone {
            uint64_t generation, told, id; /* told: as a topic's; UINT64_MAX: by no piece */
            bool session;
        } * gone; /* ascending by generation: what older pieces may still tell of */
        size_t gone_count, gone_capacity;
        bool whole;    /* the next one tells of everything */
        uint64_t runs; /* that came since the last one */
    } manifest;
    bool
        by_copy; /* a checker's: the second place of a checkpoint's piece will do. For looking only */
    bool lenient; /* a checker's: a topic whose run table is damaged is loaded without it */
    struct media_root *root_spare; /* a checker's choice of what the next root overwrites */
    struct checkpoint_job {
        bool active;    /* between begin and end; then nobody else begins one */
        bool thrifty;   /* being planned: both places of a piece in one page, where they fit */
        bool failed;    /* the last one found no space: nobody needs to wait for the next */
        uint64_t freed; /* blocks that had come free by then */
        struct media_root root, *place; /* place: where it goes */
        uint64_t control_messages;
        size_t retired; /* of log->retired: free once the root is durable */
        uint64_t mark;  /* of what waited for a sync when it began */
    } job;
    struct extent **retired; /* of tables and manifests that the newest root does not name */
    size_t retired_count, retired_capacity;

    /* Background thread (background.c). */
    pthread_t thread;
    bool thread_started;
    int wake_fd;
    atomic_bool stop;
    atomic_bool sync_armed; /* the background thread's sleep ends in time for a sync; seq_cst */
    atomic_bool asleep; /* seq_cst: set before the last look at the work, cleared by who wakes it */

    /* Facts. */
    atomic_uint_fast64_t epochs, batches, messages, bytes, duplicates, held, fenced, trims, trimmed;
    atomic_uint_fast64_t moves, moved; /* blocks cleared, bytes */
    struct media_table *copying;       /* table.c, for looking only: where a fault would leave it */
    struct seen { /* for looking only, under control->lock: the index was followed so far */
        uint64_t number;
        uint32_t chain, term;
        bool is_new;     /* nothing was followed yet, and */
        uint32_t behind; /* this is the CRC of the lines behind it */
    } seen;
    uint64_t limit; /* recovery goes no further than this entry */
    uint64_t recovered, recovery_ns;
    struct media_grant *grant; /* as folded */
    size_t grant_count;
};

/* Nothing more is accepted, acked or made visible. Says so (log_fault) when pool memory was found
 * gone by a guard whose caller had nobody to tell. */
static inline bool log_faulted(struct log *log)
{
    if (region_faulted(log->region))
        log_fault(log, -EMBAR_EFAULTED);
    return atomic_load_explicit(&log->faulted, memory_order_relaxed);
}
/* log.c: the parts of opening that a checker takes by themselves. An empty log; its pool attached and
 * its tables made, all still empty; give it up; the claim line ("claim" rule), pid 0: closed. */
int log_create(struct log **out, const struct log_options *opt) __attribute__((warn_unused_result));
int log_attach(struct log *log, const struct log_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
void log_free(struct log *log);
int log_claim(struct log *log, uint32_t pid) __attribute__((warn_unused_result));
/* What is committed is folded, or it would be lost to who asks us: without memory there is nothing
 * but to wait for it. Sleeps a moment; false when that was done for 10 s. *tries: 0 at first. */
bool fold_patience(unsigned *tries);
uint64_t now_realtime(void);
uint64_t now_monotonic(void);
void log_starved(struct log *log);

/* checkpoint.c. Role held. */
int checkpoint_write(struct log *log);
/* The same without the role, which is taken and given back around each sync. */
int checkpoint_write_aside(struct log *log);
/* Is there space for one now? 0, -EMBAR_EFULL. A checker's. */
int checkpoint_fits(struct log *log);
int checkpoint_load(struct log *log, const struct media_root *root, struct embar_error *err);
/* Opening: begin to write back the roots. */
int checkpoint_harden(struct log *log) __attribute__((warn_unused_result));
void checkpoint_retire(struct log *log, struct extent *e);
/* Each piece of a manifest or table stands twice in its extent, at the begin and at the middle, for a
 * checker to go by: bytes that one has room for; the order of an extent for so many, with the two in
 * different pages (any smaller one that has room will do); write the second one, and write it back. */
uint64_t checkpoint_room(uint64_t extent_size);
unsigned checkpoint_order(const struct log *log, uint64_t bytes);
void checkpoint_copy(struct log *log, const struct extent *e, uint64_t bytes);
/* An extent that a checkpoint names: in bounds, aligned, and `need` bytes fit in each half. */
bool checkpoint_extent(const struct pool *p, uint64_t at, unsigned order, uint64_t need);
/* table.c: take the extents for what came to t's run table since the last checkpoint, merged with
 * what it holds or not; give them back; write it; what the topic's node says of it (after the write);
 * load the one that a node names (base and end of t are set); give it up. */
int table_plan(struct log *log, struct topic *t, bool merge) __attribute__((warn_unused_result));
void table_unplan(struct log *log, struct topic *t);
void table_write(struct log *log, struct topic *t);
void table_node(const struct topic *t, struct media_node *m);
int table_load(struct log *log, struct topic *t, const struct media_node *m)
    __attribute__((warn_unused_result));
void table_retire(struct log *log, struct topic *t);
void table_destroy(struct topic *t);
/* Runs that a checkpoint holds were changed: the next one writes all of t's; those from number `run`
 * on (as run_dropped counts), and what stands in one piece with it. */
void table_rewrite(struct log *log, struct topic *t);
void table_reopen(struct log *log, struct topic *t, uint64_t run);
/* manifest.c: the same for all else. */
void manifest_init(struct manifest *m);
void manifest_destroy(struct log *log);
int manifest_plan(struct log *log, bool merge) __attribute__((warn_unused_result));
void manifest_unplan(struct log *log);
void manifest_write(struct log *log, uint64_t generation);
int manifest_load(struct log *log, const struct media_root *root)
    __attribute__((warn_unused_result));
/* The fold changed it; it goes. */
void manifest_touch(struct log *log, struct topic *t);
void manifest_touch_session(struct log *log, struct session *s);
void manifest_drop(struct log *log, struct topic *t);
void manifest_drop_session(struct log *log, struct session *s);
int manifest_gone(struct manifest *m, const struct gone *g) __attribute__((warn_unused_result));
/* Blocks that the next one takes at most, where space is in single blocks. */
uint64_t manifest_need(const struct log *log);
uint64_t table_need(const struct log *log);
size_t manifest_node_size(size_t name_length);
uint32_t manifest_crc(const struct media_manifest *h, const void *records);
/* Is the checksum of a root right? */
bool checkpoint_root_valid(const struct media_root *r);
/* The newest valid root of all slots, or NULL. */
const struct media_root *checkpoint_newest(struct log *log, struct media_root *copy);
/* There is a newer one by now, of whoever serves the pool that we look at. */
bool checkpoint_moved(struct log *log);

/* recover.c. The entry behind the chain: in any of the slots' rings, the one of the highest term, from
 * `term` on, when a term was taken over. */
struct slots {
    unsigned slot[MEDIA_MAX_SLOTS], count;
};
bool recover_next(const struct log *log, const struct slots *slots, uint32_t term, uint64_t number,
                  uint32_t chain, struct entry *e, uint32_t *next);
/* -EAGAIN: again with a new log, up to log->limit. */
int recover(struct log *log, struct embar_error *err) __attribute__((warn_unused_result));
/* The parts that a checker takes by themselves: the largest number that some slot's watermark vouches
 * for, and whether the machine has booted since (files only); is the batch there, and whole?; the
 * term of a slot's claim, 0 when the line does not hold. */
uint64_t recover_trusted(const struct log *log, bool *booted);
bool recover_whole(const struct log *log, const struct entry *e, const struct entry *part);
uint32_t recover_claim_term(const struct pool *pool, unsigned slot, struct media_claim *claim);
/* A way along the chain: the line for `number` that continues it, in any slot; one entry (of a split
 * batch: both) into the state; a session went by another way; the end. */
struct replay *recover_begin(struct log *log);
bool recover_entry(struct replay *r, uint32_t term, uint64_t number, uint32_t chain,
                   struct entry *e, uint32_t *next);
int recover_fold(struct replay *r, const struct entry *e, const struct entry *part)
    __attribute__((warn_unused_result));
void recover_forget(struct replay *r);
/* A batch or action (of a split batch: both entries) above what is trusted, on a file whose machine has
 * booted since, before it is folded. 1: it may be; 0: it is the cut; -ENOMEM. What is live in the end
 * must be whole where it stands: the last entry before the first batch that is not, or UINT64_MAX. */
int recover_doubt(struct replay *r, const struct entry *head, const struct entry *part)
    __attribute__((warn_unused_result));
uint64_t recover_limit(const struct replay *r);
void recover_end(struct replay *r);

/* settle.c: for looking only, what was recovered and where the index goes on. */
void settle_begin(struct log *log, uint64_t number, uint32_t chain, uint32_t term);

/* background.c */
int background_start(struct log *log) __attribute__((warn_unused_result));
void background_stop(struct log *log);
void background_wake(struct log *log);
int background_sync(struct log *log);
/* After a commit: an ordinary file is synced within its interval. */
void background_arm_sync(struct log *log);
bool background_only(const struct log *log); /* epochs run there alone: their drain may block */

#endif
