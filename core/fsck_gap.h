/* Between the two files that put lost entries of the index together again (recovery): fsck_break.c, any number
 * of them, and fsck_single.c, one by itself. */
#ifndef CORE_FSCK_GAP_H
#define CORE_FSCK_GAP_H

#include "core/fsck_salvage.h"

struct gap {
    uint64_t from, to; /* entries lost: [from, to) */
    bool known;        /* is there an entry `to`? */
    bool half;         /* it is the second half of a split batch, of this record: */
    uint64_t half_side;
    uint32_t behind; /* the chain before it */
    uint64_t before; /* its time, or UINT64_MAX */
    bool close;      /* of some in e the order in their topic is not told: */
    bool is_close[LOST_MOST];
    struct entry e[LOST_MOST];
    size_t count;
};

/* ---- fsck_break.c ------------------------------------------------------------------------- */

/* Do the entries in g make the chain that the one behind them continues? */
bool gap_proved(const struct salvage *v, const struct gap *g);
/* Where the topic's bytes end behind what was put into g. */
uint64_t gap_end(const struct salvage *v, const struct gap *g, uint32_t topic);
/* Does an entry before the gap tell of it? What that says was dealt with, wherever its record stands now. */
bool gap_is_told(const struct salvage *v, const struct gap *g, const struct orphan *o);

/* Does a term begin with this entry? Its claim says so. */
bool gap_term_begins(const struct salvage *v, uint64_t number, struct entry *e);

/* ---- fsck_epoch.c ------------------------------------------------------------------------- */

/* The entries that are lost are in g, if the chain says in which order the log took them; else none is. */
int gap_arrange(struct salvage *v, struct gap *g) __attribute__((warn_unused_result));

/* ---- fsck_single.c ------------------------------------------------------------------------ */

/* Is the one entry that is lost, in term `term`, one without a batch, a batch's, or a move? Then it is in g. */
bool gap_is_bare(struct salvage *v, struct gap *g, uint32_t term);
bool gap_is_batch(struct salvage *v, struct gap *g);
bool gap_is_move(struct salvage *v, struct gap *g, uint32_t term);

#endif
