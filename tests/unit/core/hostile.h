/* A pool to be damaged, and what a damaged pool must still keep: shared by the unit test and the
 * fuzz target. Aborts with a sentence on stderr; needs no test framework.
 *
 * The pristine image holds directories, topics with batches of all shapes, sessions, trims, and
 * both a checkpoint and entries behind it, as a killed process leaves them. */
#ifndef TESTS_UNIT_CORE_HOSTILE_H
#define TESTS_UNIT_CORE_HOSTILE_H

#include "core/log.h"

#define HOSTILE_SIZE   (4ull << 20)
#define HOSTILE_TOPICS 6u
#define HOSTILE_AREAS  40u

struct hostile_area {
    const char *name;
    uint64_t at, size;
};

struct hostile {
    char *pristine, *image;
    struct {
        uint32_t id;
        uint64_t base, end;
        char *bytes; /* of [base, end) */
    } topic[HOSTILE_TOPICS];
    struct hostile_area area[HOSTILE_AREAS];
    unsigned areas;
};

void hostile_build(struct hostile *h, uint64_t seed);
void hostile_free(struct hostile *h);
/* image = pristine */
void hostile_reset(struct hostile *h);
/* One mutation of the image: 12 bytes say which. Returns the area it hit. */
const struct hostile_area *hostile_mutate(struct hostile *h, const uint8_t how[12]);
/* Recompute every checksum that can be found, so that what lies behind them is reached. */
void hostile_seal(struct hostile *h);
/* Open the image and use everything in it; `exact`: what is served must be the pristine content but
 * for bytes that were damaged in place. The result of log_open. */
int hostile_serve(struct hostile *h, bool readonly, bool exact);

#endif
