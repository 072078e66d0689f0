/* Everything at once: publishers with sessions, readers that follow, an administrator who creates,
 * removes, trims and checkpoints. What each reader gets is each session's lines in order, whole,
 * and the same for all; under the sanitizers nothing else is heard. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define PUBLISHERS 4u
#define TOPICS     3u /* the first is never trimmed */
#define FLIGHT     8u

/* Not cmocka's: those may be used by its own thread only. */
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct world {
    struct fixture f;
    uint32_t topic_id[TOPICS];
    uint64_t session[PUBLISHERS][TOPICS];
    uint64_t batches; /* each publisher to each topic */
    bool tight;       /* topics but the first overflow: some actions find no space */
    struct draws d;
    atomic_uint publishing;
};

static unsigned lines_of(uint64_t sequence)
{
    return 1 + (unsigned)(sequence % 4);
}

/* Lines of one session: who, which number, and a filling whose length follows from it. */
static uint32_t text_of(unsigned who, uint64_t sequence, char *text, uint32_t *lengths)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < lines_of(sequence); i++) {
        unsigned fill = (unsigned)((sequence * 37 + i * 11) % 200);
        int head = sprintf(text + n, "%u %llu %u ", who, (unsigned long long)sequence, i);
        memset(text + n + head, 'a' + (int)(sequence % 26), fill);
        text[n + (unsigned)head + fill] = '\n';
        lengths[i] = (uint32_t)head + fill + 1;
        n += lengths[i];
    }
    return n;
}

struct publisher {
    struct world *w;
    unsigned index;
    struct draws d;
    pthread_t thread;
};

static void wait_done(struct sent *s)
{
    while (!atomic_load(&s->done))
        sched_yield();
}

static void publish_one(struct publisher *p, struct sent *s, struct topic *t, unsigned k,
                        uint64_t sequence)
{
    struct world *w = p->w;
    char text[1200];
    uint32_t lengths[4], length = text_of(p->index, sequence, text, lengths);
    for (;;) {
        int rc = fixture_send(&w->f, p->index, s, t, w->session[p->index][k], 1, sequence, text,
                              length, lengths, lines_of(sequence));
        if (rc == 0)
            break;
        CHECK(rc == -EMBAR_EFULL || rc == -EAGAIN);
        log_commit(w->f.log);
        sched_yield();
    }
}

static void *publisher_main(void *arg)
{
    struct publisher *p = arg;
    struct world *w = p->w;
    struct topic *t[TOPICS];
    struct sent sent[TOPICS][FLIGHT];
    for (unsigned k = 0; k < TOPICS; k++) {
        t[k] = log_topic(w->f.log, w->topic_id[k]);
        CHECK(t[k]);
        for (unsigned i = 0; i < FLIGHT; i++)
            atomic_init(&sent[k][i].done, true), sent[k][i].commit.status = 0;
    }
    for (uint64_t sequence = 1; sequence <= w->batches; sequence++)
        for (unsigned k = 0; k < TOPICS; k++) {
            struct sent *s = &sent[k][sequence % FLIGHT];
            wait_done(s);
            CHECK(s->commit.status == 0);
            publish_one(p, s, t[k], k, sequence);
            if (one_in(&p->d, 3))
                log_commit(w->f.log);
            if (one_in(&p->d, 20)) { /* once more, as after a lost ack */
                struct sent again;
                publish_one(p, &again, t[k], k, sequence);
                log_commit(w->f.log);
                wait_done(&again);
                CHECK(again.commit.status == 0 && again.commit.duplicate);
            }
        }
    log_commit(w->f.log);
    for (unsigned k = 0; k < TOPICS; k++) {
        for (unsigned i = 0; i < FLIGHT; i++) {
            wait_done(&sent[k][i]);
            CHECK(sent[k][i].commit.status == 0);
        }
        topic_put(t[k]);
    }
    atomic_fetch_sub(&w->publishing, 1);
    return NULL;
}

/* ---- Readers ------------------------------------------------------------------------------ */

struct reader {
    struct world *w;
    unsigned topic;
    bool by_batch;
    struct draws d;
    pthread_t thread;
    uint64_t seen[PUBLISHERS], line[PUBLISHERS]; /* last whole batch; next line of the one after */
    uint64_t batches, trims;
    char *rest; /* bytes of an unfinished line */
    size_t rest_size;
    bool fresh[PUBLISHERS];
    struct watcher watcher;
    atomic_uint fired;
};

static void reader_fired(struct watcher *self)
{
    struct reader *r = (struct reader *)((char *)self - offsetof(struct reader, watcher));
    atomic_fetch_add(&r->fired, 1);
}

/* One whole line, newline included. */
static void reader_line(struct reader *r, const char *line, size_t n)
{
    unsigned who, i;
    unsigned long long sequence;
    char head[64], text[1200];
    uint32_t lengths[4];
    size_t most = n < sizeof head - 1 ? n : sizeof head - 1;
    memcpy(head, line, most);
    head[most] = 0;
    CHECK(sscanf(head, "%u %llu %u ", &who, &sequence, &i) == 3);
    CHECK(who < PUBLISHERS && sequence <= r->w->batches && i < lines_of(sequence));
    if (r->fresh[who]) {
        CHECK(sequence > r->seen[who]);
        r->seen[who] = sequence - 1;
        r->line[who] = i;
        r->fresh[who] = false;
    }
    CHECK(sequence == r->seen[who] + 1 && i == r->line[who]);
    (void)text_of(who, sequence, text, lengths);
    size_t at = 0;
    for (unsigned k = 0; k < i; k++)
        at += lengths[k];
    CHECK(lengths[i] == n && memcmp(text + at, line, n) == 0);
    if (++r->line[who] == lines_of(sequence)) {
        r->line[who] = 0;
        r->seen[who] = sequence;
    }
}

static void reader_bytes(struct reader *r, const char *p, size_t n)
{
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t take = end ? (size_t)(end - p) + 1 : n;
        r->rest = realloc(r->rest, r->rest_size + take);
        CHECK(r->rest);
        memcpy(r->rest + r->rest_size, p, take);
        r->rest_size += take;
        if (end) {
            reader_line(r, r->rest, r->rest_size);
            r->rest_size = 0;
        }
        p += take;
        n -= take;
    }
}

static void reader_view(struct reader *r, struct read_view *v, size_t skip)
{
    for (int i = 0; i < v->pieces; i++) {
        size_t n = v->iov[i].iov_len, from = skip < n ? skip : n;
        reader_bytes(r, (char *)v->iov[i].iov_base + from, n - from);
        skip -= from;
    }
    read_release(v);
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    struct world *w = r->w;
    struct topic *t = log_topic(w->f.log, w->topic_id[r->topic]);
    CHECK(t);
    r->watcher.fire = reader_fired;
    topic_watch(t, &r->watcher);
    struct batch_cursor c = {0};
    uint64_t at = 0;
    for (;;) {
        bool last = atomic_load(&w->publishing) == 0;
        unsigned fired = atomic_load(&r->fired);
        uint64_t end = topic_end(t);
        int rc;
        if (r->by_batch) {
            struct batch_view v;
            rc = topic_next(t, &c, &v);
            if (rc == 1) {
                CHECK(v.offset <= at && v.offset + v.length > at);
                reader_view(r, &v.data, at - v.offset);
                at = c.offset;
                CHECK(at <= topic_end(t));
            }
        } else {
            struct read_view v;
            rc = topic_read(t, at, 1 + pick(&r->d, 1 << 14), &v);
            if (rc == 0 && v.bytes > 0) {
                at += v.bytes;
                reader_view(r, &v, 0);
                rc = 1;
            }
        }
        CHECK(rc == 0 || rc == 1 || rc == -EMBAR_ETRIMMED);
        if (rc == 1) {
            r->batches++;
        } else if (rc == -EMBAR_ETRIMMED) {
            CHECK(r->topic > 0);
            at = topic_base(t);
            c = (struct batch_cursor){.offset = at};
            r->rest_size = 0;
            r->trims++;
            memset(r->fresh, true, sizeof r->fresh);
            memset(r->line, 0, sizeof r->line); /* of what was trimmed in the middle */
        } else {
            CHECK(at >= end);
            if (last)
                break;
            /* Nothing there: the next commit must fire. */
            while (atomic_load(&r->fired) == fired && topic_end(t) == at &&
                   atomic_load(&w->publishing) > 0)
                sched_yield();
        }
    }
    topic_unwatch(t, &r->watcher);
    topic_put(t);
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        CHECK(r->line[i] == 0 && r->rest_size == 0);
        CHECK(r->seen[i] == w->batches || r->fresh[i]);
    }
    free(r->rest);
    return NULL;
}

/* ---- The administrator -------------------------------------------------------------------- */

static bool may(const struct world *w, int rc)
{
    return rc == 0 || (w->tight && rc == -EMBAR_EFULL);
}

/* False: there was no space for it. */
static bool control(struct world *w, struct control *c, struct commit *commit)
{
    int rc = log_control_wait(w->f.log, c, commit);
    CHECK(may(w, rc));
    return rc == 0;
}

static void *admin_main(void *arg)
{
    struct world *w = arg;
    struct draws *d = &w->d;
    uint32_t made[8] = {0}, dir = 0;
    unsigned n = 0;
    while (atomic_load(&w->publishing) > 0) {
        struct commit commit = {0};
        unsigned k = 1 + pick(d, TOPICS - 1), slot = pick(d, 8);
        struct node_stat st[16];
        switch (pick(d, 8)) {
        case 0: {
            CHECK(log_stat(w->f.log, w->topic_id[k], st) == 0);
            uint64_t at = st->base + draw(d) % (st->end - st->base + 1);
            struct control c = {.kind = MEDIA_C_TRIM, .id = w->topic_id[k], .value = at};
            (void)control(w, &c, &commit);
            break;
        }
        case 1: CHECK(may(w, log_checkpoint(w->f.log))); break;
        case 2: {
            struct control c = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0600};
            snprintf(c.name, sizeof c.name, "made%u", n++);
            if (made[slot])
                break;
            if (!control(w, &c, &commit))
                break;
            made[slot] = commit.id;
            struct topic *t = log_topic(w->f.log, made[slot]);
            struct sent s;
            if (fixture_send(&w->f, PUBLISHERS, &s, t, 0, 0, 0, "mine", 4, NULL, 1) == 0) {
                log_commit(w->f.log);
                wait_done(&s);
                CHECK(s.commit.status == 0 && topic_end(t) == 4);
            }
            topic_put(t);
            break;
        }
        case 3: {
            struct control c = {.kind = MEDIA_C_REMOVE, .id = made[slot]};
            if (!made[slot])
                break;
            struct topic *t = one_in(d, 2) ? log_topic(w->f.log, made[slot]) : NULL;
            (void)control(w, &c, &commit);
            if (t) {
                CHECK(topic_deleted(t));
                struct sent s;
                uint64_t end = topic_end(t);
                if (fixture_send(&w->f, PUBLISHERS, &s, t, 0, 0, 0, "late", 4, NULL, 1) == 0) {
                    log_commit(w->f.log);
                    wait_done(&s);
                    CHECK(s.commit.status == 0 && topic_end(t) == end + 4);
                }
                topic_put(t);
            }
            made[slot] = 0;
            break;
        }
        case 4: {
            struct control c = {.kind = MEDIA_C_OPEN, .id = w->topic_id[k]};
            if (!control(w, &c, &commit))
                break;
            struct control close = {.kind = MEDIA_C_CLOSE, .value = commit.session};
            (void)control(w, &close, &commit);
            break;
        }
        case 5: {
            int got = log_list(w->f.log, LOG_ROOT_ID, 0, st, 16);
            CHECK(got >= 1);
            char path[MEDIA_MAX_PATH + 1];
            CHECK(log_path(w->f.log, st[0].id, path, sizeof path) == 0);
            break;
        }
        case 6: {
            struct log_stat all;
            log_stat_all(w->f.log, &all);
            CHECK(!all.faulted && all.sessions >= PUBLISHERS * TOPICS);
            struct session_stat s;
            CHECK(log_session(w->f.log, w->session[slot % PUBLISHERS][k], &s) == 0);
            uint64_t at;
            struct topic *t = log_topic(w->f.log, w->topic_id[0]);
            CHECK(topic_seek_time(t, now_realtime() - pick(d, 1u << 30), &at) == 0);
            CHECK(topic_seek_message(t, 0, &at) == 0 && at == 0);
            topic_put(t);
            break;
        }
        default: {
            struct control c = {.kind = MEDIA_C_MKDIR, .parent = LOG_ROOT_ID, .name = "dir"};
            if (!dir && !control(w, &c, &commit))
                break;
            dir = dir ? dir : commit.id;
            c = (struct control){.kind = MEDIA_C_RENAME,
                                 .id = w->topic_id[k],
                                 .parent = one_in(d, 2) ? dir : LOG_ROOT_ID};
            snprintf(c.name, sizeof c.name, "topic%u", k);
            (void)control(w, &c, &commit);
        }
        }
    }
    return NULL;
}

/* One topic keeps the newest bytes, the other gives up its oldest when the pool is full. */
static void retain(struct world *w)
{
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_ATTR,
                                            .id = w->topic_id[1],
                                            .flags = MEDIA_A_BYTES | MEDIA_A_AGE,
                                            .value = 30000,
                                            .value2 = 1000000});
    fixture_control(
        &w->f, (struct control){
                   .kind = MEDIA_C_ATTR, .id = w->topic_id[2], .flags = MEDIA_A_FULL, .policy = 1});
}

/* file: 0: memory, 1: a file, 2: a file that is synced with every epoch. */
static void world_run(unsigned file, bool tight, uint64_t entries, uint64_t batches,
                      struct draws *d)
{
    uint64_t size = tight ? 4 << 20 : 32 << 20;
    struct world *w = calloc(1, sizeof *w);
    struct log_options o = {.hold_ms = 60000};
    o.geo.index_entries = entries;
    o.geo.descriptors = 8;
    o.geo.producers = PUBLISHERS + 1;
    if (file)
        fixture_open_file(&w->f, size, &o, file == 2);
    else
        fixture_open_as(&w->f, size, &o);
    w->f.past_removal = true; /* the publishers' topics are never removed */
    w->batches = batches;
    w->tight = tight;
    w->d.state = draw(d) | 1;
    struct publisher p[PUBLISHERS];
    struct reader r[4];
    pthread_t admin;
    memset(r, 0, sizeof r);
    for (unsigned k = 0; k < TOPICS; k++) {
        w->topic_id[k] = fixture_topic(&w->f, (char[]){'t', (char)('0' + k), 0});
        for (unsigned i = 0; i < PUBLISHERS; i++)
            w->session[i][k] = fixture_session(&w->f, w->topic_id[k], 0);
    }
    if (tight)
        retain(w);
    atomic_init(&w->publishing, PUBLISHERS);
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        p[i] = (struct publisher){.w = w, .index = i, .d = {draw(d) | 1}};
        assert_int_equal(pthread_create(&p[i].thread, NULL, publisher_main, &p[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        r[i].w = w;
        r[i].topic = i / 2;
        r[i].by_batch = i % 2;
        r[i].d.state = draw(d) | 1;
        assert_int_equal(pthread_create(&r[i].thread, NULL, reader_main, &r[i]), 0);
    }
    assert_int_equal(pthread_create(&admin, NULL, admin_main, w), 0);
    for (unsigned i = 0; i < PUBLISHERS; i++)
        pthread_join(p[i].thread, NULL);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(r[i].thread, NULL);
    pthread_join(admin, NULL);
    struct log_stat st;
    log_stat_all(w->f.log, &st);
    assert_true(!tight || st.trims > 0);
    /* The one that was never trimmed, whole, once more from a killed pool. */
    fixture_kill(&w->f);
    struct reader again = {.w = w, .d = {1}};
    (void)reader_main(&again);
    log_stat_all(w->f.log, &st);
    assert_int_equal(st.reserved, 0);
    fixture_close(&w->f);
    free(w);
}

static void everything_at_once(void **state)
{
    (void)state;
    struct draws d = campaign_begin("concurrent");
    world_run(0, false, 64, campaign_rounds(800), &d);
    world_run(0, false, 0, campaign_rounds(1500), &d);
    world_run(1, false, 64, campaign_rounds(800), &d);
    world_run(2, false, 128, campaign_rounds(300), &d);
    world_run(0, true, 64, campaign_rounds(1000), &d);
    world_run(1, true, 128, campaign_rounds(500), &d);
}

/* ---- Hand-overs --------------------------------------------------------------------------- */

struct waiting {
    struct fixture *f;
    uint32_t id;
    unsigned index, rounds;
    pthread_t thread;
};

/* One action after the other, each waited for: one that is left lying is a hang. */
static void *waiting_main(void *arg)
{
    struct waiting *w = arg;
    for (unsigned i = 0; i < w->rounds; i++) {
        struct commit commit;
        struct control c = {
            .kind = MEDIA_C_ATTR, .id = w->id, .flags = MEDIA_A_OWNER, .uid = w->index};
        CHECK(log_control_wait(w->f->log, &c, &commit) == 0);
    }
    return NULL;
}

struct action {
    struct completion completion;
    struct control control;
    atomic_int status;
};

static void action_done(struct completion *self, const struct commit *commit)
{
    atomic_store(&((struct action *)self)->status, commit->status);
}

/* Many actions taken at once, more than the ring has room for. */
static void one_push(struct fixture *f, uint32_t id, unsigned n)
{
    struct action *a = calloc(n, sizeof *a);
    for (unsigned i = 0; i < n; i++) {
        a[i].completion.done = action_done;
        atomic_init(&a[i].status, 1);
        a[i].control = (struct control){
            .kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_OWNER, .completion = &a[i].completion};
        log_control(f->log, &a[i].control);
    }
    log_commit(f->log);
    for (unsigned i = 0; i < n; i++) {
        while (atomic_load(&a[i].status) == 1)
            sched_yield();
        assert_int_equal(atomic_load(&a[i].status), 0);
    }
    free(a);
}

/* A tiny ring waits for checkpoints all the time; on a file those are made aside, and who waits is
 * resumed by the background thread. */
static void nobody_is_left_waiting(void **state)
{
    (void)state;
    for (unsigned file = 0; file < 3; file++) {
        struct fixture f;
        struct log_options o = {.geo.index_entries = 16, .geo.descriptors = 2};
        if (file)
            fixture_open_file(&f, 0, &o, file == 2);
        else
            fixture_open_as(&f, 0, &o);
        uint32_t id = fixture_topic(&f, "t");
        struct waiting w[6];
        for (unsigned i = 0; i < 6; i++) {
            w[i] = (struct waiting){.f = &f, .id = id, .index = i, .rounds = campaign_rounds(400)};
            assert_int_equal(pthread_create(&w[i].thread, NULL, waiting_main, &w[i]), 0);
        }
        for (unsigned i = 0; i < 6; i++)
            pthread_join(w[i].thread, NULL);
        for (unsigned i = 0; i < 20; i++)
            one_push(&f, id, 1 + i * 13);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_at_once),
        cmocka_unit_test(nobody_is_left_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
