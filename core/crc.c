/* CRC32C over ISA-L, which counts in int and leaves both inversions to its caller. Serves steps
 * 2, 4, 6, 7 and 8. Must never read beyond n bytes, nor depend on p's alignment.
 */
#include "core/crc.h"

#include <isa-l/crc.h>

/* A multiple of every stride ISA-L folds by, below INT_MAX. */
#define PIECE (1u << 30)

#define COLD_BLOCK 1024u

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    /* ISA-L reads only, though its prototype does not say so. */
    unsigned char *at = (unsigned char *)(uintptr_t)p;
    while (n > 0) {
        size_t piece = n < PIECE ? n : PIECE;
        crc = ~crc32_iscsi(at, (int)piece, ~crc);
        at += piece;
        n -= piece;
    }
    return crc;
}

/* ISA-L goes over a long block in three streams at once, which the processor's prefetcher follows
 * badly: from memory, short blocks and asking for the next one take about 0.13 s/GB instead of 0.22
 * (Xeon of 2.5 GHz). On what is in the cache they take a third more. */
uint32_t crc32c_cold(uint32_t crc, const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        size_t block = n < COLD_BLOCK ? n : COLD_BLOCK;
        size_t ahead = n - block < COLD_BLOCK ? n - block : COLD_BLOCK;
        for (size_t i = 0; i < ahead; i += 64)
            __builtin_prefetch(at + block + i);
        crc = crc32c(crc, at, block);
        at += block;
        n -= block;
    }
    return crc;
}

uint32_t crc32c_before(uint32_t crc, const void *p, size_t n)
{
    const unsigned char *at = p;
    uint32_t state = ~crc;
    while (n-- > 0) {
        for (unsigned bit = 0; bit < 8; bit++)
            state = state >> 31 ? (state ^ 0x82f63b78u) << 1 | 1 : state << 1;
        state ^= at[n];
    }
    return ~state;
}
