/* A pool with a history: topics, directories, sessions, trims, openings and kills, at random; in some
 * it is so full that batches are moved about. See fsck_trial.h. */
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define TOPICS 8u
#define SMALL  300u

struct load {
    struct fixture *f;
    struct draws *d;
    uint32_t topic[TOPICS], dir;
    unsigned topics;
    struct {
        uint64_t id, sequence;
        uint32_t topic;
    } session[TOPICS];
    unsigned sessions, names;
    bool crowded;   /* large batches until it is full, so that what stands in the way is moved */
    uint32_t alike; /* bytes of each batch: only its content tells it from others. 0: of any size */
};

/* What was never committed stands between what was: a batch that was given up, or a whole one that waits
 * for the one before it. */
static void load_leave(struct load *l, struct topic *t, const char *data, uint32_t sum,
                       uint32_t count)
{
    static struct sent held[16]; /* until it is done, which the log's end is at the latest */
    static unsigned next;
    struct batch b = {.topic = t, .length = sum, .count = count, .equal = true};
    struct control open = {.kind = MEDIA_C_OPEN, .id = t->id};
    struct sent *s = &held[next % 16];
    struct commit commit;
    if (one_in(l->d, 2)) {
        if (log_reserve(l->f->log, &b) == 0) {
            (void)fixture_publish(l->f, t, 0, 0, 0, data, sum, NULL, count);
            log_abandon(l->f->log, &b);
        }
        return;
    }
    if ((s->batch.topic && !atomic_load(&s->done)) || fixture_try(l->f, open, &commit) != 0)
        return;
    next++;
    memset(s, 0, sizeof *s);
    if (fixture_send(l->f, 0, s, t, commit.session, 1, 2, data, sum, NULL, count) == 0)
        log_commit(l->f->log);
    else
        memset(s, 0, sizeof *s);
}

static void load_publish(struct load *l)
{
    static const uint32_t most[] = {20, 200, 2000, 9000, 60000};
    char data[60000];
    uint32_t lengths[64], sum = 0;
    unsigned size = l->crowded && one_in(l->d, 2) ? 4 : pick(l->d, 5);
    uint32_t count = 1 + pick(l->d, 60), each = most[size] / count + 1;
    bool equal = one_in(l->d, 2);
    uint32_t one = 1 + pick(l->d, each);
    if (l->alike) {
        count = 10;
        one = l->alike / count;
        equal = true;
    }
    for (uint32_t i = 0; i < count; i++) {
        lengths[i] = equal ? one : 1 + pick(l->d, each);
        if (sum + lengths[i] > sizeof data) {
            count = i;
            break;
        }
        sum += lengths[i];
    }
    for (uint32_t i = 0; i < sum; i++)
        data[i] = (char)draw(l->d);
    unsigned k = pick(l->d, l->topics), s = pick(l->d, TOPICS);
    uint64_t session = 0, sequence = 0;
    uint32_t id = l->topic[k];
    if (s < l->sessions && one_in(l->d, 2)) {
        id = l->session[s].topic;
        session = l->session[s].id;
        sequence = l->session[s].sequence + 1;
    }
    struct topic *t = log_topic(l->f->log, id);
    if (!t)
        return;
    if (l->alike && one_in(l->d, 12))
        load_leave(l, t, data, sum, count);
    struct commit c =
        fixture_publish(l->f, t, session, 1, sequence, data, sum, equal ? NULL : lengths, count);
    if (c.status == -EMBAR_EFULL) { /* or in pieces that are too small: they are moved together */
        log_tick(l->f->log, now_monotonic());
        c = fixture_publish(l->f, t, session, 1, sequence, data, sum, equal ? NULL : lengths,
                            count);
    }
    if (c.status == 0 && session)
        l->session[s].sequence = sequence;
    if (c.status) { /* no space: give some up */
        struct control trim = {.kind = MEDIA_C_TRIM,
                               .id = id,
                               .value = topic_base(t) + (topic_end(t) - topic_base(t)) / 2};
        (void)fixture_try(l->f, trim, NULL);
    }
    topic_put(t);
}

static void load_topic(struct load *l)
{
    struct control c = {.kind = MEDIA_C_CREATE,
                        .parent = one_in(l->d, 2) ? l->dir : LOG_ROOT_ID,
                        .mode = 0600 | pick(l->d, 0100),
                        .order = 5,
                        .ack = 1};
    struct commit commit;
    snprintf(c.name, sizeof c.name, "topic%u", l->names++);
    if (l->topics < TOPICS && fixture_try(l->f, c, &commit) == 0)
        l->topic[l->topics++] = commit.id;
}

static void load_control(struct load *l)
{
    unsigned k = pick(l->d, l->topics);
    struct control c = {.id = l->topic[k]};
    struct commit commit;
    struct topic *t;
    switch (pick(l->d, 7)) {
    case 0: load_topic(l); return;
    case 1:
        c.kind = MEDIA_C_ATTR;
        c.flags = MEDIA_A_MODE;
        c.mode = pick(l->d, 01000);
        break;
    case 2:
        c.kind = MEDIA_C_RENAME;
        c.parent = one_in(l->d, 2) ? l->dir : LOG_ROOT_ID;
        snprintf(c.name, sizeof c.name, "renamed%u", l->names++);
        break;
    case 3:
        c.kind = MEDIA_C_OPEN;
        if (l->sessions < TOPICS && fixture_try(l->f, c, &commit) == 0) {
            l->session[l->sessions].topic = c.id;
            l->session[l->sessions].sequence = 0;
            l->session[l->sessions++].id = commit.session;
        }
        return;
    case 4:
        if (l->topics < 3 || !one_in(l->d, 4))
            return;
        c.kind = MEDIA_C_REMOVE;
        l->topic[k] = l->topic[--l->topics];
        for (unsigned i = 0; i < l->sessions;)
            if (l->session[i].topic == c.id)
                l->session[i] = l->session[--l->sessions];
            else
                i++;
        break;
    case 5:
        t = log_topic(l->f->log, c.id);
        c.kind = MEDIA_C_TRIM;
        c.value = topic_base(t) + pick(l->d, (uint32_t)(topic_end(t) - topic_base(t) + 1));
        topic_put(t);
        break;
    default: assert_int_equal(log_checkpoint(l->f->log), 0); return;
    }
    (void)fixture_try(l->f, c, NULL);
}

/* Small topics in all that is free, and every second of them removed: enough is free then, in pieces
 * that are too small for a large batch. */
static void load_scatter(struct load *l)
{
    uint32_t id[SMALL];
    unsigned n = 0;
    for (bool full = false; !full && n < SMALL; n++) {
        char name[16], data[24000];
        snprintf(name, sizeof name, "small%u", l->names++);
        id[n] = fixture_topic(l->f, name);
        uint32_t length = 1 + pick(l->d, sizeof data);
        for (uint32_t i = 0; i < length; i++)
            data[i] = (char)draw(l->d);
        struct topic *t = log_topic(l->f->log, id[n]);
        full = fixture_publish(l->f, t, 0, 0, 0, data, length, NULL, 1).status != 0;
        topic_put(t);
    }
    for (unsigned i = 0; i < n; i += 2)
        fixture_control(l->f, (struct control){.kind = MEDIA_C_REMOVE, .id = id[i]});
}

static void load_begin(struct load *l, struct fixture *f, struct draws *d)
{
    struct log_options o = {.manual = true};
    o.geo.index_entries = 64u << pick(d, 3);
    o.geo.descriptors = 4;
    o.geo.max_order = 3 + pick(d, 3);
    memset(l, 0, sizeof *l);
    l->d = d;
    l->f = f;
    fixture_open_as(l->f, TRIAL_SIZE, &o);
    l->dir = (uint32_t)fixture_control(
        l->f, (struct control){
                  .kind = MEDIA_C_MKDIR, .parent = LOG_ROOT_ID, .mode = 0755, .name = "dir"});
    load_topic(l);
    load_topic(l);
}

bool trial_load(struct fixture *f, struct draws *d, char **earlier)
{
    struct load l;
    load_begin(&l, f, d);
    l.crowded = one_in(d, 2);
    if (one_in(d, 3))
        l.alike = 10 * (1 + pick(d, 1000));
    unsigned rounds = 40 + pick(d, 400) + (l.crowded ? 300 : 0), at = pick(d, rounds);
    for (unsigned i = 0; i < rounds; i++) {
        if (l.crowded && i + 30 == rounds)
            load_scatter(&l);
        if (one_in(d, 12))
            load_control(&l);
        else
            load_publish(&l);
        if (one_in(d, 60))
            fixture_reopen(l.f);
        else if (one_in(d, 60))
            fixture_kill(l.f);
        if (i == at)
            *earlier = fixture_copy(l.f);
    }
    bool killed = !one_in(d, 4);
    if (!killed)
        fixture_reopen(l.f), log_close(l.f->log), l.f->log = NULL;
    return killed;
}

/* What the kill took back is not there any more. */
static void load_forget(struct load *l)
{
    l->sessions = 0;
    for (unsigned i = 0; i < l->topics;) {
        struct topic *t = log_topic(l->f->log, l->topic[i]);
        if (!t) {
            l->topic[i] = l->topic[--l->topics];
            continue;
        }
        topic_put(t);
        i++;
    }
    if (l->topics == 0)
        load_topic(l);
}

void trial_kills(struct draws *d, unsigned kills, void (*look)(const char *killed))
{
    struct fixture f;
    struct load l;
    load_begin(&l, &f, d);
    l.crowded = one_in(d, 2);
    for (unsigned i = 0; i < 40 + pick(d, 300); i++)
        load_publish(&l);
    if (l.crowded)
        load_scatter(&l);
    while (kills > 0) {
        fixture_arm(&f, 1 + pick(d, 30));
        for (unsigned i = 0; i < 100 && !f.crashed; i++) {
            if (one_in(d, 4))
                load_control(&l);
            else if (one_in(d, 8))
                fixture_reopen(&f);
            else
                load_publish(&l);
        }
        if (f.crashed) {
            look(f.crashed);
            kills--;
        }
        if (fixture_crash(&f))
            load_forget(&l);
    }
    fixture_close(&f);
}
