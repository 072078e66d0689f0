/* CRC32C over ISA-L, which counts in int and leaves both inversions to its caller. Serves steps
 * 2, 4, 6, 7 and 8. Must never read beyond n bytes, nor depend on p's alignment.
 */
#include "core/crc.h"

#include <isa-l/crc.h>

/* A multiple of every stride ISA-L folds by, below INT_MAX. */
#define PIECE (1u << 30)

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
