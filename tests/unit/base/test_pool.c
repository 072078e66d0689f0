/* Pools: planned geometries hold their promises at any size, what is formatted is attached again
 * word for word, and no superblock, however hostile, crashes or misleads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/crc.h"
#include "core/pool.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Address space without memory behind it: formatting touches the slots only. */
static void open_memory(struct region *r, uint64_t size)
{
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(base != MAP_FAILED);
    region_wrap(r, base, size, NULL);
    r->created = true;
}

static void close_memory(struct region *r)
{
    char *base = r->base;
    uint64_t size = r->size;
    region_close(r);
    assert_int_equal(munmap(base, size), 0);
}

/* What every pool must keep, whoever chose the numbers. */
static void check_pool(const struct pool *p)
{
    uint64_t block = 1ull << p->geo.block_shift;
    uint64_t largest = block << p->geo.max_order;
    uint64_t end = p->slot_base + p->slot_stride * p->geo.slots;
    assert_true(p->slot_base >= 8192 && end <= p->data_base);
    assert_true(p->data_base + p->data_size <= p->size);
    assert_int_equal(p->data_size % (block * p->geo.regions), 0);
    assert_true(p->max_batch * 2 <= largest && p->max_batch <= MEDIA_MAX_BATCH);
    assert_true(p->max_batch >= block * 2);
    /* No slot's line is another's, nor outside of its own area. */
    for (unsigned s = 0; s < p->geo.slots; s++) {
        char *area = p->base + p->slot_base + p->slot_stride * s;
        char *next = area + p->slot_stride;
        assert_ptr_equal(pool_claim(p, s), area);
        assert_ptr_equal(pool_heartbeat(p, s), area + 64);
        assert_ptr_equal(pool_watermark(p, s, 0), area + 128);
        assert_ptr_equal(pool_synced(p, s, 0), area + 192);
        assert_ptr_equal(pool_root_copy(p, s, 0), next - 12288);
        assert_ptr_equal(pool_root_copy(p, s, 1), next - 8192);
        assert_ptr_equal(pool_watermark(p, s, 1), next - 4096 + 128);
        assert_ptr_equal(pool_synced(p, s, 1), next - 4096 + 192);
        assert_ptr_equal(pool_root(p, s, 0), area + 4096);
        assert_ptr_equal(pool_root(p, s, 1), area + 8192);
        assert_ptr_equal(pool_descriptor(p, s, 0, 0), area + 12288);
        assert_ptr_equal(pool_descriptor(p, s, 0, p->geo.descriptors), area + 12288);
        char *last = (char *)pool_descriptor(p, s, p->geo.producers - 1, UINT64_MAX);
        assert_ptr_equal(pool_entry(p, s, 0), last + 64);
        assert_true((char *)pool_entry(p, s, UINT64_MAX) + 64 <= next - 12288);
        assert_ptr_equal(pool_entry(p, s, p->geo.index_entries + 3), pool_entry(p, s, 3));
    }
    assert_true(pool_in_data(p, p->data_base, p->data_size));
    assert_false(pool_in_data(p, p->data_base - 1, 1));
    assert_false(pool_in_data(p, p->data_base, p->data_size + 1));
    assert_false(pool_in_data(p, p->data_base + 64, UINT64_MAX));
    assert_false(pool_in_data(p, UINT64_MAX, 64));
    assert_int_equal(pool_extent_base(p, p->data_base + largest + 5, p->geo.max_order),
                     p->data_base + largest);
    assert_int_equal(pool_extent_base(p, p->data_base + largest + 5, 0), p->data_base + largest);
    assert_int_equal(pool_extent_base(p, p->data_base + block - 1, 0), p->data_base);
}

static void roundtrip(uint64_t size, const struct pool_geometry *geo)
{
    struct region r;
    struct pool p;
    struct embar_error err = {0};
    open_memory(&r, size);
    assert_true(pool_is_blank(&r));
    if (pool_format(&r, geo, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(pool_attach(&p, &r, &err), 0);
    assert_int_equal(p.size, size);
    assert_int_equal(p.incarnation, 1);
    assert_ptr_equal(p.flush, &r.flush);
    struct pool_geometry planned = geo ? *geo : (struct pool_geometry){0};
    assert_int_equal(pool_plan(size, &planned, &err), 0);
    assert_memory_equal(&planned, &p.geo, sizeof(planned));
    check_pool(&p);
    assert_false(pool_is_blank(&r));
    close_memory(&r);
}

static void plans(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (uint64_t size = POOL_MIN_SIZE; size <= 8 * GIB; size *= 2)
        roundtrip(size, NULL);
    for (unsigned i = 0; i < 200; i++) {
        unsigned shift = 22 + (unsigned)(draw(&seed) % 10);
        uint64_t size = ((1ull << shift) + draw(&seed) % (1ull << shift)) & ~4095ull;
        roundtrip(size, NULL);
    }
    /* Plans only: beyond what a test machine can map. */
    for (uint64_t size = POOL_MIN_SIZE; size <= 1ull << 47; size += size / 7 & ~4095ull) {
        struct pool_geometry g = {0};
        struct embar_error err;
        if (pool_plan(size, &g, &err) != 0)
            fail_msg("%s", err.text);
        assert_true(size >> g.block_shift <= MIB);
        uint64_t overhead =
            (uint64_t)g.slots * (g.index_entries + g.producers * g.descriptors) * 64;
        assert_true(overhead <= size / 16);
        assert_true(1ull << (g.block_shift + g.max_order) <= 32 * MIB || g.max_order == 2);
    }
    struct pool_geometry g = {0};
    assert_int_equal(pool_plan(GIB, &g, NULL), 0);
    assert_int_equal(g.block_shift, 12);
    assert_int_equal(g.slots, 8);
    assert_int_equal(1ull << (g.block_shift + g.max_order), 32 * MIB);
}

static void given_geometry(void **state)
{
    (void)state;
    const struct pool_geometry tiny = {
        .slots = 1, .producers = 1, .descriptors = 2, .index_entries = 8, .max_order = 3};
    roundtrip(POOL_MIN_SIZE, &tiny);
    const struct pool_geometry wide = {.slots = 64,
                                       .producers = 2,
                                       .descriptors = 4,
                                       .index_entries = 64,
                                       .regions = 7,
                                       .brokers = 5};
    roundtrip(32 * MIB, &wide);
    const struct pool_geometry coarse = {.block_shift = 16};
    roundtrip(64 * MIB, &coarse);
    static const struct pool_geometry bad[] = {
        {.slots = 65},        {.producers = 2000},    {.descriptors = 3},
        {.descriptors = 1},   {.index_entries = 100}, {.index_entries = 1ull << 40},
        {.block_shift = 11},  {.block_shift = 63},    {.max_order = 1},
        {.max_order = 60},    {.regions = 100000},    {.brokers = 9},
        {.index_entries = 4},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct pool_geometry g = bad[i];
        struct embar_error err;
        assert_int_equal(pool_plan(GIB, &g, &err), -EMBAR_EINVALID);
    }
    static const struct pool_geometry large[] = {{.slots = 64, .producers = 64},
                                                 {.index_entries = 1 << 20},
                                                 {.max_order = 10},
                                                 {.block_shift = 24}};
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        struct pool_geometry g = large[i];
        struct embar_error err;
        assert_int_equal(pool_plan(POOL_MIN_SIZE, &g, &err), -EMBAR_ETOOSMALL);
    }
    struct pool_geometry g = {0};
    assert_int_equal(pool_plan(POOL_MIN_SIZE - 4096, &g, NULL), -EMBAR_ETOOSMALL);
    assert_int_equal(pool_plan(1ull << 60, &g, NULL), -EMBAR_EINVALID);
}

static void put_super(struct region *r, uint64_t at, struct media_super *s)
{
    s->crc = le32_of(0);
    s->crc = le32_of(crc32c(0, s, sizeof(*s)));
    memcpy(r->base + at, s, sizeof(*s));
}

static int attach_code(struct region *r)
{
    struct pool p;
    struct embar_error err = {0};
    int rc = pool_attach(&p, r, &err);
    if (rc) {
        assert_int_equal(err.code, rc);
        assert_int_equal(err.text[strlen(err.text) - 1], '.');
    }
    return rc;
}

static void refusals(void **state)
{
    (void)state;
    struct region r;
    struct media_super good;
    struct media_super s;
    open_memory(&r, POOL_MIN_SIZE);
    assert_int_equal(attach_code(&r), -EMBAR_ENOTPOOL);
    memset(r.base, 'x', 8192);
    assert_int_equal(attach_code(&r), -EMBAR_ENOTPOOL);
    assert_int_equal(r.base[0], 'x');
    assert_int_equal(pool_format(&r, NULL, NULL), 0);
    memcpy(&good, r.base, sizeof(good));

    s = good;
    s.version = le32_of(MEDIA_VERSION + 1);
    put_super(&r, 0, &s);
    put_super(&r, 4096, &s);
    assert_int_equal(attach_code(&r), -EMBAR_EVERSION);
    s = good;
    s.incompat = le64_of(4);
    put_super(&r, 0, &s);
    assert_int_equal(attach_code(&r), -EMBAR_EFEATURE);
    s = good;
    s.compat = le64_of(~0ull);
    put_super(&r, 0, &s);
    assert_int_equal(attach_code(&r), 0);
    s.ro_compat = le64_of(1);
    put_super(&r, 0, &s);
    assert_int_equal(attach_code(&r), -EMBAR_EFEATURE);
    r.readonly = true;
    assert_int_equal(attach_code(&r), 0);
    r.readonly = false;
    /* Damaged: the copy serves. Both damaged: said so. */
    put_super(&r, 4096, &good);
    memset(r.base, 0, 4096);
    assert_int_equal(attach_code(&r), 0);
    put_super(&r, 0, &good);
    r.base[70] ^= 1;
    assert_int_equal(attach_code(&r), 0);
    r.base[4096 + 70] ^= 1;
    assert_int_equal(attach_code(&r), -EMBAR_ECORRUPT);
    /* Truncated. */
    put_super(&r, 0, &good);
    s = good;
    s.size = le64_of(POOL_MIN_SIZE + 4096);
    put_super(&r, 0, &s);
    assert_int_equal(attach_code(&r), -EMBAR_ECORRUPT);
    close_memory(&r);
}

/* Damage without a matching checksum: refused, or the copy is used; never believed. */
static void damaged_bytes(void **state)
{
    (void)state;
    struct region r;
    struct pool before;
    uint64_t seed = 5;
    open_memory(&r, POOL_MIN_SIZE);
    assert_int_equal(pool_format(&r, NULL, NULL), 0);
    assert_int_equal(pool_attach(&before, &r, NULL), 0);
    char clean[8192];
    memcpy(clean, r.base, sizeof(clean));
    for (unsigned i = 0; i < 5000; i++) {
        unsigned flips = 1 + (unsigned)(draw(&seed) % 6);
        bool both = draw(&seed) & 1;
        for (unsigned f = 0; f < flips; f++) {
            uint64_t at = draw(&seed) % 256;
            r.base[at] = (char)(r.base[at] ^ (1 << draw(&seed) % 8));
            if (both)
                r.base[4096 + at] = r.base[at];
        }
        struct pool p;
        if (pool_attach(&p, &r, NULL) == 0) {
            assert_memory_equal(&p.geo, &before.geo, sizeof(p.geo));
            assert_int_equal(p.data_base, before.data_base);
            assert_int_equal(p.data_size, before.data_size);
            if (both) /* flips that undid each other */
                assert_memory_equal(r.base, clean, 256);
        } else {
            assert_true(both);
        }
        memcpy(r.base, clean, sizeof(clean));
    }
    close_memory(&r);
}

/* Hostile: any field holds anything, with a checksum that says it is right. What is believed keeps
 * all promises, whatever it is. */
static void hostile_fields(void **state)
{
    (void)state;
    struct region r;
    struct media_super good;
    uint64_t seed = 77;
    unsigned believed = 0;
    open_memory(&r, 16 * MIB);
    assert_int_equal(pool_format(&r, NULL, NULL), 0);
    memcpy(&good, r.base, sizeof(good));
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   3,
                                   8,
                                   63,
                                   64,
                                   65,
                                   4095,
                                   4096,
                                   8192,
                                   1ull << 20,
                                   1ull << 22,
                                   1ull << 31,
                                   UINT32_MAX,
                                   1ull << 32,
                                   1ull << 47,
                                   1ull << 48,
                                   1ull << 63,
                                   UINT64_MAX - 4095,
                                   UINT64_MAX - 8191,
                                   UINT64_MAX};
    const unsigned odds = sizeof(odd) / sizeof(odd[0]);
    for (unsigned i = 0; i < 200000; i++) {
        struct media_super s = good;
        unsigned changes = 1 + (unsigned)(draw(&seed) % 3);
        for (unsigned c = 0; c < changes; c++) {
            /* The fields from size to brokers, and durability. */
            unsigned at = 64 + (unsigned)(draw(&seed) % 20) * 4;
            if (draw(&seed) % 20 == 0)
                at = 168;
            uint64_t v = odd[draw(&seed) % odds];
            switch (draw(&seed) % 4) {
            case 0: v = draw(&seed); break;
            case 1: v += draw(&seed) % 5 - 2; break;
            default: break;
            }
            size_t width = (draw(&seed) & 1) && at % 8 == 0 ? 8 : 4;
            memcpy((char *)&s + at, &v, width);
        }
        put_super(&r, 0, &s);
        struct pool p;
        if (pool_attach(&p, &r, NULL) != 0)
            continue;
        believed++;
        uint64_t block = 1ull << p.geo.block_shift;
        assert_true(p.size <= r.size);
        assert_true(p.data_base + p.data_size <= r.size && p.data_base < r.size);
        assert_true(p.data_size % block == 0 && block << p.geo.max_order <= p.data_size);
        assert_true((char *)(pool_claim(&p, 0)) >= r.base + 8192);
        assert_true((char *)(pool_entry(&p, p.geo.slots - 1, UINT64_MAX) + 1) <=
                    r.base + p.data_base);
        assert_true(p.max_batch > 0 && p.max_batch <= MEDIA_MAX_BATCH);
    }
    print_message("%u of 200000 believed\n", believed);
    assert_true(believed > 100); /* else the test looks at nothing */
    close_memory(&r);
}

/* Formatting over an old pool leaves nothing of it in the slots. */
static void format_again(void **state)
{
    (void)state;
    struct region r;
    struct pool p;
    uint8_t uuid[16];
    open_memory(&r, POOL_MIN_SIZE);
    assert_int_equal(pool_format(&r, NULL, NULL), 0);
    assert_int_equal(pool_attach(&p, &r, NULL), 0);
    memcpy(uuid, p.uuid, sizeof(uuid));
    memset(r.base + p.slot_base, 0xff, p.slot_stride * p.geo.slots);
    r.created = false;
    assert_int_equal(pool_format(&r, NULL, NULL), 0);
    assert_int_equal(pool_attach(&p, &r, NULL), 0);
    assert_memory_not_equal(uuid, p.uuid, sizeof(uuid));
    for (uint64_t i = 0; i < p.slot_stride * p.geo.slots; i++)
        assert_int_equal(r.base[p.slot_base + i], 0);
    r.readonly = true;
    assert_int_equal(pool_format(&r, NULL, NULL), -EMBAR_EINVALID);
    close_memory(&r);
}

/* A disk image may begin and end with zeros. */
static void blank(void **state)
{
    (void)state;
    struct region r;
    open_memory(&r, 8 * MIB);
    r.kind = REGION_FILE;
    r.created = false;
    assert_true(pool_is_blank(&r));
    static const uint64_t places[] = {0, 63, 1024, 65536, 1 * MIB, 4 * MIB + 7, 8 * MIB - 1};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        r.base[places[i]] = 1;
        assert_false(pool_is_blank(&r));
        r.base[places[i]] = 0;
    }
    r.kind = REGION_DEVDAX;
    r.base[8 * MIB - 1] = 1;
    assert_false(pool_is_blank(&r));
    close_memory(&r);
}

static void ids(void **state)
{
    (void)state;
    uint8_t a[16];
    uint8_t b[16];
    static const uint8_t zero[16];
    host_boot_id(a);
    host_boot_id(b);
    assert_memory_equal(a, b, sizeof(a));
    assert_memory_not_equal(a, zero, sizeof(a));
    host_machine_id(a);
    host_machine_id(b);
    assert_memory_equal(a, b, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans),          cmocka_unit_test(given_geometry),
        cmocka_unit_test(refusals),       cmocka_unit_test(damaged_bytes),
        cmocka_unit_test(hostile_fields), cmocka_unit_test(format_again),
        cmocka_unit_test(blank),          cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
