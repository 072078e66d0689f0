/* The staging pool: bounded DRAM for payload that comes too slowly to hold pool space (step 3).
 *
 * All workers share it. It hands out pieces of three sizes. Its memory lies in one arena a NUMA node
 * and is touched when it is first used; a piece is taken on the node where the thread runs, elsewhere
 * when that has none. It never grows: staging_take answers NULL, and the taker waits (staging_wait)
 * until some were given back.
 *
 * Bounds, so that slow peers cannot take all: a connection holds a quarter of it at most, a principal
 * half, and batches that were moved here because they are slow three quarters together. What is
 * left is for the beginnings of batches, which stay 30 s at most.
 */
#ifndef NET_SERVER_STAGING_H
#define NET_SERVER_STAGING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "embar/error.h"
#include "net/server/stack.h"

#define STAGING_PIECE   (64u << 10) /* the largest; smaller ones are 4 and 16 KiB */
#define STAGING_TENANTS 256u        /* principals at a time that have a bound of their own */

struct staging;

/* Whoever holds it alone may touch all but `entry`. */
struct piece {
    struct ck_stack_entry entry; /* while it is free */
    struct piece *next;          /* the holder's own */
    uint8_t *memory;
    uint32_t size;
    uint16_t arena, class;
};

/* What one principal holds: its connections on all workers add to it. */
struct tenant {
    atomic_uint_fast64_t bytes;       /* relaxed: a bound, it orders nothing */
    atomic_uint open, channels, text; /* of what all share: see share.c */
    uint32_t uid;
    unsigned connections; /* the table's lock guards both */
};

/* 1/64 of the memory that this process may have, 128 MiB to 1 GiB, but a quarter of it at most. */
uint64_t staging_usual(uint64_t memory);
/* Bytes: 0: what is usual here. */
int staging_new(struct staging **out, uint64_t bytes, struct embar_error *err)
    __attribute__((warn_unused_result));
void staging_free(struct staging *s); /* every piece was given back. NULL is fine */

/* The principal's entry, for the life of a connection. */
struct tenant *staging_tenant(struct staging *s, uint32_t uid);
void staging_leave(struct staging *s, struct tenant *t);
/* Its number, below STAGING_TENANTS. */
unsigned staging_place(const struct staging *s, const struct tenant *t);

/* A piece of `need` bytes if there is one, at most of STAGING_PIECE. `slow`: for a batch that was
 * moved. NULL: a bound is reached. *stirred is set when others may have missed meanwhile what is free
 * now: they are to be told as if it had been given back. */
struct piece *staging_take(struct staging *s, struct tenant *t, uint32_t need, bool slow,
                           bool *stirred);
void staging_give(struct staging *s, struct tenant *t, struct piece *p, bool slow);
/* A piece that was taken for the beginning of a batch is from now on held by a slow one. */
bool staging_slow(struct staging *s, const struct piece *p) __attribute__((warn_unused_result));
/* What one connection may hold. */
uint64_t staging_share(const struct staging *s);

/* Worker `index` has takers that wait: look once more after this, for what was given before is not
 * told. staging_waiters: whose turn it is to be told, after pieces were given back (bits). */
void staging_wait(struct staging *s, unsigned index);
uint64_t staging_waiters(struct staging *s);

/* Between workers there is no order, but for this: worker `index` has somebody who looked when it was told,
 * and others were quicker, again and again. What is given back next is that worker's alone to look for, until
 * it has (staging_looked). One worker at a time; if it is somebody's turn already: nothing, and
 * false. */
bool staging_passed(struct staging *s, unsigned index);
/* Is something given back for somebody else to look at first? `called`: the worker told c to look. */
bool staging_others(const struct staging *s, unsigned index, bool called);
/* Is it for this worker, so that it looks now? */
bool staging_turn(const struct staging *s, unsigned index);
/* It has. True: so its turn is over, and others are to be told. */
bool staging_looked(struct staging *s, unsigned index);

/* Pieces of the largest size that could be had now, about. */
unsigned staging_free_pieces(const struct staging *s);
/* The same of what this principal's bound leaves. */
unsigned staging_could(const struct staging *s, const struct tenant *t, bool slow);

uint64_t staging_size(const struct staging *s);
uint64_t staging_used(const struct staging *s);

#endif
