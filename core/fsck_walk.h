/* What the files that walk the batches share (recovery): fsck_walk.c deals the topics' runs out and puts them
 * together anew, fsck_run.c walks one of them, fsck_record.c finds records that stand elsewhere in it.
 */
#ifndef CORE_FSCK_WALK_H
#define CORE_FSCK_WALK_H

#include "core/fsck_state.h"

/* TRIMMED: its payload is not what the record says, and nobody wants it. */
enum state { WHOLE, BAD_PAYLOAD, BAD_SIDE, KNOWN, TRIMMED };

/* A part of a run: batches of one state. */
struct piece {
    struct run run;
    uint64_t end;      /* log offset */
    uint64_t messages; /* in it, when known */
    uint64_t low, top; /* WHOLE: from here up to there the records of those not trimmed */
    bool counted;
    enum state state;
};

struct pieces {
    struct piece *at;
    size_t count, capacity;
};

struct slice {
    struct topic *t;
    size_t first, end; /* runs */
    struct pieces pieces;
    bool changed;  /* they are not the runs as they were */
    bool renumber; /* messages do not add up */
    int rc;
};

struct place { /* what a whole piece holds */
    uint64_t from, to, offset;
    uint32_t topic;
};

struct walker {
    struct fsck *f;
    struct slice *slice;
    size_t slices;
    atomic_size_t next;
    atomic_uint_fast64_t bytes, batches, messages, compared;
    uint64_t total;
    pthread_mutex_t lock; /* guards place */
    struct place *place;
    size_t places, place_capacity;
};

/* One more, to be filled in; NULL: no memory. */
struct piece *piece_add(struct pieces *p);

/* fsck_run.c: run i of the slice's topic, with its second half when it has one, into the slice's pieces. A
 * worker's: the log stands still meanwhile. */
int run_walk(struct walker *all, struct slice *s, size_t i) __attribute__((warn_unused_result));

/* fsck_record.c: the records that stand where the run's do, whose payload ends at `end`. */
struct records;
struct record_place {
    uint64_t side, payload;
};
int records_find(struct records **out, const struct topic *t, const struct run *r, uint64_t end)
    __attribute__((warn_unused_result));
void records_drop(struct records *all);
uint64_t records_count(const struct records *all);
/* The record that comes next behind a damaged one: of those that stand there the one whose payload is first,
 * since one may stand in another's place. Some may be left of what stood there before: it proves
 * itself by its payload, or below the damaged one by those that follow it; by both where its payload begins
 * before `told`, within what another record claims. False: there is none. */
bool records_next(struct records *all, const struct record_place *after, uint64_t told,
                  uint64_t end, struct record_place *out);
/* The record of what begins at `payload`, whole with that, and where it stands: lines changed places. */
bool records_moved(struct records *all, uint64_t payload, uint64_t end, uint64_t *side);

#endif
