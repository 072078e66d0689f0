/* Retention: settings and a full pool take exactly what they may, nothing sooner; blocks come free
 * with the last reply that pins them and not by an open handle; what is over returns to the last
 * byte. Content is compared with a model throughout. */
#include <stdio.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define SECOND 1000000000ull
#define SLACK  (64u << 10)

static void data_draw(struct draws *d, char *data, uint32_t length)
{
    uint64_t v = draw(d);
    for (uint32_t i = 0; i < length; i++)
        data[i] = (char)(v >> (i % 8 * 8) ^ i * 31);
}

/* Checkpoints until nothing more of the old ones is kept. */
static uint64_t settled(struct fixture *f)
{
    for (int i = 0; i < 3; i++)
        assert_int_equal(log_checkpoint(f->log), 0);
    log_tick(f->log, now_monotonic());
    return fixture_used(f);
}

static uint32_t topic_with(struct fixture *f, const char *name, uint64_t bytes, uint64_t age,
                           uint8_t policy)
{
    return fixture_topic_as(
        f, name, (struct control){.order = 5, .value = bytes, .value2 = age, .policy = policy});
}

static int append(struct fixture *f, struct topic *t, struct model_topic *m, struct draws *d,
                  uint32_t length)
{
    static char data[1 << 20];
    uint64_t largest = log_pool(f->log)->max_batch;
    length = length > largest ? (uint32_t)largest : length;
    assert_true(length <= sizeof data);
    data_draw(d, data, length);
    struct commit c = fixture_publish(f, t, 0, 0, 0, data, length, NULL, 1);
    if (c.status == 0)
        model_append(m, data, length, NULL, 1);
    return c.status;
}

/* The log trimmed by itself: the model follows, at a boundary. */
static void follow(struct model_topic *m, struct topic *t)
{
    uint64_t base = topic_base(t);
    assert_true(base >= m->base && base <= m->end);
    assert_int_equal(model_boundary(m, base), base);
    if (base > m->base)
        model_trim(m, base);
}

/* ---- Bytes -------------------------------------------------------------------------------- */

static void bytes_are_kept_and_no_more(void **state)
{
    (void)state;
    struct draws d = campaign_begin("bytes");
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint64_t keep = 300000, most = keep + SLACK;
    uint32_t id = topic_with(&f, "t", keep, 0, 0);
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t length = 1 + pick(&d, one_in(&d, 20) ? 40000 : 3000);
        assert_int_equal(append(&f, t, &m, &d, length), 0);
        log_tick(f.log, now_monotonic());
        follow(&m, t);
        assert_true(m.base == 0 || m.end - m.base >= keep);
        assert_true(m.end - m.base <= most);
        if (i % 500 == 0)
            model_check(&m, t, &d);
    }
    assert_true(m.base > 10 * keep);
    assert_true(fixture_used(&f) < 2 * most);
    /* Less is kept from now on; then anything. */
    struct control less = {.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_BYTES, .value = 1000};
    fixture_control(&f, less);
    log_tick(f.log, now_monotonic());
    follow(&m, t);
    assert_true(m.end - m.base >= 1000 && m.end - m.base < 1000 + 40000);
    less.value = 0;
    fixture_control(&f, less);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(append(&f, t, &m, &d, 50000), 0);
    log_tick(f.log, now_monotonic());
    model_check(&m, t, &d);
    /* A message that is longer than the bound stays whole. */
    less.value = 10;
    fixture_control(&f, less);
    assert_int_equal(append(&f, t, &m, &d, 60000), 0);
    log_tick(f.log, now_monotonic());
    follow(&m, t);
    assert_int_equal(m.end - m.base, 60000);
    model_check(&m, t, &d);
    topic_put(t);
    model_free(&m);
    fixture_close(&f);
}

/* ---- Age ---------------------------------------------------------------------------------- */

static void age_takes_in_time_and_not_before(void **state)
{
    (void)state;
    struct draws d = campaign_begin("age");
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint64_t begun = now_monotonic();
    uint32_t id = topic_with(&f, "t", 0, 80 * SECOND, 0);
    uint32_t other = topic_with(&f, "other", 0, 800 * SECOND, 0);
    struct topic *t = log_topic(f.log, id), *u = log_topic(f.log, other);
    struct model_topic m = {0}, mu = {0};
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(append(&f, t, &m, &d, 1 + pick(&d, 5000)), 0);
        assert_int_equal(append(&f, u, &mu, &d, 1 + pick(&d, 5000)), 0);
    }
    log_tick(f.log, begun + 79 * SECOND);
    assert_true(retain_wait(f.log, now_realtime()) < 91 * SECOND);
    model_check(&m, t, &d);
    log_tick(f.log, now_monotonic() + 90 * SECOND + 1);
    follow(&m, t);
    assert_int_equal(m.base, m.end);
    model_check(&mu, u, &d);
    /* Over a reopening the date is kept: it is the batches' own. */
    topic_put(t);
    topic_put(u);
    fixture_kill(&f);
    u = log_topic(f.log, other);
    log_tick(f.log, begun + 790 * SECOND);
    model_check(&mu, u, &d);
    log_tick(f.log, now_monotonic() + 861 * SECOND);
    follow(&mu, u);
    assert_int_equal(mu.base, mu.end);
    /* Nothing is left that has a date: an idle log sleeps. */
    assert_true(retain_wait(f.log, now_realtime()) == UINT64_MAX);
    topic_put(u);
    model_free(&m);
    model_free(&mu);
    fixture_close(&f);
}

/* ---- A full pool -------------------------------------------------------------------------- */

static void full_takes_the_oldest_of_those_who_may(void **state)
{
    (void)state;
    struct draws d = campaign_begin("full");
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 8 << 20, &o);
    char name[3][2] = {"a", "b", "c"};
    struct topic *t[3];
    struct model_topic m[3] = {0};
    for (unsigned i = 0; i < 3; i++)
        t[i] = log_topic(f.log, topic_with(&f, name[i], 0, 0, i < 2));
    for (unsigned i = 0; i < 15; i++) /* c may not be trimmed */
        assert_int_equal(append(&f, t[2], &m[2], &d, 100000), 0);
    for (unsigned i = 0; i < 10; i++) /* a is older than b */
        assert_int_equal(append(&f, t[0], &m[0], &d, 100000), 0);
    unsigned full = 0;
    for (unsigned i = 0; i < 400; i++) {
        uint32_t length = 1 + pick(&d, 200000);
        int rc = append(&f, t[1], &m[1], &d, length);
        if (rc) {
            uint64_t kept_b = m[1].base;
            assert_int_equal(rc, -EMBAR_EFULL);
            log_tick(f.log, now_monotonic());
            follow(&m[0], t[0]);
            follow(&m[1], t[1]);
            /* b loses something only once a has nothing left. */
            assert_true(m[1].base == kept_b || m[0].base == m[0].end);
            assert_int_equal(append(&f, t[1], &m[1], &d, length), 0);
            full++;
        }
        if (i % 100 == 0)
            model_check(&m[1], t[1], &d);
    }
    assert_true(full > 5);
    assert_int_equal(m[2].base, 0);
    /* It keeps what fits, not a remainder. */
    assert_true(m[1].end - m[1].base > 3 << 20);
    for (unsigned i = 0; i < 3; i++) {
        model_check(&m[i], t[i], &d);
        topic_put(t[i]);
        model_free(&m[i]);
    }
    fixture_close(&f);
}

static void full_of_blocking_topics_loses_nothing(void **state)
{
    (void)state;
    struct draws d = campaign_begin("blocking");
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    struct topic *t = log_topic(f.log, topic_with(&f, "t", 0, 0, 0));
    struct model_topic m = {0};
    while (append(&f, t, &m, &d, 50000) == 0)
        ;
    for (unsigned i = 0; i < 5; i++) {
        log_tick(f.log, now_monotonic() + i * SECOND);
        assert_int_equal(append(&f, t, &m, &d, 50000), -EMBAR_EFULL);
    }
    assert_int_equal(topic_base(t), 0);
    model_check(&m, t, &d);
    topic_put(t);
    model_free(&m);
    fixture_close(&f);
}

/* The same with the background thread, on what frees after a sync, and with an index ring so small
 * that it fills up too: a publisher who waits for space gets it. */
struct waiting {
    struct watcher watcher;
    atomic_uint fired;
};

static void fired(struct watcher *self)
{
    atomic_fetch_add(&((struct waiting *)self)->fired, 1);
}

static void publish_ten_pools(struct fixture *f, struct draws *d)
{
    struct topic *t = log_topic(f->log, topic_with(f, "t", 0, 0, 1));
    struct model_topic m = {0};
    struct waiting w = {.watcher.fire = fired};
    log_space_watch(f->log, &w.watcher);
    uint64_t many = f->size * campaign_rounds(10), deadline = now_monotonic() + 120 * SECOND;
    while (m.end < many) {
        unsigned before = atomic_load(&w.fired);
        int rc = append(f, t, &m, d, 1 + pick(d, one_in(d, 30) ? 120000 : 8000));
        follow(&m, t);
        if (rc == 0)
            continue;
        assert_int_equal(rc, -EMBAR_EFULL);
        while (atomic_load(&w.fired) == before)
            assert_true(now_monotonic() < deadline);
    }
    log_space_unwatch(f->log, &w.watcher);
    seq_take_wait(f->log);
    follow(&m, t);
    model_check(&m, t, d);
    seq_give(f->log);
    topic_put(t);
    model_free(&m);
}

static void who_waits_for_space_gets_it(void **state)
{
    (void)state;
    struct draws d = campaign_begin("waiting");
    struct fixture f;
    struct log_options o = {.geo.index_entries = 64};
    fixture_open_as(&f, 0, &o);
    publish_ten_pools(&f, &d);
    fixture_close(&f);
    for (int machine = 0; machine < 2; machine++) {
        fixture_open_file(&f, 0, &o, machine);
        publish_ten_pools(&f, &d);
        fixture_close(&f);
    }
}

/* ---- Pins --------------------------------------------------------------------------------- */

static void replies_pin_and_handles_do_not(void **state)
{
    (void)state;
    struct draws d = campaign_begin("pins");
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_with(&f, "t", 0, 0, 0);
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    uint64_t empty = settled(&f);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(append(&f, t, &m, &d, 30000), 0);
    struct read_view v;
    struct batch_view b;
    struct batch_cursor at = {.offset = 300000};
    assert_int_equal(topic_read(t, 100000, 50000, &v), 0);
    assert_int_equal(v.bytes, 50000);
    assert_int_equal(topic_next(t, &at, &b), 1);
    struct control all = {.kind = MEDIA_C_TRIM, .id = id, .value = m.end};
    fixture_control(&f, all);
    uint64_t pinned = settled(&f);
    assert_true(pinned > empty + 50000 && pinned < empty + 300000);
    /* What is written now goes elsewhere. */
    char *other = malloc(60000);
    memset(other, 'x', 60000);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, other, 60000, NULL, 1).status, 0);
    free(other);
    uint64_t offset = 100000;
    for (int i = 0; i < v.pieces; i++) {
        assert_memory_equal(v.iov[i].iov_base, m.bytes + offset, v.iov[i].iov_len);
        offset += v.iov[i].iov_len;
    }
    assert_memory_equal(b.data.iov[0].iov_base, m.bytes + 300000, b.data.iov[0].iov_len);
    struct read_view late;
    assert_int_equal(topic_read(t, 100000, 50000, &late), -EMBAR_ETRIMMED);
    struct batch_view gone;
    at.offset = 300000;
    assert_int_equal(topic_next(t, &at, &gone), -EMBAR_ETRIMMED);
    read_release(&b.data);
    uint64_t before = fixture_used(&f);
    read_release(&v);
    assert_true(fixture_used(&f) < before - 50000); /* with the last reply, not later */
    all.value = topic_end(t);
    fixture_control(&f, all);
    assert_int_equal(settled(&f), empty);
    /* Removed and still open: readable to the last close. */
    assert_int_equal(append(&f, t, &m, &d, 30000), 0);
    fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    assert_int_equal(topic_read(t, topic_base(t), 30000, &v), 0);
    assert_memory_equal(v.iov[0].iov_base, m.bytes + m.end - 30000, v.iov[0].iov_len);
    assert_true(fixture_used(&f) >= empty + 30000);
    topic_put(t); /* the reply is still on its way */
    assert_memory_equal(v.iov[0].iov_base, m.bytes + m.end - 30000, v.iov[0].iov_len);
    read_release(&v);
    assert_true(settled(&f) <= empty);
    model_free(&m);
    fixture_close(&f);
}

/* ---- Everything at once ------------------------------------------------------------------- */

#define TOPICS 12u
#define PINS   6u

struct kept {
    uint32_t id;
    unsigned round;
    struct topic *t;
    struct model_topic m;
    uint64_t bytes, age;
    bool may_trim;
};

struct pin {
    struct read_view v;
    char *copy;
};

struct world {
    struct fixture f;
    struct draws d;
    struct kept topic[TOPICS];
    struct pin pin[PINS];
    unsigned full;
};

static void topic_make(struct world *w, struct kept *k)
{
    char name[32];
    snprintf(name, sizeof name, "t%u.%u", (unsigned)(k - w->topic), k->round++);
    k->bytes = pick(&w->d, 4) ? 0 : 1 + pick(&w->d, 500000);
    k->age = one_in(&w->d, 2) ? 0 : 3600 * SECOND;
    k->may_trim = one_in(&w->d, 2);
    k->id = topic_with(&w->f, name, k->bytes, k->age, k->may_trim);
    k->t = log_topic(w->f.log, k->id);
    assert_non_null(k->t);
    k->m = (struct model_topic){0};
}

static void topic_drop(struct world *w, struct kept *k)
{
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = k->id});
    model_check(&k->m, k->t, &w->d);
    topic_put(k->t);
    model_free(&k->m);
    k->t = NULL;
}

static void world_tick(struct world *w, uint64_t ahead)
{
    log_tick(w->f.log, now_monotonic() + ahead);
    for (unsigned i = 0; i < TOPICS; i++) {
        struct kept *k = &w->topic[i];
        if (!k->t)
            continue;
        uint64_t before = k->m.base;
        follow(&k->m, k->t);
        uint64_t live = k->m.end - k->m.base;
        uint64_t slack = k->bytes / 8 > SLACK ? k->bytes / 8 : SLACK;
        if (k->bytes)
            assert_true(live <= k->bytes + slack);
        if (k->age && ahead > 4000 * SECOND)
            assert_int_equal(live, 0);
        /* Nothing went that no setting names. */
        if (!k->may_trim && !(k->age && ahead > 3600 * SECOND))
            assert_true(k->m.base == before || (k->bytes && live >= k->bytes));
    }
}

static void world_publish(struct world *w)
{
    struct kept *k = &w->topic[pick(&w->d, TOPICS)];
    if (!k->t)
        return;
    uint32_t length = 1 + pick(&w->d, one_in(&w->d, 12) ? 200000 : one_in(&w->d, 2) ? 9000 : 300);
    if (append(&w->f, k->t, &k->m, &w->d, length) == 0)
        return;
    w->full++;
    world_tick(w, 0);
    if (append(&w->f, k->t, &k->m, &w->d, length) == 0)
        return;
    /* Still full: then nothing that may go is left (or replies pin it). */
    for (unsigned i = 0; i < PINS; i++)
        if (w->pin[i].copy)
            return;
    for (unsigned i = 0; i < TOPICS; i++)
        assert_true(!w->topic[i].t || !w->topic[i].may_trim ||
                    w->topic[i].m.base == w->topic[i].m.end);
    topic_drop(w, k);
}

static void unpin(struct pin *p)
{
    size_t at = 0;
    for (int i = 0; i < p->v.pieces; i++) {
        assert_memory_equal(p->v.iov[i].iov_base, p->copy + at, p->v.iov[i].iov_len);
        at += p->v.iov[i].iov_len;
    }
    read_release(&p->v);
    free(p->copy);
    p->copy = NULL;
}

static void world_pin(struct world *w)
{
    struct pin *p = &w->pin[pick(&w->d, PINS)];
    struct kept *k = &w->topic[pick(&w->d, TOPICS)];
    if (p->copy) {
        unpin(p);
        return;
    }
    if (!k->t || k->m.base == k->m.end)
        return;
    uint64_t at = k->m.base + draw(&w->d) % (k->m.end - k->m.base);
    assert_int_equal(topic_read(k->t, at, 1 + pick(&w->d, 40000), &p->v), 0);
    p->copy = malloc(p->v.bytes);
    memcpy(p->copy, k->m.bytes + (at - k->m.kept), p->v.bytes);
}

static void world_reopen(struct world *w)
{
    for (unsigned i = 0; i < PINS; i++)
        if (w->pin[i].copy)
            unpin(&w->pin[i]);
    for (unsigned i = 0; i < TOPICS; i++)
        if (w->topic[i].t)
            topic_put(w->topic[i].t);
    if (one_in(&w->d, 2))
        fixture_kill(&w->f);
    else
        fixture_reopen(&w->f);
    for (unsigned i = 0; i < TOPICS; i++)
        if (w->topic[i].t) {
            w->topic[i].t = log_topic(w->f.log, w->topic[i].id);
            assert_non_null(w->topic[i].t);
            model_check(&w->topic[i].m, w->topic[i].t, &w->d);
        }
}

static void world_attr(struct world *w)
{
    struct kept *k = &w->topic[pick(&w->d, TOPICS)];
    if (!k->t)
        return;
    k->bytes = pick(&w->d, 4) ? 0 : 1 + pick(&w->d, 300000);
    k->may_trim = one_in(&w->d, 2);
    struct control c = {.kind = MEDIA_C_ATTR,
                        .id = k->id,
                        .flags = MEDIA_A_BYTES | MEDIA_A_FULL,
                        .value = k->bytes,
                        .policy = k->may_trim};
    fixture_control(&w->f, c);
    world_tick(w, 0);
}

static void world_trim(struct world *w)
{
    struct kept *k = &w->topic[pick(&w->d, TOPICS)];
    if (!k->t)
        return;
    uint64_t at = k->m.base + draw(&w->d) % (k->m.end - k->m.base + 1);
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_TRIM, .id = k->id, .value = at});
    model_trim(&k->m, model_boundary(&k->m, at));
    follow(&k->m, k->t);
}

static void world_step(struct world *w, unsigned i)
{
    uint32_t dice = pick(&w->d, 1000);
    if (dice < 860)
        world_publish(w);
    else if (dice < 920)
        world_pin(w);
    else if (dice < 950)
        world_trim(w);
    else if (dice < 960)
        world_attr(w);
    else if (dice < 985)
        world_tick(w, 0);
    else if (dice < 987)
        world_tick(w, 4200 * SECOND);
    else if (dice < 990)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    else if (dice < 991)
        world_reopen(w);
    struct kept *k = &w->topic[pick(&w->d, TOPICS)];
    if (!k->t)
        topic_make(w, k);
    else if (one_in(&w->d, 400))
        topic_drop(w, k);
    else if (i % 50 == 0)
        model_check(&k->m, k->t, &w->d);
}

static void random_worlds(void **state)
{
    (void)state;
    static struct world w;
    struct draws d = campaign_begin("worlds");
    unsigned full = 0;
    for (unsigned round = 0; round < campaign_rounds(4); round++) {
        w = (struct world){.d = {draw(&d)}};
        struct log_options o = {.manual = true, .geo.index_entries = one_in(&d, 2) ? 128 : 0};
        if (one_in(&d, 2))
            fixture_open_as(&w.f, 0, &o);
        else
            fixture_open_file(&w.f, 0, &o, false);
        uint64_t empty = settled(&w.f);
        for (unsigned i = 0; i < 8000; i++)
            world_step(&w, i);
        for (unsigned i = 0; i < TOPICS; i++)
            if (w.topic[i].t)
                topic_drop(&w, &w.topic[i]);
        for (unsigned i = 0; i < PINS; i++)
            if (w.pin[i].copy)
                unpin(&w.pin[i]);
        assert_int_equal(settled(&w.f), empty);
        full += w.full;
        fixture_close(&w.f);
    }
    print_message("full %u times\n", full);
    assert_true(full > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_kept_and_no_more),
        cmocka_unit_test(age_takes_in_time_and_not_before),
        cmocka_unit_test(full_takes_the_oldest_of_those_who_may),
        cmocka_unit_test(full_of_blocking_topics_loses_nothing),
        cmocka_unit_test(who_waits_for_space_gets_it),
        cmocka_unit_test(replies_pin_and_handles_do_not),
        cmocka_unit_test(random_worlds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
