/* The wire's checks: headers that lie are told from those that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "embar/error.h"
#include "net/wire.h"

static struct wire_frame f;
static struct wire_publish p;
static const char *why;

static void good(void)
{
    p = (struct wire_publish){.sequence = le64_of(1),
                              .count = le32_of(3),
                              .payload = le32_of(10),
                              .payload_crc = le32_of(7),
                              .epoch = le32_of(1)};
    f = wire_frame_of(WIRE_PUBLISH, 0, 1, 1, 48 + 12 + 10);
}

static int check(void)
{
    p.crc = le32_of(wire_publish_crc(&f, &p));
    return wire_publish_check(&f, &p, 1000, 100, &why);
}

static void publish_header(void **state)
{
    (void)state;
    good();
    assert_int_equal(check(), 0);
    /* Any flipped bit of the 64 bytes is noticed. */
    for (size_t bit = 0; bit < 8 * 64; bit++) {
        struct wire_frame f0 = f;
        struct wire_publish p0 = p;
        uint8_t *at = bit < 128 ? (uint8_t *)&f + bit / 8 : (uint8_t *)&p + bit / 8 - 16;
        *at ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(wire_publish_check(&f, &p, 1000, 100, &why), -EMBAR_ECRC);
        f = f0;
        p = p0;
    }
}

static void publish_bounds(void **state)
{
    (void)state;
    good();
    p.payload = le32_of(1001);
    assert_int_equal(check(), -EMBAR_ETOOBIG);
    good();
    p.count = le32_of(101);
    assert_int_equal(check(), -EMBAR_ETOOBIG);
    good();
    p.count = le32_of(0);
    assert_int_equal(check(), -EMBAR_EINVALID);
    good();
    p.payload = le32_of(0);
    assert_int_equal(check(), -EMBAR_EINVALID);
    good();
    p.count = le32_of(11);
    assert_int_equal(check(), -EMBAR_EINVALID);
    good();
    f.length = le32_of(48 + 12 + 11);
    assert_int_equal(check(), -EMBAR_EPROTO);
    good();
    f.flags = WIRE_F_EQUAL;
    f.length = le32_of(48 + 10);
    assert_int_equal(check(), -EMBAR_EINVALID); /* 10 / 3 leaves a remainder */
    good();
    f.flags = WIRE_F_SUM; /* its 4 bytes count, and the header has none */
    p.payload_crc = le32_of(0);
    assert_int_equal(check(), -EMBAR_EPROTO);
    f.length = le32_of(48 + 12 + 10 + 4);
    assert_int_equal(check(), 0);
    p.payload_crc = le32_of(7);
    assert_int_equal(check(), -EMBAR_EPROTO);
    good();
    f.length = le32_of(48 + 12 + 10 + 4);
    assert_int_equal(check(), -EMBAR_EPROTO);
    good();
    f.flags = 0x80;
    assert_int_equal(check(), -EMBAR_EPROTO);
    good();
    p.zero[15] = 1;
    assert_int_equal(check(), -EMBAR_EPROTO);
    good();
    p.sequence = le64_of(0);
    assert_int_equal(check(), -EMBAR_EINVALID);
    good();
    p.sequence = le64_of(1ull << 48);
    assert_int_equal(check(), -EMBAR_EINVALID);
    assert_int_equal(wire_batch_size(false, UINT32_MAX, UINT32_MAX), 5ull * UINT32_MAX);
}

static void data_header(void **state)
{
    (void)state;
    struct wire_data d = {.count = le32_of(2), .payload = le32_of(0)};
    f = wire_frame_of(WIRE_DATA, 0, 1, 1, 48 + 8);
    assert_int_equal(wire_data_check(&f, &d, 1000, 100), 0); /* two empty messages */
    f.length = le32_of(48 + 9);
    assert_int_equal(wire_data_check(&f, &d, 1000, 100), -EMBAR_EPROTO);
    d.payload = le32_of(1001);
    f.length = le32_of(48 + 8 + 1001);
    assert_int_equal(wire_data_check(&f, &d, 1000, 100), -EMBAR_EPROTO);
    d = (struct wire_data){.count = le32_of(0)};
    f.length = le32_of(48);
    assert_int_equal(wire_data_check(&f, &d, 1000, 100), -EMBAR_EPROTO);
}

static void ack(void **state)
{
    (void)state;
    struct wire_ack a = {.words = le32_of(0)};
    assert_int_equal(wire_ack_check(&a, 32), 0);
    assert_int_equal(wire_ack_check(&a, 40), -EMBAR_EPROTO);
    assert_int_equal(wire_ack_check(&a, 31), -EMBAR_EPROTO);
    a.words = le32_of(WIRE_AHEAD);
    assert_int_equal(wire_ack_check(&a, 32 + 8 * WIRE_AHEAD), 0);
    a.words = le32_of(WIRE_AHEAD + 1);
    assert_int_equal(wire_ack_check(&a, 32 + 8 * (WIRE_AHEAD + 1)), -EMBAR_EPROTO);
    a.words = le32_of(UINT32_MAX);
    assert_int_equal(wire_ack_check(&a, 32 + 8ull * UINT32_MAX), -EMBAR_EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publish_header),
        cmocka_unit_test(publish_bounds),
        cmocka_unit_test(data_header),
        cmocka_unit_test(ack),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
