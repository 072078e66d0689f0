/* What the files that go around a damaged index share (recovery): fsck_replay.c walks it, fsck_break.c
 * and fsck_single.c pass breaks in its chain, fsck_fold.c takes entries into the state, fsck_fill.c and
 * fsck_rest.c find what they should have told. */
#ifndef CORE_FSCK_SALVAGE_H
#define CORE_FSCK_SALVAGE_H

#include <inttypes.h>

#include "core/fsck_place.h"
#include "core/fsck_state.h"

#define U64       "%" PRIu64
#define LOST_MOST 4096u /* entries rebuilt at one break */
/* Flag of a run beside MEDIA_RUN_LOST, while the index is read: its place was given to newer batches. */
#define RUN_GIVEN 0x80u

/* A control action as its record has it. */
struct action {
    struct orphan *o;
    struct control c;
};

struct salvage {
    struct fsck *f;
    struct log *log;
    struct replay *replay;
    uint64_t start;   /* the checkpoint's entry */
    uint32_t next_id; /* nodes from here on were made behind it */
    uint64_t number;  /* last entry that was dealt with */
    uint32_t chain;   /* behind it */
    uint32_t term;
    uint64_t time;                     /* of the checkpoint */
    uint64_t unknown;                  /* session that was last said to be unknown */
    bool damaged;                      /* actions may be missing */
    uint64_t trusted;                  /* up to here nothing may be missing */
    struct mark mark[2 * INDEX_MARKS]; /* where the chain is told beside the entries */
    unsigned marks;
    bool booted;
    struct action *action;   /* all that stand, by number; NULL: not looked for; owned */
    struct action **subject; /* those that trim or remove, by what; owned */
    size_t actions, subjects;
    uint64_t begun, begun_time; /* the newest term: its first entry, and since when; 0: not known */
    uint32_t begun_term;
    uint64_t missing;        /* entries that nothing stands for so far */
    uint64_t strange;        /* so many of them, at least, told of nothing that stands */
    uint64_t missing_from;   /* the first of them, or UINT64_MAX */
    uint64_t missing_before; /* what they named had come by then, or UINT64_MAX */
    bool maybe;              /* none is known to be missing, but the end of the index is damaged */
    bool unproved;           /* there were any */
    size_t tried;            /* fsck_try.c: how much by now */
    size_t placed;           /* batches by fsck_fill.c and fsck_rest.c */
    struct behind *behind;   /* fsck_epoch.c: all orphans by that; NULL: not asked for yet; owned */
    size_t behind_first;     /* of them, what is not settled */
    struct standing *standing; /* fsck_evict.c: what stands where; NULL: not asked for yet; owned */
    struct since *since;       /* fsck_since.c; owned */
    struct source *source;     /* fsck_rest.c */
    struct sieve *sieve;       /* fsck_sieve.c; NULL: not asked for yet; owned */
    struct movable *movable;   /* fsck_single.c: topics of which a lost move may tell; owned */
    bool movables_known;
    unsigned moves_left;     /* ways that may still be tried, at all gaps */
    struct hearsay *hearsay; /* fsck_heard.c; NULL: nothing was heard yet; owned */
};

static inline struct fsck_range one(uint64_t number)
{
    return (struct fsck_range){number, number + 1};
}

/* fsck_replay.c: does a watermark or a root tell the chain behind that entry? Else NULL. */
const struct mark *salvage_mark(const struct salvage *v, uint64_t number);

/* fsck_fold.c: one entry (of a split batch: both), whatever it takes. */
int salvage_fold(struct salvage *v, const struct entry *e, const struct entry *part)
    __attribute__((warn_unused_result));
/* What was committed behind the topic's last known batch was announced after this time; what stands
 * about from before, and was trimmed, was not. */
uint64_t salvage_newer_than(const struct salvage *v, uint32_t topic);
/* Begin with what the checkpoint says of that. */
void salvage_times(struct salvage *v);
/* The topic's bytes up to `end` are lost. */
int salvage_lose(struct salvage *v, struct topic *t, uint64_t end, uint64_t number)
    __attribute__((warn_unused_result));

/* Nobody can count any more what the session sent. */
void salvage_session_lose(struct salvage *v, uint64_t id, uint32_t topic, uint64_t number);

/* fsck_evict.c: a whole batch stands where others are said to: they are older, and had given it up. */
int salvage_evict(struct salvage *v, const struct entry *e) __attribute__((warn_unused_result));
/* The same of all whose extents share a byte with its extent. */
void salvage_evict_extent(struct salvage *v, const struct entry *e);
/* What the entry tells of stands there now. */
int salvage_place(struct salvage *v, uint32_t topic, const struct entry *e)
    __attribute__((warn_unused_result));
void salvage_places_drop(struct salvage *v);
/* Does what is said to stand there still do? Its run then. */
bool salvage_stands(const struct salvage *v, const struct place *p, struct topic **t, size_t *i);
/* The place of run i was given away. */
void salvage_run_evict(struct salvage *v, struct topic *t, size_t i);

/* fsck_since.c: begin, with what the checkpoint tells, its newest batch being of the time `clock`. */
int salvage_since(struct salvage *v, uint64_t clock) __attribute__((warn_unused_result));
/* Note it when a record stands in the place of the entry's that is another batch's. */
int salvage_other(struct salvage *v, const struct entry *e) __attribute__((warn_unused_result));
/* When all is folded: what such records are newer than has no place any more. */
void salvage_since_settle(struct salvage *v);
void salvage_since_drop(struct salvage *v);

/* fsck_sieve.c: the topic is there now: batches that were none of it may be. */
void salvage_came(struct salvage *v, uint32_t topic);
/* The same of one that the entry made. */
void salvage_made(struct salvage *v, const struct entry *e);
void salvage_sieve_drop(struct salvage *v);

/* fsck_single.c: what stands at `offset` of the topic came there; may a lost move tell of it? */
int salvage_movable(struct salvage *v, uint32_t topic, uint64_t offset)
    __attribute__((warn_unused_result));
void salvage_movables_drop(struct salvage *v);
#define SALVAGE_MOVES (1u << 18)

/* fsck_action.c: look for the control actions that stand. */
int salvage_actions(struct salvage *v) __attribute__((warn_unused_result));
void salvage_actions_drop(struct salvage *v);
/* The first from this entry on. */
size_t salvage_action_find(const struct salvage *v, uint64_t number);
/* Where the topic will begin, by those, and the number of the message there. */
uint64_t salvage_base(const struct salvage *v, const struct topic *t, uint64_t *message);
/* Does one of them remove it, or put another in its place? */
bool salvage_is_removed(const struct salvage *v, uint32_t topic);

/* fsck_fill.c. */
/* Between a topic's end and what is known again. */
struct hole {
    uint64_t end, messages;     /* log offset; messages that it had had there, 0: not known */
    uint64_t before;            /* what fills it was whole before this time */
    uint64_t number;            /* and is named by no entry from here on */
    const struct entry *behind; /* or NULL: not an entry */
};
/* May it have been committed, and not only held? At order 5 only the next of its session was: behind the one
 * with the sequence `before`; 0: behind what the session took. t NULL: its topic is not known yet. */
bool salvage_is_next(struct log *log, const struct topic *t, const struct side *s, uint64_t before);
int salvage_fill(struct salvage *v, struct topic *t, const struct hole *h)
    __attribute__((warn_unused_result));
/* Before an action is folded whose record is of this time: a trim knows where its topic ended. */
int salvage_trim(struct salvage *v, const struct control *c, uint64_t time, uint64_t number)
    __attribute__((warn_unused_result));
/* Can it be none of the entries that are missing? */
bool salvage_is_not_missing(const struct salvage *v, const struct orphan *o);
/* Behind all that the topic holds. */
int salvage_put(struct salvage *v, const struct topic *t, struct orphan *o, uint64_t number)
    __attribute__((warn_unused_result));

/* fsck_rest.c: at the end, batches that must be among the entries that are missing, and that nothing follows. */
int salvage_rest(struct salvage *v) __attribute__((warn_unused_result));
/* fsck_heard.c: an entry that stands, or is proved. */
int salvage_hear(struct salvage *v, const struct entry *e) __attribute__((warn_unused_result));
/* Was it committed, as what it was announced before was? */
bool salvage_is_sure(const struct salvage *v, const struct orphan *o);
void salvage_hearsay_drop(struct salvage *v);

/* fsck_orphan.c: can it be none of the entries from `number` on? It was announced before their term began, which made void what
 * was not committed by then. */
bool salvage_is_void(const struct salvage *v, const struct orphan *o, uint64_t number);
/* Did its session take it before? */
bool salvage_is_taken(const struct salvage *v, const struct side *s);
/* The same: behind all that, say which whole batches found no place. */
int salvage_aside(struct salvage *v) __attribute__((warn_unused_result));

/* fsck_order.c: mark the orphans behind what their topics are known to hold whose order is not told. */
int salvage_close(const struct salvage *v) __attribute__((warn_unused_result));

/* fsck_given.c: behind all that, too: what became of those whose places were given to newer batches. */
int salvage_given(struct salvage *v) __attribute__((warn_unused_result));

/* fsck_break.c: as recover_entry, also where one bit of the line flipped. */
bool salvage_entry(struct salvage *v, uint32_t term, uint64_t number, uint32_t chain,
                   struct entry *e, uint32_t *next);
/* The line for entry `number` in some slot, whatever its checksum says, or NULL. */
static inline const struct media_entry *salvage_line(const struct salvage *v, uint64_t number)
{
    return fsck_line(&v->log->pool, number);
}
/* The chain breaks behind v->number although it must not: go on where it stands again. */
int salvage_break(struct salvage *v) __attribute__((warn_unused_result));
/* The second half of a split batch whose entry is lost: its side record says it. */
bool salvage_part(const struct salvage *v, const struct entry *head, struct entry *part);
/* The watermark that said where the index must end is damaged: batches behind its end may have been
 * committed, and who sent them may have heard so. */
int salvage_tail(struct salvage *v) __attribute__((warn_unused_result));

#endif
