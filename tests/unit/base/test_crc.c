/* CRC32C: the published vectors, chaining at any cut, any alignment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/crc.h"

/* Bit by bit, by the definition: reflected polynomial 0x1EDC6F41. */
static uint32_t slow(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    while (n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* RFC 3720, B.4. */
static void vectors(void **state)
{
    (void)state;
    uint8_t block[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    memset(block, 0, sizeof(block));
    assert_int_equal(crc32c(0, block, sizeof(block)), 0x8a9136aau);
    memset(block, 0xff, sizeof(block));
    assert_int_equal(crc32c(0, block, sizeof(block)), 0x62a8ab43u);
    for (unsigned i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, block, sizeof(block)), 0x46dd794eu);
    assert_int_equal(crc32c(0, block, 0), 0);
    assert_int_equal(crc32c(0x1234u, block, 0), 0x1234u);
}

static void chaining(void **state)
{
    (void)state;
    uint8_t text[700];
    srand(1);
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)rand();
    uint32_t whole = crc32c(0, text, sizeof(text));
    assert_int_equal(whole, slow(0, text, sizeof(text)));
    for (size_t cut = 0; cut <= sizeof(text); cut++)
        assert_int_equal(crc32c(crc32c(0, text, cut), text + cut, sizeof(text) - cut), whole);
}

/* Heap blocks of the exact length, so that the address sanitizer sees an over-read. */
static void alignments(void **state)
{
    (void)state;
    for (size_t skip = 0; skip < 64; skip++) {
        for (size_t n = 0; n < 130; n += 13) {
            uint8_t *block = malloc(skip + n + 1);
            assert_non_null(block);
            memset(block, (int)n, skip + n);
            assert_int_equal(crc32c(7, block + skip, n), slow(7, block + skip, n));
            free(block);
        }
    }
}

static void cold(void **state)
{
    (void)state;
    size_t size = 5000;
    uint8_t *block = malloc(size);
    assert_non_null(block);
    for (size_t i = 0; i < size; i++)
        block[i] = (uint8_t)(i * 7 + (i >> 8));
    for (size_t n = 0; n <= size; n += n < 2100 ? 1 : 97)
        assert_int_equal(crc32c_cold(9, block + size - n, n), crc32c(9, block + size - n, n));
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(chaining),
        cmocka_unit_test(alignments),
        cmocka_unit_test(cold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
