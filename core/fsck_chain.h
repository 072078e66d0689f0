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
        message; /* when the offset is known; between two lost ranges as many as there must be */
};

struct chain {
    struct link *at; /* in the order of their times; owned */
    size_t first;    /* with those from here on the lost bytes would be full */
    size_t count;
    uint64_t end, message; /* of the topic, where the chain must end */
    bool partly;           /* not all that was lost is found */
};

/* The topic's batches that are older than what stands behind its lost run, the first. */
int chain_make(const struct fsck *f, const struct topic *t, struct chain *c)
    __attribute__((warn_unused_result));
/* Where each stood. How many are known. */
size_t chain_prove(const struct fsck *f, const struct topic *t, struct chain *c);

#endif
