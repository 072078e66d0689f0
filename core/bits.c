/* Sets of numbers: see bits.h. */
#include "core/bits.h"

#include <errno.h>
#include <stdlib.h>

int bits_create(struct bits *b, uint32_t n)
{
    size_t words = 0, size = n;
    b->levels = 0;
    do {
        size = (size + 63) / 64;
        words += size;
        b->levels++;
    } while (size > 1);
    uint64_t *word = calloc(words, sizeof *word);
    if (!word)
        return -ENOMEM;
    size = n;
    for (unsigned l = 0; l < b->levels; l++) {
        size = (size + 63) / 64;
        b->level[l] = word;
        word += size;
    }
    return 0;
}

void bits_destroy(struct bits *b)
{
    free(b->level[0]);
}

void bits_add(struct bits *b, uint32_t i)
{
    for (unsigned l = 0; l < b->levels; l++, i /= 64) {
        uint64_t *word = &b->level[l][i / 64], was = *word;
        *word |= 1ull << i % 64;
        if (was)
            break;
    }
}

void bits_remove(struct bits *b, uint32_t i)
{
    for (unsigned l = 0; l < b->levels; l++, i /= 64) {
        uint64_t *word = &b->level[l][i / 64];
        *word &= ~(1ull << i % 64);
        if (*word)
            break;
    }
}

/* The least that word i of a level stands for, or the greatest. */
static uint32_t least(const struct bits *b, unsigned level, uint32_t i)
{
    for (;; level--) {
        i = i * 64 + (uint32_t)__builtin_ctzll(b->level[level][i]);
        if (level == 0)
            return i;
    }
}

static uint32_t greatest(const struct bits *b, unsigned level, uint32_t i)
{
    for (;; level--) {
        i = i * 64 + 63 - (uint32_t)__builtin_clzll(b->level[level][i]);
        if (level == 0)
            return i;
    }
}

uint32_t bits_first(const struct bits *b)
{
    return b->level[b->levels - 1][0] ? least(b, b->levels - 1, 0) : BITS_NONE;
}

uint32_t bits_last(const struct bits *b)
{
    return b->level[b->levels - 1][0] ? greatest(b, b->levels - 1, 0) : BITS_NONE;
}

/* Up, until something of the word is on that side of i, and down from there. */
uint32_t bits_next(const struct bits *b, uint32_t i)
{
    for (unsigned l = 0; l < b->levels; l++, i = i / 64 + 1) {
        bool within = l + 1 < b->levels ? b->level[l] + i / 64 < b->level[l + 1] : i < 64;
        uint64_t word = within ? b->level[l][i / 64] >> i % 64 : 0;
        if (!word)
            continue;
        i += (uint32_t)__builtin_ctzll(word);
        return l > 0 ? least(b, l - 1, i) : i;
    }
    return BITS_NONE;
}

uint32_t bits_before(const struct bits *b, uint32_t i)
{
    for (unsigned l = 0; l < b->levels; l++, i /= 64) {
        bool all = i == 64 && l + 1 == b->levels; /* i is n, and n all that so many levels hold */
        uint64_t word = all ? b->level[l][0] : i % 64 ? b->level[l][i / 64] << (64 - i % 64) : 0;
        if (!word)
            continue;
        i -= 1 + (uint32_t)__builtin_clzll(word);
        return l > 0 ? greatest(b, l - 1, i) : i;
    }
    return BITS_NONE;
}
