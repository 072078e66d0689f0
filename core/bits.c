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

uint32_t bits_first(const struct bits *b)
{
    uint32_t i = 0;
    for (unsigned l = b->levels; l-- > 0;) {
        uint64_t word = b->level[l][i];
        if (!word)
            return BITS_NONE;
        i = i * 64 + (uint32_t)__builtin_ctzll(word);
    }
    return i;
}

uint32_t bits_last(const struct bits *b)
{
    uint32_t i = 0;
    for (unsigned l = b->levels; l-- > 0;) {
        uint64_t word = b->level[l][i];
        if (!word)
            return BITS_NONE;
        i = i * 64 + 63 - (uint32_t)__builtin_clzll(word);
    }
    return i;
}
