/* Reservations: live ones never share a byte, whole or split over two extents; what is abandoned
 * comes back or stays a hole; bounds hold and who waits for space is told. */
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define LIVE 48

static uint32_t lengths_draw(struct draws *d, uint32_t *lengths, uint32_t length)
{
    uint32_t count = 1 + pick(d, length < 40 ? length : 40), left = length;
    if (one_in(d, 3))
        count = 1 + pick(d, length < 900 ? length : 900);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t most = left - (count - 1 - i);
        lengths[i] = i + 1 == count
                         ? left
                         : 1 + pick(d, most < 2 * length / count ? most : 2 * length / count);
        if (lengths[i] > most)
            lengths[i] = most;
        left -= lengths[i];
    }
    return count;
}

struct slot {
    struct sent sent;
    struct topic *topic;
    char *data;
    uint32_t *lengths;
    bool live;
    unsigned topic_index;
};

static void data_draw(struct draws *d, char *data, uint32_t length)
{
    uint64_t v = draw(d);
    for (uint32_t i = 0; i < length; i++)
        data[i] = (char)(v >> (i % 8 * 8) ^ i * 31);
}

static void store(struct fixture *f, struct slot *s)
{
    struct batch *b = &s->sent.batch;
    uint32_t n;
    for (uint32_t at = 0; at < b->length; at += n) {
        void *p = log_span(f->log, b, at, &n);
        memcpy(p, s->data + at, n);
        log_writeback(f->log, b, at, n);
    }
    le32 *to = log_lengths(f->log, b);
    for (uint32_t i = 0; to && i < b->count; i++)
        to[i] = le32_of(s->lengths[i]);
    /* The header's line is reserved too. */
    memset(pool_at(log_pool(f->log), b->side), s->data[0], MEDIA_LINE);
}

static void check_slot(struct fixture *f, const struct slot *s)
{
    const struct batch *b = &s->sent.batch;
    uint32_t n;
    for (uint32_t at = 0; at < b->length; at += n) {
        void *p = log_span(f->log, b, at, &n);
        assert_memory_equal(p, s->data + at, n);
    }
    const le32 *to = log_lengths(f->log, b);
    for (uint32_t i = 0; to && i < b->count; i++)
        assert_int_equal(le32_get(to[i]), s->lengths[i]);
    const char *head = pool_at(log_pool(f->log), b->side);
    for (unsigned i = 0; i < MEDIA_LINE; i++)
        assert_int_equal(head[i], s->data[0]);
}

static void told(struct completion *self, const struct commit *commit)
{
    struct sent *s = (struct sent *)self;
    s->commit = *commit;
    atomic_store(&s->done, true);
}

static void slot_reserve(struct fixture *f, struct draws *d, struct slot *s, struct topic **topics)
{
    uint64_t most = log_pool(f->log)->max_batch;
    uint32_t length = 1 + pick(d, one_in(d, 4) ? (uint32_t)most : one_in(d, 2) ? 20000 : 600);
    if (length > most)
        length = (uint32_t)most;
    s->topic_index = pick(d, 3);
    s->data = malloc(length);
    s->lengths = calloc(length, sizeof *s->lengths);
    data_draw(d, s->data, length);
    uint32_t count = lengths_draw(d, s->lengths, length);
    bool equal = one_in(d, 3);
    if (equal)
        count = one_in(d, 2) ? 1 : length;
    if (count > MEDIA_MAX_MESSAGES)
        count = 1;
    memset(&s->sent, 0, sizeof s->sent);
    s->sent.completion.done = told;
    s->sent.batch = (struct batch){.topic = topics[s->topic_index],
                                   .length = length,
                                   .count = count,
                                   .equal = equal,
                                   .completion = &s->sent.completion};
    int rc = log_reserve(f->log, &s->sent.batch);
    assert_true(rc == 0 || rc == -EMBAR_EFULL);
    s->live = rc == 0;
    if (s->live)
        store(f, s);
    else
        free(s->data), free(s->lengths);
}

static void slot_announce(struct fixture *f, struct slot *s, struct model_topic *models)
{
    struct batch *b = &s->sent.batch;
    b->payload_crc = crc32c(0, s->data, b->length);
    assert_int_equal(log_announce(log_producer(f->log, 0), b), 0);
    log_commit(f->log);
    assert_true(atomic_load(&s->sent.done));
    struct model_topic *m = &models[s->topic_index];
    if (s->sent.commit.status == 0) {
        assert_int_equal(s->sent.commit.offset, m->end);
        model_append(m, s->data, b->length, b->equal ? NULL : s->lengths, b->count);
    } else {
        assert_int_equal(s->sent.commit.status, -EMBAR_EFULL);
    }
}

static void random_reservations(void **state)
{
    (void)state;
    struct draws d = campaign_begin("reservations");
    static struct slot slots[LIVE];
    for (unsigned round = 0; round < campaign_rounds(5); round++) {
        struct fixture f;
        struct log_options o = {.manual = true, .geo.max_order = 4 + pick(&d, 3)};
        fixture_open_as(&f, 0, &o);
        struct model_topic models[3] = {0};
        struct topic *topics[3];
        uint32_t ids[3];
        for (unsigned i = 0; i < 3; i++) {
            ids[i] = fixture_topic(&f, (char[]){(char)('a' + i), 0});
            topics[i] = log_topic(f.log, ids[i]);
        }
        struct log_stat empty, st;
        log_stat_all(f.log, &empty);
        for (unsigned i = 0; i < 1500; i++) {
            struct slot *s = &slots[pick(&d, LIVE)];
            if (!s->live) {
                slot_reserve(&f, &d, s, topics);
            } else {
                check_slot(&f, s);
                if (one_in(&d, 2))
                    log_abandon(f.log, &s->sent.batch);
                else
                    slot_announce(&f, s, models);
                s->live = false;
                free(s->data);
                free(s->lengths);
            }
            if (one_in(&d, 60)) {
                unsigned k = pick(&d, 3);
                uint64_t at = models[k].base + draw(&d) % (models[k].end - models[k].base + 1);
                struct control c = {.kind = MEDIA_C_TRIM, .id = ids[k], .value = at};
                fixture_control(&f, c);
                model_trim(&models[k], model_boundary(&models[k], at));
            }
            uint64_t open = 0, n = 0;
            for (unsigned k = 0; k < LIVE; k++)
                if (slots[k].live)
                    open += slots[k].sent.batch.length, n++;
            log_stat_all(f.log, &st);
            assert_int_equal(st.reserved, open);
            assert_true(n == 1 || open <= log_pool(f.log)->data_size / 8);
        }
        for (unsigned k = 0; k < LIVE; k++)
            if (slots[k].live) {
                check_slot(&f, &slots[k]);
                log_abandon(f.log, &slots[k].sent.batch);
                slots[k].live = false;
                free(slots[k].data);
                free(slots[k].lengths);
            }
        for (unsigned k = 0; k < 3; k++) {
            model_check(&models[k], topics[k], &d);
            topic_put(topics[k]);
        }
        fixture_kill(&f);
        for (unsigned k = 0; k < 3; k++) {
            struct topic *t = log_topic(f.log, ids[k]);
            model_check(&models[k], t, &d);
            topic_put(t);
            model_free(&models[k]);
            fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = ids[k]});
        }
        for (int i = 0; i < 3; i++)
            assert_int_equal(log_checkpoint(f.log), 0);
        log_stat_all(f.log, &st);
        assert_int_equal(st.reserved, 0);
        assert_true(st.used <= empty.used + 64 * 4096);
        fixture_close(&f);
    }
}

static struct batch batch_of(struct topic *t, uint32_t length, uint32_t count, bool equal)
{
    return (struct batch){.topic = t, .length = length, .count = count, .equal = equal};
}

/* The last reservation is rolled back, so the next one stands where it stood; an inner one is not. */
static void tail_comes_back_and_inner_stays(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .geo.max_order = 6};
    fixture_open_as(&f, 0, &o);
    struct topic *t = log_topic(f.log, fixture_topic(&f, "t"));
    struct batch first = batch_of(t, 100, 3, false), a = batch_of(t, 300, 1, true);
    struct batch b = batch_of(t, 200, 10, true), c = batch_of(t, 300, 5, false);
    assert_int_equal(log_reserve(f.log, &first), 0);
    assert_int_equal(log_reserve(f.log, &a), 0);
    assert_int_equal(a.run0, first.run0 + 100);
    uint64_t at = a.run0, side = a.side;
    log_abandon(f.log, &a);
    assert_int_equal(log_reserve(f.log, &a), 0);
    assert_int_equal(a.run0, at);
    assert_int_equal(a.side, side);
    assert_int_equal(log_reserve(f.log, &b), 0);
    log_abandon(f.log, &a); /* inner: a hole */
    assert_int_equal(log_reserve(f.log, &c), 0);
    assert_int_equal(c.run0, b.run0 + 200);
    assert_true(c.side < b.side);
    log_abandon(f.log, &c);
    log_abandon(f.log, &b); /* now the last */
    assert_int_equal(log_reserve(f.log, &c), 0);
    assert_int_equal(c.run0, b.run0);
    log_abandon(f.log, &c);
    log_abandon(f.log, &first);
    topic_put(t);
    fixture_close(&f);
}

/* Two extents, one batch: content and boundaries hold over the seam, and over a kill. */
static void split_batches_read_back(void **state)
{
    (void)state;
    struct draws d = campaign_begin("splits");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.max_order = 3};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    char data[16384];
    uint32_t lengths[16384];
    unsigned splits = 0;
    for (unsigned i = 0; i < 100; i++) {
        uint32_t length = 9000 + pick(&d, 7000);
        data_draw(&d, data, length);
        uint32_t count = lengths_draw(&d, lengths, length);
        struct sent s;
        assert_int_equal(fixture_send(&f, 0, &s, t, 0, 0, 0, data, length, lengths, count), 0);
        splits += s.batch.run1 != 0;
        log_commit(f.log);
        assert_int_equal(s.commit.status, 0);
        model_append(&m, data, length, lengths, count);
        if (i % 10 == 0)
            model_check(&m, t, &d);
        if (i % 25 == 24) {
            topic_put(t);
            fixture_kill(&f);
            t = log_topic(f.log, id);
            model_check(&m, t, &d);
        }
        if (m.end - m.base > 1000000) {
            uint64_t at = m.base + pick(&d, 600000);
            fixture_control(&f, (struct control){.kind = MEDIA_C_TRIM, .id = id, .value = at});
            model_trim(&m, model_boundary(&m, at));
            model_check(&m, t, &d);
        }
    }
    assert_true(splits > 5);
    topic_put(t);
    model_free(&m);
    fixture_close(&f);
}

struct waiting {
    struct watcher watcher;
    unsigned fired;
};

static void fired(struct watcher *self)
{
    ((struct waiting *)self)->fired++;
}

static void bound_and_space_watch(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .geo.max_order = 5};
    fixture_open_as(&f, 0, &o);
    struct topic *t = log_topic(f.log, fixture_topic(&f, "t"));
    uint64_t limit = log_pool(f.log)->data_size / 8;
    struct batch b[64];
    unsigned n = 0;
    uint64_t open = 0;
    for (;; n++) {
        assert_true(n < 64);
        b[n] = batch_of(t, 20000, 1, true);
        int rc = log_reserve(f.log, &b[n]);
        if (rc) {
            assert_int_equal(rc, -EMBAR_EFULL);
            break;
        }
        open += 20000;
    }
    assert_true(open <= limit && open + 20000 > limit);
    struct waiting w = {.watcher.fire = fired};
    log_space_watch(f.log, &w.watcher);
    assert_int_equal(log_reserve(f.log, &b[n]), -EMBAR_EFULL);
    log_abandon(f.log, &b[0]);
    assert_true(w.fired > 0);
    assert_int_equal(log_reserve(f.log, &b[0]), 0);
    /* Committing makes room as well. */
    w.fired = 0;
    assert_int_equal(log_reserve(f.log, &b[n]), -EMBAR_EFULL);
    struct sent s = {.completion.done = told};
    b[1].completion = &s.completion;
    uint32_t span;
    memset(log_span(f.log, &b[1], 0, &span), 'x', 1);
    assert_int_equal(log_announce(log_producer(f.log, 0), &b[1]), 0);
    log_commit(f.log);
    assert_int_equal(s.commit.status, 0);
    assert_true(w.fired > 0);
    assert_int_equal(log_reserve(f.log, &b[1]), 0);
    log_space_unwatch(f.log, &w.watcher);
    for (unsigned i = 0; i < n; i++)
        log_abandon(f.log, &b[i]);
    topic_put(t);
    fixture_close(&f);
}

/* A pool filled up: trim and remove still work and wake who waits. */
static void full_pool_frees_and_wakes(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id[3];
    struct topic *t[3];
    for (unsigned i = 0; i < 3; i++) {
        id[i] = fixture_topic(&f, (char[]){(char)('a' + i), 0});
        t[i] = log_topic(f.log, id[i]);
    }
    char data[30000];
    memset(data, 'z', sizeof data);
    struct waiting w = {.watcher.fire = fired};
    log_space_watch(f.log, &w.watcher);
    for (unsigned round = 0; round < 30; round++) {
        struct commit c;
        unsigned n = 0;
        do {
            c = fixture_publish(&f, t[n % 3], 0, 0, 0, data, sizeof data, NULL, 1);
        } while (c.status == 0 && ++n < 100000);
        assert_int_equal(c.status, -EMBAR_EFULL);
        assert_true(n > 1);
        w.fired = 0;
        unsigned k = round % 3;
        while (topic_base(t[k]) == topic_end(t[k]))
            k = (k + 1) % 3;
        if (round % 2) {
            fixture_control(
                &f, (struct control){.kind = MEDIA_C_TRIM, .id = id[k], .value = topic_end(t[k])});
        } else {
            fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id[k]});
            topic_put(t[k]);
            id[k] = fixture_topic(&f, (char[]){(char)('a' + k), 0});
            t[k] = log_topic(f.log, id[k]);
        }
        assert_true(w.fired > 0);
    }
    log_space_unwatch(f.log, &w.watcher);
    for (unsigned i = 0; i < 3; i++)
        topic_put(t[i]);
    fixture_close(&f);
}

/* While others wait for space: what a topic has is its own, and leaves of the bound what they need. */
static void there_is_what_a_topic_fills(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open_as(&f, 16u << 20, &(struct log_options){.manual = true});
    struct topic *t = log_topic(f.log, fixture_topic(&f, "t"));
    struct batch none = {.topic = t, .length = 100, .count = 1, .equal = true}, first = none,
                 second = none, large = none;
    assert_int_equal(log_reserve_there(f.log, &none, 0), -EMBAR_EFULL); /* it has nothing yet */
    assert_int_equal(log_reserve(f.log, &first), 0);
    assert_int_equal(log_reserve_there(f.log, &second, UINT32_MAX), 0);
    assert_ptr_equal(second.extent0, first.extent0);
    large.length = (uint32_t)log_pool(f.log)->max_batch;
    assert_int_equal(log_reserve_there(f.log, &large, 0), -EMBAR_EFULL); /* it would need more */
    struct batch many[64];
    unsigned n = 0;
    for (uint64_t sum = 0; sum <= reserve_bound(f.log) / 8; sum += many[n++].length) {
        many[n] = large;
        assert_int_equal(log_reserve(f.log, &many[n]), 0);
    }
    assert_int_equal(log_reserve_there(f.log, &none, UINT32_MAX), -EMBAR_EFULL); /* the bound */
    while (n > 0)
        log_abandon(f.log, &many[--n]);
    log_abandon(f.log, &second);
    log_abandon(f.log, &first);
    topic_put(t);
    fixture_close(&f);
}

static void bad_batches_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint32_t most = (uint32_t)log_pool(f.log)->max_batch;
    struct {
        uint32_t length, count;
        bool equal;
        int rc;
    } bad[] = {
        {0, 1, true, -EMBAR_EINVALID},       {0, 0, true, -EMBAR_EINVALID},
        {10, 0, false, -EMBAR_EINVALID},     {10, 3, true, -EMBAR_EINVALID},
        {10, 11, false, -EMBAR_EINVALID},    {most, MEDIA_MAX_MESSAGES + 1, false, -EMBAR_EINVALID},
        {most + 1, 1, true, -EMBAR_ETOOBIG}, {UINT32_MAX, 1, true, -EMBAR_ETOOBIG}};
    struct log_stat st;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct batch b = batch_of(t, bad[i].length, bad[i].count, bad[i].equal);
        assert_int_equal(log_reserve(f.log, &b), bad[i].rc);
        log_stat_all(f.log, &st);
        assert_int_equal(st.reserved, 0);
    }
    /* Lengths that do not add up: refused at announce, the reservation still stands. */
    uint32_t lengths[3] = {3, 3, 5};
    struct commit c = fixture_publish(&f, t, 0, 0, 0, "0123456789", 10, lengths, 3);
    assert_int_equal(c.status, -EMBAR_EINVALID);
    lengths[0] = UINT32_MAX;
    lengths[1] = 6;
    c = fixture_publish(&f, t, 0, 0, 0, "0123456789", 10, lengths, 3);
    assert_int_equal(c.status, -EMBAR_EINVALID);
    log_stat_all(f.log, &st);
    assert_int_equal(st.reserved, 0);
    assert_int_equal(topic_end(t), 0);
    /* What can never fit is too big, not a reason to wait. */
    struct batch b = batch_of(t, most < MEDIA_MAX_MESSAGES ? most : MEDIA_MAX_MESSAGES,
                              most < MEDIA_MAX_MESSAGES ? most : MEDIA_MAX_MESSAGES, false);
    int rc = log_reserve(f.log, &b);
    uint64_t largest = 1ull << (log_pool(f.log)->geo.block_shift + log_pool(f.log)->geo.max_order);
    if (b.length + side_size(b.count, false) > largest)
        assert_int_equal(rc, -EMBAR_ETOOBIG);
    else
        assert_int_equal(rc, 0);
    if (rc == 0)
        log_abandon(f.log, &b);
    fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    b = batch_of(t, 10, 1, true);
    assert_int_equal(log_reserve(f.log, &b), -EMBAR_EGONE);
    topic_put(t);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_reservations),
        cmocka_unit_test(tail_comes_back_and_inner_stays),
        cmocka_unit_test(split_batches_read_back),
        cmocka_unit_test(bound_and_space_watch),
        cmocka_unit_test(full_pool_frees_and_wakes),
        cmocka_unit_test(there_is_what_a_topic_fills),
        cmocka_unit_test(bad_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
