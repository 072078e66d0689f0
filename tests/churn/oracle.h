/* What any byte of any topic must be: a function of the topic's id, which is never used again, and of
 * the log offset, so that a read is checked without anything stored. */
#ifndef TESTS_CHURN_ORACLE_H
#define TESTS_CHURN_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t oracle_word(uint32_t id, uint64_t word)
{
    uint64_t x = (word + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)id * 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    return x * 0xff51afd7ed558ccdu;
}

/* Up to the next multiple of 8: how many of n bytes at offset `at` come from one word. */
static inline size_t oracle_piece(uint32_t id, uint64_t at, size_t n, char word[8])
{
    uint64_t w = oracle_word(id, at / 8);
    size_t into = at % 8, here = 8 - into < n ? 8 - into : n;
    memcpy(word, (const char *)&w + into, here);
    return here;
}

static inline void oracle_fill(uint32_t id, uint64_t at, char *to, size_t n)
{
    char word[8];
    for (size_t here; n > 0; to += here, at += here, n -= here) {
        here = oracle_piece(id, at, n, word);
        memcpy(to, word, here);
    }
}

static inline bool oracle_equal(uint32_t id, uint64_t at, const char *bytes, size_t n)
{
    char word[8];
    for (size_t here; n > 0; bytes += here, at += here, n -= here) {
        here = oracle_piece(id, at, n, word);
        if (memcmp(bytes, word, here) != 0)
            return false;
    }
    return true;
}

#endif
