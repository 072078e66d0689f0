/* CRC32C (Castagnoli), the one checksum of media and wire. Thread-safe, no state. */
#ifndef CORE_CRC_H
#define CORE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc` (0 to begin) over n bytes: crc32c(crc32c(0, a), b) == crc32c(0, a||b). Any n. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The same, faster where the bytes are not in the cache. */
uint32_t crc32c_cold(uint32_t crc, const void *p, size_t n);

/* The way back: the value that, continued over these bytes, gives `crc`. For a few lines: it goes
 * bit by bit. */
uint32_t crc32c_before(uint32_t crc, const void *p, size_t n);

#endif
