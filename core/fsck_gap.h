/* Between the files that put lost entries of the index together again (recovery): fsck_break.c, any number of
 * them; fsck_epoch.c and fsck_try.c, where the chain behind them is known; fsck_single.c, one by itself. */
#ifndef CORE_FSCK_GAP_H
#define CORE_FSCK_GAP_H

#include "core/fsck_salvage.h"

/* What the chain of checksums says to what stands: that it is what was lost; that some of the entries were of
 * nothing of it; or nothing, since not all could be tried. */
enum gap_answer { GAP_UNKNOWN, GAP_PROVED, GAP_REFUSED };

struct gap {
    uint64_t from, to; /* entries lost: [from, to) */
    bool known;        /* is the chain behind it? */
    bool open;         /* and no entry `to`: nothing follows */
    bool half;         /* it is the second half of a split batch, of this record: */
    uint64_t half_side;
    uint32_t behind; /* the chain before it */
    uint32_t term;   /* the last of those in the gap, as far as is known; */
    bool term_open;  /* or later ones up to that one, behind which another begins */
    enum gap_answer answer;
    uint64_t strange; /* refused: so many of its entries, at least, told of nothing that stands */
    uint64_t before;  /* its time, or UINT64_MAX */
    bool close;       /* of some in e the order in their topic is not told: */
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
bool gap_is_told(const struct gap *g, const struct orphan *o);

/* Is the topic there, or made by one of the actions in g? Batches of others are of topics that were removed. */
bool gap_topic_there(const struct salvage *v, const struct gap *g, uint32_t topic);
/* Does a term begin with this entry? Its claim says so. */
bool gap_term_begins(const struct salvage *v, uint64_t number, struct entry *e);

/* ---- fsck_epoch.c ------------------------------------------------------------------------- */

/* An orphan and the entry that it is behind. */
struct behind {
    uint64_t after;
    size_t orphan;
};
/* What may be among the entries that are lost: a part of v->behind, and of v->action. */
struct gap_reach {
    size_t first, end, action, action_end;
};
int gap_reach(struct salvage *v, const struct gap *g, struct gap_reach *r)
    __attribute__((warn_unused_result));

/* The entries that are lost are in g, if the chain says in which order the log took them; else none is. */
int gap_arrange(struct salvage *v, struct gap *g) __attribute__((warn_unused_result));

/* ---- fsck_try.c --------------------------------------------------------------------------- */

/* Try what stands until it makes up the gap: g->answer; when it is proved, it is in g. */
int gap_try(struct salvage *v, struct gap *g) __attribute__((warn_unused_result));

/* ---- fsck_sieve.c ------------------------------------------------------------------------- */

/* Batches that may be of an entry that is lost: one of those that follow one another in the order of their times,
 * or one by itself. */
enum sieve_kind { SIEVE_NEXT, SIEVE_ONE, SIEVES };

/* Before the gap is looked into: those that only lines behind it name are left out. Gaps come one behind the other. */
int gap_sieve(struct salvage *v, const struct gap *g) __attribute__((warn_unused_result));
/* The one behind o, or the first; the one before o; NULL: there is none. */
struct orphan *sieve_next(const struct salvage *v, enum sieve_kind kind, const struct orphan *o);
struct orphan *sieve_before(const struct salvage *v, enum sieve_kind kind, const struct orphan *o);
/* Before which all that came before `time` stand. */
const struct orphan *sieve_end(const struct salvage *v, uint64_t time);
/* It can be of no entry from here on, unless its topic comes. */
void sieve_out(struct salvage *v, enum sieve_kind kind, const struct orphan *o);

/* ---- fsck_single.c ------------------------------------------------------------------------ */

/* Is the one entry that is lost, in term `term`, one without a batch, a batch's, or a move? Then it is in g. */
bool gap_is_bare(struct salvage *v, struct gap *g, uint32_t term);
bool gap_is_batch(struct salvage *v, struct gap *g);
bool gap_is_move(struct salvage *v, struct gap *g, uint32_t term);

#endif
