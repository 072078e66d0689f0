/* What a topic should hold: its bytes and message boundaries, kept beside the log by a test.
 *
 * Compared by content: bytes through reads of odd sizes, batches by a walk, boundaries by seeks. */
#ifndef TESTS_UNIT_CORE_MODEL_H
#define TESTS_UNIT_CORE_MODEL_H

#include "core/log.h"
#include "tests/unit/core/campaign.h"

struct model_topic {
    uint64_t base, end; /* log offsets */
    uint64_t kept;      /* offset of bytes[0]; <= base */
    char *bytes;        /* from kept to end */
    size_t bytes_capacity;
    uint64_t first;     /* number of the first retained message */
    uint64_t messages;  /* ever */
    uint64_t ends_from; /* number of the message whose end is ends[0] */
    uint64_t *ends;     /* log offset where each message ends */
    size_t ends_capacity;
};

/* lengths NULL: `count` equal messages. */
void model_append(struct model_topic *m, const void *data, uint32_t length, const uint32_t *lengths,
                  uint32_t count);
/* Forget the last append of `length` bytes in `count` messages. */
void model_unappend(struct model_topic *m, uint32_t length, uint32_t count);
/* Where a trim asked for `offset` should come to stand. */
uint64_t model_boundary(const struct model_topic *m, uint64_t offset);
void model_trim(struct model_topic *m, uint64_t base);
void model_free(struct model_topic *m);
/* Everything. `d` chooses sizes and places to look at. */
void model_check(const struct model_topic *m, struct topic *t, struct draws *d);

#endif
