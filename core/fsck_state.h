/* What the files of fsck share, and nobody else sees. One thread, but for fsck_walk.c's workers.
 *
 * The state of a pool is loaded into a struct log that is never served: strictly when that goes
 * (the loaders of checkpoint.c, table.c and recover.c as they are), else around the damage
 * (fsck_replay.c). Then it is compared with every batch (fsck_walk.c), and written anew
 * (fsck_repair.c).
 */
#ifndef CORE_FSCK_STATE_H
#define CORE_FSCK_STATE_H

#include "core/fsck.h"
#include "core/log_state.h"

#define FSCK_FINDINGS 10000u /* more are counted only */

struct fsck {
    const struct fsck_options *opt;
    struct fsck_report *report;
    struct region *region;
    struct pool pool;
    pthread_mutex_t lock; /* guards the report while workers walk */

    struct log *log;         /* the state found */
    bool state_damaged;      /* it is not what the newest root and the index say: write it anew */
    struct media_root *base; /* the area of the root that it was loaded from; NULL: none */
    uint64_t number;         /* the last entry in it */
    uint64_t highest;        /* number that any structure of the pool speaks of */
    uint64_t trusted;
    bool outrun;   /* it was loaded from a checkpoint that the index has gone past */
    bool unproved; /* entries are lost, and nothing proves what they said: */
    bool maybe;    /* if there were any behind the last that stands */
    bool watermark_damaged;
    bool root_damaged;      /* what every opening begins with may not be the newest */
    uint64_t lines_damaged; /* slots whose lines are to be written anew, a bit each */
    uint64_t roots_damaged; /* slots with a damaged root, a bit each */
    bool super_damaged[2];

    struct orphan_at *orphan_at; /* where the copies of those stand, in that order; owned */
    struct orphan *orphan;       /* whole batches that nothing names (fsck_orphan.c) */
    size_t orphans, orphan_capacity;
    size_t twins;             /* behind those: second copies of batches that were moved */
    struct orphan **of_topic; /* both by themselves, by topic (fsck_list.c); owned */
    bool orphans_known;

    struct extent *
        *held; /* what its first checkpoint leaves as it is; owned, but for the extents */
    size_t held_count, held_capacity;

    struct let_go *let_go; /* what a repair drops for want of space (fsck_room.c); owned */
    size_t let_go_count, let_go_capacity;

    struct known *known; /* what earlier repairs gave up, by topic and offset; owned */
    size_t known_count;

    uint64_t unlisted;           /* findings that are no remarks and were only counted, */
    uint64_t unlisted_left;      /* those of them that a repair leaves as they are */
    struct overwritten *written; /* places that a repair overwrites or gives up; owned */
    size_t written_count, written_capacity;
    bool written_short; /* there was no memory to note one */

    struct unplaced *unplaced; /* what it saves aside for it found no place; owned */
    size_t unplaced_count, unplaced_capacity;
};

/* ---- fsck_report.c ------------------------------------------------------------------------ */

/* What to put into a finding; the text says what is wrong and what it means, in whole sentences. */
struct finding {
    enum fsck_kind kind;
    enum fsck_severity severity;
    enum fsck_action action;
    uint32_t id;
    struct fsck_range messages, offsets, entries, place;
};
void fsck_say(struct fsck *f, const struct finding *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Where what a finding tells of stands, when a repair saves it aside, also when the report is full. */
struct overwritten {
    enum fsck_kind kind;
    struct fsck_range place;
};
/* How much was said so far; void what was said since, also what was only counted. */
struct fsck_said {
    size_t findings, errors, warnings, remarks, unplaced, written;
    uint64_t unread, unlisted, unlisted_left;
};
struct fsck_said fsck_said(const struct fsck *f);
void fsck_unsay(struct fsck *f, const struct fsck_said *said);
/* Was it said of any of these bytes of the topic that they are lost? */
bool fsck_said_lost(struct fsck *f, uint32_t id, uint64_t from, uint64_t to);
void fsck_progress(const struct fsck *f, const char *stage, uint64_t done, uint64_t total);
/* "topic a/b", or "topic 7" when it has no path. buf: FSCK_NAME bytes. */
#define FSCK_NAME (MEDIA_MAX_PATH + 32)
const char *fsck_name(struct log *log, uint32_t id, char *buf);

/* ---- fsck_lines.c: superblocks, slot lines, roots ------------------------------------------- */

int fsck_supers(struct fsck *f, struct embar_error *err);
void fsck_lines(struct fsck *f);
/* Valid roots, the newest first; at most n. */
struct fsck_root {
    struct media_root root;
    struct media_root *at;
};
unsigned fsck_roots(struct fsck *f, struct fsck_root *r, unsigned n);

/* ---- fsck_load.c, fsck_replay.c: the state ---------------------------------------------------- */

int fsck_state(struct fsck *f, struct embar_error *err) __attribute__((warn_unused_result));
/* From entry `number` of the log's checkpoint on, around what is damaged. */
int fsck_replay(struct fsck *f, struct log *log, const struct fsck_root *base)
    __attribute__((warn_unused_result));
/* Does damage stand where the index ends, in a pool that loads? Then that may not be its end. */
bool fsck_end_damaged(const struct fsck *f);
/* A node in the root directory, for what lost its own. */
int fsck_adopt(struct fsck *f, struct log *log, uint32_t id, uint64_t base, struct topic **out)
    __attribute__((warn_unused_result));
/* The topic's bytes up to `end` are lost. */
int fsck_lose(struct topic *t, uint64_t end) __attribute__((warn_unused_result));

/* ---- fsck_orphan.c: batches that nothing names ----------------------------------------------- */

struct orphan {
    uint64_t at; /* side record */
    struct side s;
    uint64_t named; /* number of the index line that names it or its twin, 0: none does */
    bool told;      /* that line stands, and names this copy */
    bool whole;     /* its payload is */
    bool close; /* to another publisher's: which of them came first is not told (fsck_order.c) */
    bool taken;
    bool alone; /* of a session at order 5, and nobody else published to its topic about then */
    uint64_t
        not_there; /* entries that are lost, and were not this one: the chain of checksums says so */
};
/* All batches with a whole record in the data area, in the order of their times: also those that are known, which
 * are no newer than the last that their topic is known to hold. */
int fsck_orphans(struct fsck *f, struct log *log) __attribute__((warn_unused_result));
/* The search by itself: each whole record in the data area that nobody published as payload, by its place. */
int fsck_records(struct fsck *f, struct log *log,
                 int (*look)(void *arg, uint64_t at, const struct side *s), void *arg)
    __attribute__((warn_unused_result));
/* The n-th of those whose record stands there, or did; NULL: there are no more. */
struct orphan *fsck_orphan_there(const struct fsck *f, uint64_t side, size_t n);
/* It has its place now. */
void fsck_orphan_take(struct fsck *f, uint64_t side);
/* The line for entry `number` in some slot, whatever its checksum says, or NULL. */
const struct media_entry *fsck_line(const struct pool *p, uint64_t number);
/* Does the entry tell of the batch with this record, wherever that stands? */
bool fsck_names(const struct entry *e, const struct side *s);
/* Say that a whole one has no place in `t` any more, for `what` named it and is damaged: it is
 * saved aside, also when the report is full. */
struct unplaced {
    uint32_t id;
    uint64_t at; /* record */
};
int fsck_unplaced(struct fsck *f, const struct topic *t, const struct orphan *o, const char *what)
    __attribute__((warn_unused_result));
/* Give up what is known of them: the log is another. */
void fsck_orphans_drop(struct fsck *f);
/* The number of the entry behind which it was announced, of which it has the low bits: that which is nearest to
 * entry `base`. */
uint64_t fsck_after(uint64_t base, const struct side *s);
/* The entry, or two, that named the batch. Returns how many. */
unsigned fsck_entry(const struct log *log, const struct orphan *o, uint64_t number, uint64_t offset,
                    uint32_t term, struct entry e[2]);

/* ---- fsck_list.c: those of one topic, or of one batch ------------------------------------------ */

/* In the order of their times; fsck's own. */
struct orphans {
    struct orphan *const *at;
    size_t count;
};
/* When all are found, and their twins parted from them. */
int fsck_lists_make(struct fsck *f) __attribute__((warn_unused_result));
/* Does b come right behind a in its topic? Their session's numbers say so where nobody else published then. That
 * they stand side by side does not: somebody slower may have reserved before them, and been taken between. */
bool fsck_comes_next(const struct orphan *a, const struct side *b);
struct orphans fsck_orphans_of(const struct fsck *f, uint32_t topic);
struct orphans fsck_twins_of(const struct fsck *f, uint32_t topic);
/* Of those of one topic the first that was whole at `time` or later; their number when none was. */
size_t orphans_find(struct orphans of, uint64_t time);
/* Those that were whole just then: the copies of a batch are among them. */
struct orphans orphans_at(struct orphans of, uint64_t time);
/* Do two records tell of one batch, wherever it stands? */
bool fsck_same_batch(const struct side *a, const struct side *b);
/* The copy that the index line names; the one given where that is itself, or none is named. */
const struct orphan *fsck_as_named(const struct fsck *f, const struct orphan *o);

/* ---- fsck_order.c: in which order the log took them -------------------------------------------- */

/* By how much the time of a batch may belie the order in which the log took it: it was held for a gap in its
 * session, or waited for the sequencer; ns. */
#define FSCK_SLACK 10000000000ull
/* Of n batches of a topic, in the order of their times: close[i], when nothing tells whether the i-th came before
 * all that stand behind it, and after all before it. */
int fsck_close(const struct side *const *s, size_t n, bool *close)
    __attribute__((warn_unused_result));

/* ---- fsck_table.c: run tables that are damaged ------------------------------------------------ */

/* When all that stands behind the checkpoint is known. */
int fsck_tables(struct fsck *f, struct log *log) __attribute__((warn_unused_result));

/* ---- fsck_copies.c: the second places of what the checkpoint names ----------------------------- */

void fsck_copies(struct fsck *f);

/* ---- fsck_walk.c ------------------------------------------------------------------------------ */

/* Every batch of every topic against its side record and payload; damaged ones get runs of their
 * own in the log. */
int fsck_walk(struct fsck *f) __attribute__((warn_unused_result));

/* ---- fsck_base.c: after the walk, the numbers of the topics' oldest messages ------------------- */

void fsck_bases(struct fsck *f);

/* ---- fsck_keep.c: after that, what is whole and would be lost ----------------------------------- */

/* Bytes [from, to) of a topic that an earlier repair gave up: what was whole of them was saved then. */
struct known {
    uint32_t topic;
    uint64_t from, to;
};
/* Note them, of a state that was loaded and not mended yet. */
int fsck_known(struct fsck *f, const struct log *log) __attribute__((warn_unused_result));
int fsck_keep(struct fsck *f) __attribute__((warn_unused_result));

/* ---- fsck_room.c: after that, should a repair find too little space ---------------------------- */

/* A batch that was whole; or the bytes of several that are damaged, which no record tells apart. */
struct let_go {
    uint32_t id;     /* of the topic */
    uint64_t offset; /* in it */
    uint64_t at;     /* side record; 0: damaged */
    struct side s;   /* as it stands now; damaged: run0 alone, and */
    uint64_t bytes;
};
int fsck_room(struct fsck *f) __attribute__((warn_unused_result));
/* What is left of run i, with the second part that may follow it, is noted to be saved aside. */
int fsck_note_run(struct fsck *f, const struct topic *t, size_t i)
    __attribute__((warn_unused_result));

/* ---- fsck_sane.c: the last thing before a repair writes ---------------------------------------- */

/* What no load would take of the topics is given up, and noted. */
int fsck_sane(struct fsck *f) __attribute__((warn_unused_result));
/* Nothing of the run stands any more. */
void fsck_run_lose(struct topic *t, struct run *r);
/* Would a load take the topic or directory as it is? */
bool fsck_loads(const struct log *log, const struct topic *t);

/* ---- fsck_hold.c: while the first root of a repair is written ------------------------------------ */

/* All that whole records tell of stays where it is from now on; give it up: false, when there was none. */
int fsck_hold(struct fsck *f) __attribute__((warn_unused_result));
bool fsck_release(struct fsck *f);

/* ---- fsck_repair.c ---------------------------------------------------------------------------- */

int fsck_repair(struct fsck *f, struct embar_error *err) __attribute__((warn_unused_result));

#endif
