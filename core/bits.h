/* A set of small numbers that knows its first and last in a few steps (extent.c's free chunks).
 *
 * Words of bits, and above them words that say which of those are not 0, up to a single one. Not
 * locked: its owner is.
 */
#ifndef CORE_BITS_H
#define CORE_BITS_H

#include <stdbool.h>
#include <stdint.h>

#define BITS_NONE   UINT32_MAX
#define BITS_LEVELS 6u /* 64^6 numbers */

struct bits {
    uint64_t *level[BITS_LEVELS]; /* level[0]: the numbers themselves; all in one allocation */
    unsigned levels;
};

/* Numbers below n, at least 1. -ENOMEM. */
int bits_create(struct bits *b, uint32_t n) __attribute__((warn_unused_result));
void bits_destroy(struct bits *b);
void bits_add(struct bits *b, uint32_t i);
void bits_remove(struct bits *b, uint32_t i);
/* BITS_NONE when empty. */
uint32_t bits_first(const struct bits *b);
uint32_t bits_last(const struct bits *b);
/* The first from i on, the last before i; BITS_NONE: there is none. i: at most n. */
uint32_t bits_next(const struct bits *b, uint32_t i);
uint32_t bits_before(const struct bits *b, uint32_t i);

#endif
