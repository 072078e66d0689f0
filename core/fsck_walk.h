/* What the two files that walk the batches share (recovery): fsck_walk.c deals the topics' runs out and puts them
 * together anew, fsck_run.c walks one of them.
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

struct place { /* what a whole run holds */
    uint64_t from, to, offset;
    uint32_t topic;
};

struct walker {
    struct fsck *f;
    struct slice *slice;
    size_t slices;
    atomic_size_t next;
    atomic_uint_fast64_t bytes, batches, messages;
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

#endif
