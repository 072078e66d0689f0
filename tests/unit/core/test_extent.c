/* Extents against a plain map of blocks: what is handed out is free, aligned and nobody else's,
 * whatever order it is claimed in, and everything merges back. */
#include <string.h>

#include "core/extent.h"
#include "tests/unit/core/campaign.h"

#define MOST 4096u

/* What the blocks should be: per block the handle that owns it. */
enum { UNGRANTED = -2, FREE = -1 };
struct model {
    struct pool pool;
    struct extents *x;
    uint32_t blocks, region_blocks;
    int owner[MOST];
    struct extent *handle[MOST]; /* live extents */
    unsigned refs[MOST];
    unsigned handles;
    unsigned freed; /* as told by the allocator */
};

static void count_freed(void *arg)
{
    ++*(unsigned *)arg;
}

static void model_open(struct model *m, unsigned regions, uint32_t region_blocks,
                       unsigned max_order)
{
    memset(m, 0, sizeof *m);
    m->region_blocks = region_blocks;
    m->blocks = regions * region_blocks;
    assert_true(m->blocks <= MOST);
    m->pool.geo.regions = regions;
    m->pool.geo.block_shift = 12;
    m->pool.geo.max_order = max_order;
    m->pool.data_base = 1 << 20;
    m->pool.data_size = (uint64_t)m->blocks << 12;
    for (uint32_t b = 0; b < m->blocks; b++)
        m->owner[b] = UNGRANTED;
    assert_int_equal(extents_create(&m->x, &m->pool, count_freed, &m->freed), 0);
}

static uint64_t blocks_free(const struct model *m)
{
    uint64_t n = 0;
    for (uint32_t b = 0; b < m->blocks; b++)
        n += m->owner[b] == FREE;
    return n;
}

static void check_stat(const struct model *m)
{
    struct extents_stat st;
    uint64_t granted = 0;
    for (uint32_t b = 0; b < m->blocks; b++)
        granted += m->owner[b] != UNGRANTED;
    extents_stat(m->x, &st);
    assert_int_equal(st.granted, granted << 12);
    assert_int_equal(st.free, blocks_free(m) << 12);
    assert_int_equal(st.used, st.granted - st.free);
    assert_int_equal(st.count, m->handles);
}

static bool range_is(const struct model *m, uint32_t b, unsigned order, int owner)
{
    if (b + (1u << order) > m->blocks)
        return false;
    for (uint32_t i = 0; i < 1u << order; i++)
        if (m->owner[b + i] != owner)
            return false;
    return true;
}

static bool room_for(const struct model *m, unsigned order)
{
    for (uint32_t b = 0; b + (1u << order) <= m->blocks; b += 1u << order)
        if (range_is(m, b, order, FREE))
            return true;
    return false;
}

static uint32_t block_of(const struct model *m, uint64_t at)
{
    return (uint32_t)((at - m->pool.data_base) >> 12);
}

static void model_take(struct model *m, struct extent *e, unsigned order)
{
    uint32_t b = block_of(m, e->base);
    assert_int_equal(e->order, order);
    assert_int_equal(e->size, 4096ull << order);
    assert_int_equal(b % (1u << order), 0);
    assert_int_equal(e->base, m->pool.data_base + ((uint64_t)b << 12));
    assert_true(range_is(m, b, order, FREE));
    assert_ptr_equal(extent_find(m->x, e->base + e->size - 1, order), e);
    int id = (int)m->handles++;
    m->handle[id] = e;
    m->refs[id] = 1;
    for (uint32_t i = 0; i < 1u << order; i++)
        m->owner[b + i] = id;
}

static void model_put(struct model *m, unsigned id)
{
    struct extent *e = m->handle[id];
    uint32_t b = block_of(m, e->base), n = 1u << e->order;
    unsigned told = m->freed;
    extent_put(m->x, e);
    if (--m->refs[id] > 0) {
        assert_int_equal(m->freed, told);
        return;
    }
    assert_int_equal(m->freed, told + 1);
    for (uint32_t i = 0; i < n; i++)
        m->owner[b + i] = FREE;
    unsigned last = --m->handles;
    if (id != last) {
        m->handle[id] = m->handle[last];
        m->refs[id] = m->refs[last];
        b = block_of(m, m->handle[id]->base);
        for (uint32_t i = 0; i < 1u << m->handle[id]->order; i++)
            m->owner[b + i] = (int)id;
    }
}

static void model_grant(struct model *m, unsigned first, unsigned count)
{
    assert_int_equal(extents_grant(m->x, first, count), 0);
    for (uint32_t b = first * m->region_blocks; b < (first + count) * m->region_blocks; b++)
        m->owner[b] = FREE;
}

static void step_new(struct model *m, struct draws *d)
{
    struct extents_stat st;
    extents_stat(m->x, &st);
    unsigned order = pick(d, m->pool.geo.max_order + 2);
    enum extent_class c = one_in(d, 4) ? EXTENT_META : EXTENT_PAYLOAD;
    bool room = order <= m->pool.geo.max_order && room_for(m, order);
    if (room && c == EXTENT_PAYLOAD && blocks_free(m) < (st.reserve >> 12) + (1u << order))
        room = false;
    struct extent *e = extent_new(m->x, order, c);
    assert_int_equal(e != NULL, room);
    if (e)
        model_take(m, e, order);
}

static void step_claim(struct model *m, struct draws *d)
{
    unsigned order = pick(d, m->pool.geo.max_order + 1);
    uint32_t b = pick(d, m->blocks);
    uint32_t start = b & ~((1u << order) - 1);
    struct extent *e = NULL;
    uint64_t at = m->pool.data_base + ((uint64_t)b << 12) + pick(d, 4096);
    int owner = m->owner[start];
    bool same = owner >= 0 && m->handle[owner]->order == order &&
                block_of(m, m->handle[owner]->base) == start;
    bool room = range_is(m, start, order, FREE);
    int rc = extent_claim(m->x, at, order, &e);
    assert_int_equal(rc, same || room ? 0 : -EMBAR_ECORRUPT);
    if (same) {
        assert_ptr_equal(e, m->handle[owner]);
        m->refs[owner]++;
    } else if (room) {
        model_take(m, e, order);
    }
}

static void merged_again(struct model *m)
{
    while (m->handles)
        model_put(m, m->handles - 1);
    check_stat(m);
    /* As many of the largest as the model says, none overlapping (model_take). */
    unsigned most = m->pool.geo.max_order;
    while (room_for(m, most)) {
        struct extent *e = extent_new(m->x, most, EXTENT_META);
        assert_non_null(e);
        model_take(m, e, most);
    }
    assert_null(extent_new(m->x, most, EXTENT_META));
    while (m->handles)
        model_put(m, 0);
}

static void random_walk(void **state)
{
    (void)state;
    struct draws d = campaign_begin("extents");
    static struct model m;
    unsigned rounds = campaign_rounds(12);
    for (unsigned round = 0; round < rounds; round++) {
        unsigned regions = 1 + pick(&d, 7);
        model_open(&m, regions, 30 + pick(&d, 90), 2 + pick(&d, 6));
        unsigned granted = 0;
        for (unsigned i = 0; i < 2500; i++) {
            unsigned what = pick(&d, 100);
            if (granted < regions && (i % 400 == 0 || what == 99)) {
                unsigned n = 1 + pick(&d, regions - granted);
                model_grant(&m, granted, n);
                granted += n;
            }
            if (what < 35)
                step_new(&m, &d);
            else if (what < 60)
                step_claim(&m, &d);
            else if (m.handles)
                model_put(&m, pick(&d, m.handles));
            if (i % 50 == 0)
                check_stat(&m);
        }
        merged_again(&m);
        extents_destroy(m.x);
    }
}

/* A recovery meets the extents in any order: each time the same set must fit. */
static void claims_in_any_order(void **state)
{
    (void)state;
    struct draws d = campaign_begin("claims");
    static struct model m;
    for (unsigned round = 0; round < campaign_rounds(30); round++) {
        struct {
            uint64_t at;
            unsigned order;
        } set[300];
        unsigned n = 0;
        model_open(&m, 3, 64 + pick(&d, 40), 5);
        model_grant(&m, 0, 3);
        while (n < 300) {
            unsigned order = pick(&d, 4);
            struct extent *e = extent_new(m.x, order, EXTENT_META);
            if (!e)
                break;
            model_take(&m, e, order);
            set[n].at = e->base + pick(&d, (uint32_t)e->size);
            set[n++].order = order;
        }
        extents_destroy(m.x);
        model_open(&m, 3, m.region_blocks, 5);
        model_grant(&m, 0, 3);
        for (unsigned left = n; left > 0; left--) {
            unsigned i = pick(&d, left);
            struct extent *e;
            assert_int_equal(extent_claim(m.x, set[i].at, set[i].order, &e), 0);
            model_take(&m, e, set[i].order);
            set[i] = set[left - 1];
        }
        check_stat(&m);
        merged_again(&m);
        extents_destroy(m.x);
    }
}

static void reserve_is_kept_for_meta(void **state)
{
    (void)state;
    static struct model m;
    model_open(&m, 4, 80, 3);
    model_grant(&m, 0, 4);
    struct extents_stat st;
    extents_stat(m.x, &st);
    assert_true(st.reserve > 0);
    struct extent *e;
    while ((e = extent_new(m.x, 0, EXTENT_PAYLOAD)))
        model_take(&m, e, 0);
    assert_int_equal(blocks_free(&m) << 12, st.reserve);
    unsigned meta = 0;
    for (; (e = extent_new(m.x, 0, EXTENT_META)); meta++)
        model_take(&m, e, 0);
    assert_int_equal((uint64_t)meta << 12, st.reserve);
    assert_int_equal(blocks_free(&m), 0);
    merged_again(&m);
    extents_destroy(m.x);
}

static void bad_grants_and_claims_are_refused(void **state)
{
    (void)state;
    static struct model m;
    struct extent *e;
    model_open(&m, 4, 80, 3);
    assert_int_equal(extent_claim(m.x, m.pool.data_base, 0, &e), -EMBAR_ECORRUPT);
    assert_int_equal(extents_grant(m.x, 4, 1), -EMBAR_ECORRUPT);
    assert_int_equal(extents_grant(m.x, 3, 2), -EMBAR_ECORRUPT);
    assert_int_equal(extents_grant(m.x, 1, UINT64_MAX), -EMBAR_ECORRUPT);
    assert_int_equal(extents_grant(m.x, UINT64_MAX, 2), -EMBAR_ECORRUPT);
    model_grant(&m, 1, 2);
    /* What was granted once is not granted again, in whole or in part. */
    assert_int_equal(extents_grant(m.x, 1, 1), -EMBAR_ECORRUPT);
    assert_int_equal(extents_grant(m.x, 0, 2), -EMBAR_ECORRUPT);
    assert_int_equal(extents_grant(m.x, 2, 2), -EMBAR_ECORRUPT);
    check_stat(&m);
    assert_int_equal(extent_claim(m.x, m.pool.data_base - 1, 0, &e), -EMBAR_ECORRUPT);
    assert_int_equal(extent_claim(m.x, m.pool.data_base + m.pool.data_size, 0, &e),
                     -EMBAR_ECORRUPT);
    assert_int_equal(extent_claim(m.x, m.pool.data_base, 0, &e), -EMBAR_ECORRUPT);
    assert_int_equal(extent_claim(m.x, UINT64_MAX, 0, &e), -EMBAR_ECORRUPT);
    uint64_t granted = m.pool.data_base + (80ull << 12);
    assert_int_equal(extent_claim(m.x, granted, 4, &e), -EMBAR_ECORRUPT);
    assert_int_equal(extent_claim(m.x, granted, 200, &e), -EMBAR_ECORRUPT);
    check_stat(&m);
    merged_again(&m);
    extents_destroy(m.x);
}

/* ---- Clearing ------------------------------------------------------------------------------ */

/* Blocks that are in use, by runs that a survey found. */
static void use(struct model *m, uint32_t block, unsigned order)
{
    struct extent *e;
    uint64_t at = m->pool.data_base + ((uint64_t)block << 12);
    assert_int_equal(extent_claim(m->x, at, order, &e), 0);
    e->survey = e->runs = 1;
    e->live = e->size - e->size / 8;
}

/* A batch lacks the second of two pieces of 16 blocks. The block that is cheapest to clear holds a half
 * that would have to go into the first piece: then one would be lacking again, and so on. */
static void no_piece_is_cut_for_another(void **state)
{
    (void)state;
    static struct model m;
    uint64_t at[16];
    model_open(&m, 1, 256, 5);
    model_grant(&m, 0, 1);
    /* 16 free; 8 used and 8 free; pairs, of which every fourth is free, in the rest. */
    use(&m, 16, 3);
    for (uint32_t b = 32; b < 256; b += 2)
        if (b % 8 != 2)
            use(&m, b, 1);
    struct extents_choice c = {.survey = 1, .order = 4, .need = 32};
    unsigned found = extents_choose(m.x, &c, at, 16);
    assert_int_equal(found, 14);
    for (unsigned i = 0; i < found; i++)
        assert_true(at[i] >= m.pool.data_base + (32 << 12));
    extents_destroy(m.x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_walk),
        cmocka_unit_test(claims_in_any_order),
        cmocka_unit_test(reserve_is_kept_for_meta),
        cmocka_unit_test(bad_grants_and_claims_are_refused),
        cmocka_unit_test(no_piece_is_cut_for_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
