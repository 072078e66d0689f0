/* Buffers of a publisher's batches: whole, aligned where they are large, there in advance, and
 * given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "net/client/publisher.h"

static void every_byte_is_there(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 4096, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 16u << 20};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *a = pub_buffer_new(sizes[i]), *b = pub_buffer_new(sizes[i]);
        assert_true(a && b);
        memset(a, 1, sizes[i]);
        memset(b, 2, sizes[i]);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(a[k], 1);
        if (sizes[i] >= 2u << 20)
            assert_int_equal((uintptr_t)a % (2u << 20), 0);
        pub_buffer_free(a, sizes[i]);
        pub_buffer_free(b, sizes[i]);
    }
    pub_buffer_free(NULL, 100);
    pub_buffer_free(NULL, 4u << 20);
}

static bool resident(unsigned char *p, size_t n)
{
    unsigned char in[1024];
    assert_true(n / 4096 <= sizeof(in));
    assert_int_equal(mincore(p, n, in), 0);
    for (size_t i = 0; i < n / 4096; i++)
        if (!(in[i] & 1))
            return false;
    return true;
}

/* Nothing is left to be faulted in, and nothing stays mapped. */
static void it_is_there_in_advance(void **state)
{
    (void)state;
    enum { SIZE = 4 << 20 };
    unsigned char *p = pub_buffer_new(SIZE);
    assert_non_null(p);
#ifdef MADV_POPULATE_WRITE
    if (madvise(p, 4096, MADV_POPULATE_WRITE) == 0) /* the kernel can */
        assert_true(resident(p, SIZE));
#endif
    pub_buffer_free(p, SIZE);
    unsigned char in[1024];
    assert_int_equal(mincore(p, SIZE, in), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_there),
        cmocka_unit_test(it_is_there_in_advance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
