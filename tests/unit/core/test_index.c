/* The index: entries survive their encoding, any flipped bit breaks the chain, nothing of another
 * lap, term or history is taken for the next entry, and no field outside its bounds passes. */
#include <string.h>
#include <sys/mman.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

static struct entry entry_draw(struct draws *d, uint64_t number)
{
    uint8_t kind = (uint8_t)(one_in(d, 2) ? draw(d) : draw(d) % 6);
    bool side = kind == MEDIA_BATCH || kind == MEDIA_CONTROL || kind == MEDIA_PART;
    uint64_t session = !side ? draw(d) : one_in(d, 2) ? draw(d) & MASK48 : 0;
    return (struct entry){.number = number,
                          .session = session,
                          .sequence = side && !session ? 0 : draw(d) & MASK48,
                          .check = !side ? 0 : (uint32_t)draw(d) & (session ? 0xffffu : ~0u),
                          .offset = draw(d),
                          .payload = draw(d) & MASK48,
                          .side = draw(d) & MASK48,
                          .term = (uint32_t)draw(d),
                          .topic = (uint32_t)draw(d),
                          .length = (uint32_t)draw(d),
                          .count = 1 + pick(d, 65536),
                          .kind = kind,
                          .flags = (uint8_t)draw(d),
                          .slot = (uint8_t)draw(d),
                          .order = (uint8_t)draw(d)};
}

static void assert_same(const struct entry *a, const struct entry *b)
{
    assert_int_equal(a->number, b->number);
    assert_int_equal(a->session, b->session);
    assert_int_equal(a->sequence, b->sequence);
    assert_int_equal(a->check, b->check);
    assert_int_equal(a->offset, b->offset);
    assert_int_equal(a->payload, b->payload);
    assert_int_equal(a->side, b->side);
    assert_int_equal(a->term, b->term);
    assert_int_equal(a->topic, b->topic);
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->order, b->order);
}

static void what_is_encoded_is_decoded(void **state)
{
    (void)state;
    struct draws d = campaign_begin("encode");
    uint32_t chain = (uint32_t)draw(&d);
    for (uint64_t n = 1; n < campaign_rounds(5000); n++) {
        struct entry e = entry_draw(&d, one_in(&d, 2) ? n : draw(&d)), got;
        struct media_entry line;
        uint32_t next = index_encode(&line, &e, chain), behind = 0;
        assert_int_equal(index_decode(&line, e.number, chain, &got, &behind), 1);
        assert_same(&e, &got);
        assert_int_equal(behind, next);
        assert_int_equal(le32_get(line.crc), next);
        /* Behind another chain, or as another number, it is nothing. */
        assert_int_equal(index_decode(&line, e.number, chain ^ 1, &got, &behind), 0);
        assert_int_equal(index_decode(&line, e.number + 1, chain, &got, &behind), 0);
        chain = next;
    }
}

static void any_flipped_bit_breaks_the_chain(void **state)
{
    (void)state;
    struct draws d = campaign_begin("flips");
    for (unsigned i = 0; i < campaign_rounds(50); i++) {
        struct entry e = entry_draw(&d, 1 + draw(&d) % 1000), got;
        struct media_entry line, hurt;
        uint32_t chain = (uint32_t)draw(&d), next;
        index_encode(&line, &e, chain);
        for (unsigned bit = 0; bit < 512; bit++) {
            hurt = line;
            ((unsigned char *)&hurt)[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_int_equal(index_decode(&hurt, e.number, chain, &got, &next), 0);
        }
        memset(&hurt, 0, sizeof hurt);
        assert_int_equal(index_decode(&hurt, e.number, chain, &got, &next), 0);
        assert_int_equal(index_decode(&hurt, 0, chain, &got, &next), 0);
        memset(&hurt, 0xff, sizeof hurt);
        assert_int_equal(index_decode(&hurt, e.number, chain, &got, &next), 0);
    }
}

static void seeds_tell_pools_and_incarnations_apart(void **state)
{
    (void)state;
    struct pool a = {.uuid = {1, 2, 3}, .incarnation = 1}, b = a, c = a;
    b.incarnation = 2;
    c.uuid[15] = 9;
    assert_int_equal(index_seed(&a), index_seed(&a));
    assert_true(index_seed(&a) != index_seed(&b));
    assert_true(index_seed(&a) != index_seed(&c));
}

static void bounds_are_checked(void **state)
{
    (void)state;
    struct pool p = {.geo = {.slots = 4, .max_order = 4, .block_shift = 12, .regions = 1},
                     .data_base = 1 << 20,
                     .data_size = 64 << 12};
    uint64_t base = p.data_base + (16 << 12), size = 4 << 12;
    struct entry good = {.number = 5,
                         .offset = 1000,
                         .payload = base + 100,
                         .side = base + size - 64,
                         .topic = 3,
                         .length = 5000,
                         .count = 10,
                         .kind = MEDIA_BATCH,
                         .slot = 1,
                         .order = 2};
    assert_int_equal(index_check(&p, &good), 0);
    uint64_t end = p.data_base + p.data_size;
#define BAD(field, value)                                                                          \
    do {                                                                                           \
        struct entry e = good;                                                                     \
        e.field = (value);                                                                         \
        assert_int_equal(index_check(&p, &e), -EMBAR_ECORRUPT);                                    \
    } while (0)
    BAD(kind, 0);
    BAD(kind, 7);
    BAD(kind, 255);
    BAD(kind, MEDIA_CONTROL); /* a topic's */
    BAD(topic, 0);            /* topic 0 takes control actions only */
    BAD(slot, 4);
    BAD(slot, 255);
    BAD(order, 5);
    BAD(order, 255);
    BAD(length, 0);
    BAD(length, MEDIA_MAX_BATCH + 1);
    BAD(length, UINT32_MAX);
    BAD(length, (uint32_t)size - 100 + 1);
    BAD(count, MEDIA_MAX_MESSAGES + 1);
    BAD(side, base + size - 63);
    BAD(side, base - 64);
    BAD(side, base + size);
    BAD(side, 0);
    BAD(side, MASK48 & ~63ull);
    BAD(payload, 0);
    BAD(payload, p.data_base - 1);
    BAD(payload, end);
    BAD(payload, MASK48);
    BAD(payload, base + size - 4999);
    BAD(offset, UINT64_MAX - 4999);
    BAD(offset, UINT64_MAX);
    struct entry edge = good;
    edge.length = (uint32_t)size - 100;
    assert_int_equal(index_check(&p, &edge), 0);
    edge = good;
    edge.kind = MEDIA_CONTROL;
    edge.topic = 0;
    assert_int_equal(index_check(&p, &edge), 0);
    edge = good;
    edge.kind = MEDIA_PART; /* its side record is with the first part */
    edge.side = p.data_base;
    assert_int_equal(index_check(&p, &edge), 0);
    /* An extent that the data area does not hold whole. */
    p.data_size = 18 << 12;
    assert_int_equal(index_check(&p, &good), -EMBAR_ECORRUPT);
}

/* Every field at random: what passes lies inside. */
static void what_passes_lies_inside(void **state)
{
    (void)state;
    struct draws d = campaign_begin("bounds");
    struct pool p = {.geo = {.slots = 2, .max_order = 3, .block_shift = 12, .regions = 1},
                     .data_base = 1 << 20,
                     .data_size = 61 << 12};
    unsigned passed = 0;
    for (unsigned i = 0; i < campaign_rounds(200000); i++) {
        struct entry e = entry_draw(&d, 1);
        e.kind = (uint8_t)(1 + pick(&d, 6));
        e.topic = e.kind == MEDIA_CONTROL ? 0 : 7;
        e.order = (uint8_t)pick(&d, 5);
        e.slot = (uint8_t)pick(&d, 3);
        e.length = pick(&d, 40000);
        e.payload = p.data_base - 4096 + pick(&d, (63 << 12));
        e.side = (e.payload + pick(&d, 20000)) & ~63ull;
        if (index_check(&p, &e) || e.kind == MEDIA_TERM || e.kind == MEDIA_GRANT)
            continue;
        passed++;
        uint64_t size = 4096ull << e.order;
        uint64_t base = p.data_base + (e.payload - p.data_base) / size * size;
        assert_true(e.slot < 2 && e.order <= 3 && e.length > 0);
        assert_true(base >= p.data_base && base + size <= p.data_base + p.data_size);
        assert_true(e.payload >= base && e.payload + e.length <= base + size);
        if (e.kind != MEDIA_PART)
            assert_true(e.side >= base && e.side + 64 <= base + size);
    }
    assert_true(passed > 100);
}

/* ---- Stale entries ------------------------------------------------------------------------- */

static char *read_all(struct fixture *f, uint32_t id, size_t *n)
{
    struct topic *t = log_topic(f->log, id);
    char *all = fixture_read(t, n);
    topic_put(t);
    return all;
}

static void expect_all(struct fixture *f, uint32_t id, const char *want, size_t n)
{
    size_t got;
    char *all = read_all(f, id, &got);
    assert_int_equal(got, n);
    assert_memory_equal(all, want, n);
    free(all);
}

/* A line of an earlier lap put where the next entry belongs, or of an earlier term: never taken. */
static void stale_entries_are_not_taken(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 16};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct media_entry old[4096];
    char want[4096];
    size_t n = 0;
    for (unsigned i = 0; i < 400; i++) {
        struct topic *t = log_topic(f.log, id);
        char c = (char)('a' + i % 26);
        struct commit commit = fixture_publish(&f, t, 0, 0, 0, &c, 1, NULL, 1);
        assert_int_equal(commit.status, 0);
        topic_put(t);
        want[n++] = c;
        struct pool *p = log_pool(f.log);
        struct log_stat st;
        log_stat_all(f.log, &st);
        old[st.committed] = *pool_entry(p, 0, st.committed);
        if (i % 5 == 4) {
            /* What stood here a lap ago, and what claims to be the next number. */
            uint64_t next = st.committed + 1;
            struct media_entry line = old[next > 16 ? next - 16 : 1];
            if (i % 2)
                line.number = le64_of(next);
            if (i % 3 == 0)
                line.crc = le32_of(crc32c(0, &line, sizeof line));
            *pool_entry(p, 0, next) = line;
            fixture_kill(&f);
            expect_all(&f, id, want, n);
        }
    }
    fixture_close(&f);
}

/* Two histories after one crash: what the first wrote behind the fork is not taken by the second. */
static void other_histories_are_not_taken(void **state)
{
    (void)state;
    struct draws d = campaign_begin("forks");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 64};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    static char want[1 << 16];
    size_t n = 0;
    for (unsigned round = 0; round < campaign_rounds(60); round++) {
        void *fork = fixture_copy(&f);
        struct pool *p = log_pool(f.log);
        uint64_t ring = (uint64_t)((char *)pool_entry(p, 0, 0) - (char *)f.memory);
        uint64_t ring_size = p->geo.index_entries * sizeof(struct media_entry);
        struct topic *t = log_topic(f.log, id);
        for (unsigned i = 0, most = 1 + pick(&d, 10); i < most; i++)
            assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "lost", 4, NULL, 1).status, 0);
        topic_put(t);
        void *first = fixture_copy(&f);
        /* Back to the fork, and on from there differently. */
        f.crashed = fork;
        assert_true(fixture_crash(&f));
        t = log_topic(f.log, id);
        for (unsigned i = 0, most = pick(&d, 6); i < most; i++) {
            char c = (char)('a' + pick(&d, 26));
            assert_int_equal(fixture_publish(&f, t, 0, 0, 0, &c, 1, NULL, 1).status, 0);
            want[n++] = c;
        }
        topic_put(t);
        struct log_stat st;
        log_stat_all(f.log, &st);
        /* The first history's lines where the second has written nothing yet. */
        for (uint64_t k = 1; k < 20; k++) {
            uint64_t at = ring + (st.committed + k) % 64 * sizeof(struct media_entry);
            assert_true(at < ring + ring_size);
            memcpy((char *)f.memory + at, (char *)first + at, sizeof(struct media_entry));
        }
        fixture_kill(&f);
        expect_all(&f, id, want, n);
        munmap(first, f.size);
    }
    fixture_close(&f);
}

/* A hole below the watermark is corruption, told and not cut; above it, the tail that was never
 * acked is cut. */
static void breaks_below_the_watermark_are_told(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 64};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "0123456789", 10, NULL, 1).status, 0);
    struct log_stat st;
    log_stat_all(f.log, &st);
    topic_put(t);
    for (uint64_t k = st.checkpoint + 1; k <= st.committed; k++) {
        char *copy = fixture_copy(&f);
        struct region r;
        region_wrap(&r, copy, f.size, NULL);
        copy[(char *)pool_entry(log_pool(f.log), 0, k) - (char *)f.memory + 30] ^= 4;
        struct log_options again = {.region = &r, .manual = true};
        struct log *log;
        struct embar_error err = {0};
        char *before = malloc(f.size);
        memcpy(before, copy, f.size);
        assert_int_equal(log_open(&log, &again, &err), -EMBAR_ECORRUPT);
        assert_true(strlen(err.text) > 20);
        assert_memory_equal(copy, before, f.size); /* nothing was changed */
        free(before);
        munmap(copy, f.size);
    }
    fixture_close(&f);
}

/* What a checker goes by when lines are lost: a record says whose batch it is and behind which entry, and the
 * watermark how the chain ends. */
static void records_and_marks_tell_the_order(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t session = fixture_session(&f, id, 7);
    const struct pool *p = log_pool(f.log);
    struct sent sent[3];
    struct log_stat st;
    log_stat_all(f.log, &st);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(fixture_send(&f, i % 2, &sent[i], t, i == 2 ? session : 0, i == 2, i == 2,
                                      "x", 1, NULL, 1),
                         0);
    log_commit(f.log);
    for (unsigned i = 0; i < 3; i++) {
        struct side s;
        assert_true(sent[i].done);
        assert_int_equal(side_read(p, sent[i].batch.side, &s), 0);
        assert_int_equal(s.after, st.committed);
        assert_int_equal(s.session, i == 2 ? session : 0);
        assert_int_equal(s.sequence, i == 2);
        assert_int_equal(s.producer, i == 2 ? 0 : i % 2 + 1);
        assert_true(s.fifo);
    }
    log_stat_all(f.log, &st);
    struct media_watermark *mark = pool_watermark(p, 0, 0), *second = pool_watermark(p, 0, 1);
    mark = le64_get(second->number) > le64_get(mark->number) ? second : mark;
    assert_int_equal(le64_get(mark->number), st.committed);
    assert_int_equal(le32_get(mark->chain), le32_get(pool_entry(p, 0, st.committed)->crc));
    struct side s;
    (void)fixture_control(
        &f, (struct control){.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_ORDER, .order = 2});
    assert_int_equal(fixture_send(&f, 0, &sent[0], t, session, 1, 2, "x", 1, NULL, 1), 0);
    log_commit(f.log);
    assert_int_equal(side_read(p, sent[0].batch.side, &s), 0);
    assert_false(s.fifo);
    topic_put(t);
    fixture_close(&f);
}

/* All bits of it that a record holds. */
static void records_hold_the_number_that_they_are_behind(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    const struct pool *p = log_pool(f.log);
    struct batch b = {.topic = t, .length = 6, .count = 2, .equal = true, .after = 0x12345678abcd};
    assert_int_equal(log_reserve(f.log, &b), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct side s;
        b.session = i ? MASK48 : 0;
        b.sequence = i ? MASK48 - 1 : 0;
        b.producer = 1024;
        assert_int_equal(side_write(p, &b), 0);
        assert_int_equal(side_read(p, b.side, &s), 0);
        assert_int_equal(s.after, 0x78abcd);
        assert_int_equal(s.session, b.session);
        assert_int_equal(s.sequence, b.sequence);
        assert_int_equal(s.producer, i ? 0 : 1024);
        assert_true(s.equal);
    }
    log_abandon(f.log, &b);
    topic_put(t);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(any_flipped_bit_breaks_the_chain),
        cmocka_unit_test(seeds_tell_pools_and_incarnations_apart),
        cmocka_unit_test(bounds_are_checked),
        cmocka_unit_test(what_passes_lies_inside),
        cmocka_unit_test(stale_entries_are_not_taken),
        cmocka_unit_test(other_histories_are_not_taken),
        cmocka_unit_test(breaks_below_the_watermark_are_told),
        cmocka_unit_test(records_and_marks_tell_the_order),
        cmocka_unit_test(records_hold_the_number_that_they_are_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
