/* Two publishers' batches were taken at once, in an order that their times belie: the sequencer keeps those of an
 * epoch in the order of their places. Where nothing but the times is left, none of them is served at another's
 * place: they are saved aside. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define PAIRS  6u
#define LENGTH 1000u
#define LARGE  6000u /* to be split where an extent ends */
#define ENOUGH 4200u /* to be split for */
#define COUNT  10u

struct world {
    struct fixture f;
    uint32_t id, other;
    uint64_t session[2], sequence[2];
    uint32_t length;
    unsigned belied; /* pairs whose times do not say how they stand */
    bool marked;     /* the watermark tells how the index ended */
    bool since;      /* the topic's order is another by the time of the repair */
    bool one;        /* a pair is of one session, the later number first, over two connections */
    bool
        stalled; /* the sequencer stands still between them, for longer than what times are believed by */
    struct trial t;
    char save[TRIAL_SAVE];
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = 64};
    memset(&w, 0, sizeof w);
    w.length = LENGTH;
    trial_open(&w.f, w.save, &o);
    w.other = fixture_topic(&w.f, "other");
    w.id = fixture_topic(&w.f, "t"); /* the newest: a trial's first */
    for (unsigned i = 0; i < 2; i++)
        w.session[i] = fixture_session(&w.f, w.id, 0);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    trial_close(&w->t, &w->f, w->save);
    return 0;
}

static void data_of(const struct world *w, unsigned who, uint64_t sequence, char *data)
{
    for (unsigned i = 0; i < w->length; i++)
        data[i] = (char)('a' + (sequence * 7 + (1 + who) * i) % 26);
}

static void alone(struct world *w, unsigned who)
{
    struct topic *t = log_topic(w->f.log, w->id);
    char data[LARGE];
    data_of(w, who, ++w->sequence[who], data);
    struct commit c = fixture_publish(&w->f, t, w->session[who], 1, w->sequence[who], data,
                                      w->length, NULL, COUNT);
    assert_int_equal(c.status, 0);
    topic_put(t);
}

/* Both reserve, the second one is whole first, and one epoch takes both. Is the first one split? */
static bool pair(struct world *w)
{
    struct topic *t = log_topic(w->f.log, w->id);
    struct sent s[2];
    memset(s, 0, sizeof s);
    for (unsigned i = 0; i < 2; i++) {
        char data[LARGE];
        unsigned who = w->one ? 0 : i;
        uint64_t sequence = ++w->sequence[who];
        sequence = !w->one ? sequence : i == 0 ? sequence + 1 : sequence - 1;
        data_of(w, who, sequence, data);
        s[i].completion.done = fixture_told;
        s[i].batch = (struct batch){.topic = t,
                                    .length = w->length,
                                    .count = COUNT,
                                    .equal = true,
                                    .session = w->session[who],
                                    .epoch = 1,
                                    .sequence = sequence,
                                    .payload_crc = crc32c(0, data, w->length),
                                    .completion = &s[i].completion};
        assert_int_equal(log_reserve(w->f.log, &s[i].batch), 0);
        assert_int_equal(log_store(w->f.log, &s[i].batch, 0, data, w->length, NULL), 0);
    }
    for (unsigned i = 2; i-- > 0;) {
        unsigned producer = w->session[i] && !w->one && !w->stalled ? 0 : i;
        assert_int_equal(log_announce(log_producer(w->f.log, producer), &s[i].batch), 0);
        if (w->stalled)
            atomic_fetch_add(&w->f.log->clock, FSCK_SLACK + 1000000000u);
    }
    log_commit(w->f.log);
    for (unsigned i = 0; i < 2; i++)
        assert_true(atomic_load(&s[i].done) && s[i].commit.status == 0);
    assert_true(s[0].batch.time > s[1].batch.time);
    w->belied += s[0].commit.offset < s[1].commit.offset; /* unless they are in two extents */
    topic_put(t);
    return s[0].batch.run1;
}

static void *in_image(struct world *w, const void *at)
{
    return w->t.image + ((const char *)at - (const char *)w->f.memory);
}

static void take(struct world *w)
{
    trial_take(&w->t, &w->f, true, NULL);
    if (!w->marked)
        trial_unmark(&w->t, &w->f);
}

/* Of another topic. */
static void strange(struct world *w)
{
    struct topic *t = log_topic(w->f.log, w->other);
    assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, "strange", 7, NULL, 1).status, 0);
    topic_put(t);
}

/* Line and record are gone: no chain goes over it. */
static void strange_zero(struct world *w, uint64_t number)
{
    struct media_entry *line = in_image(w, pool_entry(&w->f.log->pool, 0, number));
    assert_int_equal(le32_get(line->topic), w->other);
    memset(w->t.image + le64_low48(line->side), 0, MEDIA_LINE);
    memset(line, 0, MEDIA_LINE);
}

static void lines_zero(struct world *w)
{
    const struct log *log = w->f.log;
    for (uint64_t n = 1; n < log->seq.next; n++)
        memset(in_image(w, pool_entry(&log->pool, 0, n)), 0, MEDIA_LINE);
}

/* Repaired: what is served is right (trial_run), and what is not is saved. */
static void right(struct world *w, unsigned aside)
{
    struct trial_outcome o;
    trial_run(&w->t, w->save, &o);
    assert_int_equal(o.collateral, 0);
    assert_int_equal(o.aside, aside);
    assert_true(aside == 0 || w->belied > 0);
}

/* What was lost keeps its offsets, and what comes next does not get them. */
static void ends(struct world *w)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true, .readonly = true};
    struct embar_error err;
    struct log *log;
    region_wrap(&region, w->t.image, TRIAL_SIZE, NULL);
    region.readonly = true;
    assert_int_equal(log_open(&log, &o, &err), 0);
    const struct topic *t = names_id(&log->names, w->id);
    assert_int_equal(topic_end(t), w->t.topic[0].end);
    assert_int_equal(t->last_message_end, w->t.topic[0].messages);
    log_close(log);
}

/* Behind the checkpoint, and all lines are gone. */
static void all_gone(struct world *w, unsigned aside)
{
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        (void)pair(w);
    take(w);
    lines_zero(w);
    right(w, aside);
    ends(w);
}

static void index_gone(void **state)
{
    all_gone(*state, 2 * PAIRS);
}

/* The order of an epoch is known by its places, and the watermark's chain proves it. */
static void index_gone_marked(void **state)
{
    struct world *w = *state;
    w->marked = true;
    all_gone(w, 0);
}

/* The same where an older checkpoint stands that the index has gone past: with that one fewer batches find no place,
 * for it knows of fewer. */
static void index_lapped(void **state)
{
    struct world *w = *state;
    const struct log *log = w->f.log;
    uint64_t entries = log->pool.geo.index_entries, older;
    for (uint64_t i = 0; i < entries; i++)
        alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    older = atomic_load(&log->checkpoint);
    for (unsigned i = 0; i < 24; i++)
        alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    assert_int_equal(atomic_load(&log->checkpoint), older + 24);
    for (unsigned i = 0; i < 20; i++)
        alone(w, 0);
    for (unsigned i = 0; i < 2 * PAIRS; i++)
        (void)pair(w);
    assert_int_equal(atomic_load(&log->checkpoint), older + 24);
    assert_true(log->seq.next - 1 > older + entries);
    take(w);
    for (unsigned i = 0; i < 4 * PAIRS; i++)
        memset(in_image(w, pool_entry(&log->pool, 0, log->seq.next - 1 - i)), 0, MEDIA_LINE);
    right(w, 4 * PAIRS);
    ends(w);
}

/* The lines of one pair are gone, and what stands behind tells where they began and ended. */
static void order_set(struct world *w, uint8_t order)
{
    const struct control c = {
        .kind = MEDIA_C_ATTR, .id = w->id, .flags = MEDIA_A_ORDER, .order = order};
    (void)fixture_control(&w->f, c);
}

static void pair_gone(struct world *w, bool proved)
{
    const struct log *log = w->f.log;
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t number = log->seq.next + 2;
    for (unsigned i = 0; i < PAIRS; i++) {
        if (i == 2)
            strange(w);
        (void)pair(w);
    }
    if (w->since)
        order_set(w, 5);
    take(w);
    if (!proved)
        strange_zero(w, number + 2);
    for (unsigned i = 0; i < 2; i++)
        memset(in_image(w, pool_entry(&log->pool, 0, number + i)), 0, MEDIA_LINE);
    right(w, proved ? 0 : 2);
}

static void lines_gone(void **state)
{
    pair_gone(*state, false);
}

static void lines_gone_proved(void **state)
{
    pair_gone(*state, true);
}

/* The lines of a pair and the next one's first: half of a split batch, whose other half stands. */
static void half_gone(void **state)
{
    struct world *w = *state;
    const struct log *log = w->f.log;
    uint64_t number = 0, before = 0;
    w->length = LARGE;
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < 100; i++) {
        before = number;
        number = log->seq.next;
        if (pair(w) && before + 2 == number && before > atomic_load(&log->checkpoint))
            break;
        if (i % 4 == 0)
            assert_int_equal(log_checkpoint(w->f.log), 0);
    }
    assert_true(before + 2 == number && before > atomic_load(&log->checkpoint));
    trial_take(&w->t, &w->f, true, NULL);
    for (uint64_t n = before; n <= number; n++)
        memset(in_image(w, pool_entry(&log->pool, 0, n)), 0, MEDIA_LINE);
    right(w, 0);
}

/* The lines of two pairs, and of the terms that began behind each of them. */
static void terms_gone(void **state)
{
    struct world *w = *state;
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t first = w->f.log->seq.next;
    for (unsigned i = 0; i < 2; i++) {
        (void)pair(w);
        fixture_kill(&w->f);
    }
    uint64_t behind = w->f.log->seq.next;
    assert_int_equal(behind, first + 6);
    alone(w, 1);
    trial_take(&w->t, &w->f, true, NULL);
    for (uint64_t n = first; n < behind; n++)
        memset(in_image(w, pool_entry(&w->f.log->pool, 0, n)), 0, MEDIA_LINE);
    right(w, 0);
}

/* The sequencer stood still for so long that the times of those that it took at once are far apart. */
static void stalled(void **state)
{
    struct world *w = *state;
    w->stalled = true;
    pair_gone(w, false);
}

static void two_connections(struct world *w)
{
    w->one = true;
    order_set(w, 2);
}

/* At order 2 the numbers of a session do not tell in which order its batches were taken, either. */
static void one_session(void **state)
{
    two_connections(*state);
    pair_gone(*state, false);
}

static void one_session_since(void **state)
{
    struct world *w = *state;
    w->since = true;
    one_session(state);
}

/* A slow publisher reserved first and is taken between two batches that stand side by side behind its place. The three
 * lines are gone, and its record. */
static void slow_between(void **state)
{
    struct world *w = *state;
    const struct log *log = w->f.log;
    struct sent s = {.completion.done = fixture_told};
    char data[LARGE];
    struct topic *t = log_topic(w->f.log, w->id);
    do
        alone(w, 1);
    while (t->fill->top - t->fill->bottom < 5ull * (LENGTH + MEDIA_LINE));
    assert_int_equal(log_checkpoint(w->f.log), 0);
    data_of(w, 0, ++w->sequence[0], data);
    s.batch = (struct batch){.topic = t,
                             .length = w->length,
                             .count = COUNT,
                             .equal = true,
                             .session = w->session[0],
                             .epoch = 1,
                             .sequence = w->sequence[0],
                             .payload_crc = crc32c(0, data, w->length),
                             .completion = &s.completion};
    assert_int_equal(log_reserve(w->f.log, &s.batch), 0);
    uint64_t number = log->seq.next;
    alone(w, 1);
    assert_int_equal(log_store(w->f.log, &s.batch, 0, data, w->length, NULL), 0);
    assert_int_equal(log_announce(log_producer(w->f.log, 0), &s.batch), 0);
    log_commit(w->f.log);
    assert_true(atomic_load(&s.done) && s.commit.number == number + 1);
    for (unsigned i = 0; i < 2; i++)
        alone(w, 1);
    topic_put(t);
    take(w);
    memset(w->t.image + s.batch.side, 0, MEDIA_LINE);
    for (unsigned i = 0; i < 3; i++)
        memset(in_image(w, pool_entry(&log->pool, 0, number + i)), 0, MEDIA_LINE);
    struct trial_outcome o;
    trial_run(&w->t, w->save, &o);
    assert_int_equal(o.collateral, 0);
}

/* A batch was held, and comes behind two of its session that were announced later. In time it stands before what is
 * known to stand before the hole, and by their places the others are beside what stands behind it. */
static void held_behind(void **state)
{
    struct world *w = *state;
    const struct log *log = w->f.log;
    struct sent s;
    char data[LARGE];
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    struct topic *t = log_topic(w->f.log, w->id);
    uint64_t sequence = w->sequence[0] + 3;
    data_of(w, 0, sequence, data);
    assert_int_equal(
        fixture_send(&w->f, 0, &s, t, w->session[0], 1, sequence, data, w->length, NULL, COUNT), 0);
    topic_put(t);
    log_commit(w->f.log);
    alone(w, 1);
    uint64_t number = log->seq.next, hole = topic_end(names_id(&w->f.log->names, w->id));
    assert_false(atomic_load(&s.done));
    for (unsigned i = 0; i < 2; i++)
        alone(w, 0);
    assert_true(atomic_load(&s.done) && s.commit.number == number + 2);
    w->sequence[0]++;
    strange(w);
    alone(w, 0);
    (void)fixture_control(
        &w->f, (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = hole + LENGTH});
    take(w);
    strange_zero(w, number + 3);
    for (unsigned i = 0; i < 3; i++)
        memset(in_image(w, pool_entry(&log->pool, 0, number + i)), 0, MEDIA_LINE);
    struct trial_outcome o;
    trial_run(&w->t, w->save, &o);
    assert_int_equal(o.collateral, 0);
}

/* A pair that is not found, for something else is lost beside it, is not looked for where the next one was. */
static void two_gaps(void **state)
{
    struct world *w = *state;
    const struct log *log = w->f.log;
    uint64_t number[2];
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < 2; i++) {
        number[i] = log->seq.next;
        (void)pair(w);
        strange(w);
        alone(w, 0);
        strange(w);
    }
    take(w);
    strange_zero(w, number[0] + 2);
    for (unsigned i = 0; i < 4; i++)
        memset(in_image(w, pool_entry(&log->pool, 0, number[i / 2] + i % 2)), 0, MEDIA_LINE);
    right(w, 2);
}

/* Without sessions, when what the topic fills has so much room: only their places gainsay their times. */
static bool plain_pair(struct world *w, uint64_t least, uint64_t most)
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    uint64_t room = 0;
    w->session[0] = w->session[1] = 0;
    w->length = LARGE;
    for (unsigned i = 0; i < 100 && (room < least || room > most); i++) {
        alone(w, 0);
        room = t->fill->top - t->fill->bottom;
    }
    assert_int_equal(log_checkpoint(w->f.log), 0);
    bool split = pair(w);
    take(w);
    lines_zero(w);
    right(w, 2);
    ends(w);
    return split;
}

/* The first ends one extent and begins the one that the second stands in. */
static void plain_split(void **state)
{
    assert_true(plain_pair(*state, ENOUGH, LARGE));
}

/* The first ends one extent, the second begins the next. */
static void plain_apart(void **state)
{
    assert_false(plain_pair(*state, LARGE + MEDIA_LINE, LARGE + ENOUGH - LENGTH));
}

/* Each in an extent of its own: nothing gainsays their times. */
static void plain_own(void **state)
{
    struct world *w = *state;
    w->session[0] = w->session[1] = 0;
    w->length = LARGE;
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        (void)pair(w);
    assert_true(w->belied > 0);
    take(w);
    lines_zero(w);
    right(w, w->marked ? 0 : 2 * PAIRS);
    ends(w);
}

static void plain_own_marked(void **state)
{
    struct world *w = *state;
    w->marked = true;
    plain_own(state);
}

/* One worker's batches without a session: their times tell. */
static void plain_one(void **state)
{
    struct world *w = *state;
    w->session[0] = w->session[1] = 0;
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        alone(w, 0);
    take(w);
    lines_zero(w);
    right(w, 0);
}

/* The same of one publisher: its numbers tell. */
static void one_publisher(void **state)
{
    struct world *w = *state;
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        alone(w, 0);
    take(w);
    lines_zero(w);
    right(w, 0);
}

/* Two without sessions: one's line is damaged, not where it says what it is of, and that of an action beside it is
 * gone. The other tells by its time, which is wrong, that nothing was missed there. */
static void nobodys_lost(struct world *w, unsigned which, bool trimmed)
{
    struct control mode = {.kind = MEDIA_C_ATTR, .id = w->id, .flags = MEDIA_A_MODE, .mode = 0600};
    const struct log *log = w->f.log;
    uint64_t number;
    memset(w->session, 0, sizeof w->session);
    alone(w, 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    if (which == 0)
        (void)fixture_control(&w->f, mode);
    if (which == 0)
        strange(w);
    number = log->seq.next + which;
    struct batch left = {.topic = names_id(&w->f.log->names, w->id), .length = 10, .count = 1};
    assert_int_equal(log_reserve(w->f.log, &left), 0); /* the pair is a run of its own */
    (void)pair(w);
    log_abandon(w->f.log, &left);
    if (which == 1) {
        strange(w);
        (void)fixture_control(&w->f, mode);
    }
    alone(w, 0);
    if (trimmed)
        (void)fixture_control(&w->f,
                              (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = LENGTH});
    take(w);
    struct media_entry *line = in_image(w, pool_entry(&log->pool, 0, number));
    struct media_entry *action = in_image(w, pool_entry(&log->pool, 0, number + 4 * which - 2));
    assert_int_equal(line->kind, MEDIA_BATCH);
    assert_int_equal(action->kind, MEDIA_CONTROL);
    memset(&line->crc, 0x5a, sizeof line->crc);
    memset(action, 0, MEDIA_LINE);
    strange_zero(w, number + 2 * which - 1);
    right(w, 1);
    assert_int_equal(w->belied, 1);
}

static void nobodys_first(void **state)
{
    nobodys_lost(*state, 0, false);
}

static void nobodys_second(void **state)
{
    nobodys_lost(*state, 1, false);
}

/* What was whole before the first that is still held was trimmed, but for what stands behind it in its extent. */
static void nobodys_trimmed(void **state)
{
    nobodys_lost(*state, 1, true);
}

/* A trim that stands tells where all of them ended, which begin an extent: none is put behind that, though as many
 * are left as entries are missing. */
static void trim_tells_the_end(void **state)
{
    struct world *w = *state;
    struct log *log = w->f.log;
    const struct topic *t = names_id(&log->names, w->id);
    memset(w->session, 0, sizeof w->session);
    do
        alone(w, 0);
    while (t->fill->top - t->fill->bottom >= LENGTH + MEDIA_LINE);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t number = log->seq.next;
    for (unsigned i = 0; i < 2; i++)
        alone(w, 0);
    (void)pair(w);
    strange(w);
    assert_int_equal(log->seq.next, number + 5);
    (void)fixture_control(&w->f,
                          (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = LENGTH / 2});
    take(w);
    strange_zero(w, number + 4);
    for (unsigned i = 0; i < 4; i++)
        memset(in_image(w, pool_entry(&log->pool, 0, number + i)), 0, MEDIA_LINE);
    right(w, 4);
    ends(w);
}

static void table_zero(struct world *w)
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    assert_true(t->table.count > 0);
    for (size_t i = 0; i < t->table.count; i++) {
        const struct extent *e = t->table.piece[i].extent;
        memset(w->t.image + e->base, 0, MEDIA_LINE);
        memset(w->t.image + e->base + checkpoint_room(e->size), 0, MEDIA_LINE);
    }
}

/* So many of each; then only the checkpoint tells where they stand, in a table that is gone as all lines are. */
static void table_gone(struct world *w, unsigned before, unsigned pairs, unsigned behind)
{
    for (unsigned i = 0; i < before; i++)
        alone(w, 0);
    for (unsigned i = 0; i < pairs; i++)
        (void)pair(w);
    for (unsigned i = 0; i < behind; i++)
        alone(w, 1);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    take(w);
    lines_zero(w);
    table_zero(w);
}

/* Batches that the table tells of: all but those of the last run. */
static unsigned told(const struct world *w)
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    return (unsigned)(topic_run(t, t->run_count - 1)->offset / w->length);
}

static void table_pairs(void **state)
{
    struct world *w = *state;
    table_gone(w, 3, PAIRS, 30);
    right(w, told(w));
}

static void table_one_session(void **state)
{
    struct world *w = *state;
    two_connections(w);
    table_gone(w, 3, PAIRS, 30);
    right(w, told(w));
}

static void table_one(void **state)
{
    struct world *w = *state;
    table_gone(w, 20, 0, 0);
    right(w, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(index_gone, begin, end),
        cmocka_unit_test_setup_teardown(index_gone_marked, begin, end),
        cmocka_unit_test_setup_teardown(index_lapped, begin, end),
        cmocka_unit_test_setup_teardown(lines_gone, begin, end),
        cmocka_unit_test_setup_teardown(lines_gone_proved, begin, end),
        cmocka_unit_test_setup_teardown(half_gone, begin, end),
        cmocka_unit_test_setup_teardown(stalled, begin, end),
        cmocka_unit_test_setup_teardown(one_session, begin, end),
        cmocka_unit_test_setup_teardown(one_session_since, begin, end),
        cmocka_unit_test_setup_teardown(slow_between, begin, end),
        cmocka_unit_test_setup_teardown(held_behind, begin, end),
        cmocka_unit_test_setup_teardown(two_gaps, begin, end),
        cmocka_unit_test_setup_teardown(terms_gone, begin, end),
        cmocka_unit_test_setup_teardown(plain_split, begin, end),
        cmocka_unit_test_setup_teardown(plain_apart, begin, end),
        cmocka_unit_test_setup_teardown(plain_own, begin, end),
        cmocka_unit_test_setup_teardown(plain_own_marked, begin, end),
        cmocka_unit_test_setup_teardown(plain_one, begin, end),
        cmocka_unit_test_setup_teardown(one_publisher, begin, end),
        cmocka_unit_test_setup_teardown(nobodys_first, begin, end),
        cmocka_unit_test_setup_teardown(nobodys_second, begin, end),
        cmocka_unit_test_setup_teardown(nobodys_trimmed, begin, end),
        cmocka_unit_test_setup_teardown(trim_tells_the_end, begin, end),
        cmocka_unit_test_setup_teardown(table_pairs, begin, end),
        cmocka_unit_test_setup_teardown(table_one_session, begin, end),
        cmocka_unit_test_setup_teardown(table_one, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
