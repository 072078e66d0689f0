/* Little-endian, fixed-width integers as they stand on the media and on the wire.
 *
 * A field of these types cannot be read or written by accident in host order: every access names
 * its width. On little-endian hosts the accessors compile to plain moves.
 */
#ifndef CORE_LE_H
#define CORE_LE_H

#include <endian.h>
#include <stdint.h>

typedef struct {
    uint16_t raw;
} le16;
typedef struct {
    uint32_t raw;
} le32;
typedef struct {
    uint64_t raw;
} le64;

static inline uint16_t le16_get(le16 v)
{
    return le16toh(v.raw);
}
static inline uint32_t le32_get(le32 v)
{
    return le32toh(v.raw);
}
static inline uint64_t le64_get(le64 v)
{
    return le64toh(v.raw);
}
static inline le16 le16_of(uint16_t v)
{
    return (le16){htole16(v)};
}
static inline le32 le32_of(uint32_t v)
{
    return (le32){htole32(v)};
}
static inline le64 le64_of(uint64_t v)
{
    return (le64){htole64(v)};
}

/* Two values in one word: the low 48 bits and the high 16. */
static inline uint64_t le64_low48(le64 v)
{
    return le64_get(v) & ((1ull << 48) - 1);
}
static inline uint16_t le64_high16(le64 v)
{
    return (uint16_t)(le64_get(v) >> 48);
}
static inline le64 le64_pack(uint64_t low48, uint16_t high16)
{
    return le64_of((low48 & ((1ull << 48) - 1)) | (uint64_t)high16 << 48);
}

#endif
