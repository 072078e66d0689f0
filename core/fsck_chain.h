/* What fsck_table.c and fsck_chain.c share (recovery): the batches of a topic that a damaged run table told
 * of, and where in the topic each stood, as far as that is proved. */
#ifndef CORE_FSCK_CHAIN_H
#define CORE_FSCK_CHAIN_H

#include "core/fsck_state.h"

#define NOWHERE UINT64_MAX

struct link {
    const struct orphan *o;
    uint64_t offset; /* NOWHERE: not known */
    uint64_t
        message;  /* when the offset is known; between two lost ranges as many as there must be */
    bool refused; /* its session never took it: it was held or fenced */
    bool unknown; /* no session of its number is known any more */
    bool doubted; /* its session sent another with its sequence, or sent it out of order */
    bool close;   /* nothing tells its place among those of other publishers */
    bool trimmed; /* it is proved to have been */
};

struct chain {
    struct link *at; /* in the order of their times; owned */
    size_t first;    /* with those from here on the lost bytes would be full */
    size_t count;
    uint64_t end, message; /* of the topic, where the chain must end */
    bool partly;           /* not all that was lost is found */
    bool bounded;          /* the first one's time is: nothing that was trimmed is among them */
};

/* Second parts of split batches that were moved by themselves. No record says where they went: only the table
 * does, and for as long as it stands the index line of the move. */
struct parts {
    struct entry *at;
    size_t count, capacity;
};

/* Runs [run, behind) of a topic are lost; where they began. */
struct lost {
    size_t run, behind;
    uint64_t offset, message;
};

/* The topic's batches that are older than what stands behind its lost run, the first. */
int chain_make(const struct fsck *f, const struct topic *t, struct chain *c)
    __attribute__((warn_unused_result));
/* The newest that fill so many bytes: from `first` on. */
void chain_fill(struct chain *c, uint64_t bytes);
/* Where each stood. How many are known. */
size_t chain_prove(const struct fsck *f, const struct topic *t, struct chain *c);

/* Does b stand right behind a, in payload and record? */
bool chain_is_beside(const struct pool *p, const struct orphan *a, const struct orphan *b);
/* Does the session that sent it say that it never took it? */
bool chain_is_refused(const struct topic *t, const struct side *s);

/* fsck_table.c: the batches as runs in the place of the lost ones: the next table is written from them. */
int chain_take(struct fsck *f, struct topic *t, const struct lost *lost, const struct chain *c,
               const struct parts *parts) __attribute__((warn_unused_result));

#endif
