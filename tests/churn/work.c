/* What the campaign does, one operation after the other: mostly small batches, some reads, and every
 * way in which space comes back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/crc.h"
#include "tests/churn/churn.h"
#include "tests/churn/oracle.h"

#define TRIES 20000u /* trims for one batch before the pool counts as dead */

static struct churn_topic *some_topic(struct churn *c)
{
    /* Some are busy, most are quiet. */
    uint32_t among = churn_below(c, 4) ? c->topics / 16 + 1 : c->topics;
    struct churn_topic *k = &c->topic[churn_below(c, among)];
    return k->t ? k : NULL;
}

int churn_control(struct churn *c, struct control control, struct commit *commit)
{
    struct commit mine;
    churn_commit(c);
    return log_control_wait(c->log, &control, commit ? commit : &mine);
}

/* ---- Topics ------------------------------------------------------------------------------- */

static void settings(struct churn *c, struct churn_topic *k)
{
    uint32_t dice = churn_below(c, 100);
    k->keep = dice < 30 ? 1ull << (8 + churn_below(c, 14)) : 0;
    k->age = dice >= 20 && dice < 45 ? (60 + churn_below(c, 14 * 86400)) * SECOND : 0;
    k->policy = churn_below(c, 100) < c->trimmable;
}

void churn_make(struct churn *c, struct churn_topic *k)
{
    *k = (struct churn_topic){.directory = churn_below(c, DIRECTORIES), .name = c->names++};
    settings(c, k);
    struct control make = {.kind = MEDIA_C_CREATE,
                           .parent = c->directory[k->directory],
                           .mode = 0644,
                           .order = 5,
                           .value = k->keep,
                           .value2 = k->age,
                           .policy = k->policy};
    struct commit commit;
    snprintf(make.name, sizeof make.name, "t%u", k->name);
    int rc = churn_control(c, make, &commit);
    if (rc)
        churn_fail(c, "making %s: %d", make.name, rc);
    k->id = commit.id;
    k->t = log_topic(c->log, k->id);
    if (!k->t)
        churn_fail(c, "topic %u was made and is not there", k->id);
}

void churn_drop(struct churn *c, struct churn_topic *k)
{
    churn_commit(c);
    churn_follow(c, k);
    int rc = churn_control(c, (struct control){.kind = MEDIA_C_REMOVE, .id = k->id}, NULL);
    if (rc)
        churn_fail(c, "removing topic %u: %d", k->id, rc);
    c->live -= k->end - k->base;
    topic_put(k->t);
    k->t = NULL;
    c->counts.removed++;
}

static void rename_topic(struct churn *c, struct churn_topic *k)
{
    unsigned directory = churn_below(c, DIRECTORIES);
    struct control move = {.kind = MEDIA_C_RENAME, .id = k->id, .parent = c->directory[directory]};
    struct node_stat st;
    snprintf(move.name, sizeof move.name, "t%u", c->names);
    int rc = churn_control(c, move, NULL);
    if (rc == 0)
        rc = log_lookup(c->log, move.parent, move.name, strlen(move.name), &st);
    if (rc || st.id != k->id)
        churn_fail(c, "moving topic %u to %s: %d", k->id, move.name, rc);
    k->directory = directory;
    k->name = c->names++;
    c->counts.renamed++;
}

static void change(struct churn *c, struct churn_topic *k)
{
    churn_commit(c);
    churn_follow(c, k);
    settings(c, k);
    struct control attr = {.kind = MEDIA_C_ATTR,
                           .id = k->id,
                           .flags = MEDIA_A_BYTES | MEDIA_A_AGE | MEDIA_A_FULL,
                           .value = k->keep,
                           .value2 = k->age,
                           .policy = k->policy};
    int rc = churn_control(c, attr, NULL);
    if (rc)
        churn_fail(c, "settings of topic %u: %d", k->id, rc);
    c->counts.attributes++;
}

static void trim(struct churn *c, struct churn_topic *k, uint64_t to)
{
    struct commit commit;
    churn_commit(c);
    churn_follow(c, k);
    if (to < k->base)
        to = k->base;
    int rc =
        churn_control(c, (struct control){.kind = MEDIA_C_TRIM, .id = k->id, .value = to}, &commit);
    struct node_stat st;
    if (rc || commit.offset > to || commit.offset < k->base || log_stat(c->log, k->id, &st) ||
        st.base != commit.offset || commit.bytes != st.base - k->base)
        churn_fail(c, "trimming topic %u to %" PRIu64 ": %d, %" PRIu64, k->id, to, rc,
                   commit.offset);
    c->counts.trimmed += st.base - k->base;
    c->live -= st.base - k->base;
    k->base = st.base;
    k->first = st.first;
    c->counts.trims++;
}

/* ---- Publishing --------------------------------------------------------------------------- */

static void told(struct completion *self, const struct commit *commit)
{
    struct churn_sent *s = (struct churn_sent *)self;
    s->commit = *commit;
    s->done = true;
}

void churn_commit(struct churn *c)
{
    if (c->grouped == 0)
        return;
    log_commit(c->log);
    for (unsigned i = 0; i < c->grouped; i++) {
        const struct churn_sent *s = &c->sent[i];
        if (!s->done || s->commit.status || (!s->commit.duplicate && s->commit.offset != s->offset))
            churn_fail(c,
                       "topic %u: a batch of %u bytes: done %d, status %d, at %" PRIu64
                       ", not %" PRIu64,
                       s->topic->id, s->batch.length, s->done, s->commit.status, s->commit.offset,
                       s->offset);
        c->counts.duplicates += s->commit.duplicate;
    }
    c->grouped = 0;
}

static uint32_t some_length(struct churn *c)
{
    uint32_t dice = churn_below(c, 100000), most = (uint32_t)log_pool(c->log)->max_batch;
    if (dice < 90000)
        return 1 + churn_below(c, 512);
    if (dice < 98900)
        return 1 + churn_below(c, 8192);
    if (dice < 99900)
        return 1 + churn_below(c, 65536);
    if (dice < 99995)
        return 1 + churn_below(c, most < 1 << 20 ? most : 1 << 20);
    c->counts.large++;
    return 1 + churn_below(c, most);
}

/* Enough is free for it, and much more: then it must get in, once nobody reads any more, without any
 * trim by hand. */
static bool enough(const struct churn *c, const struct batch *b)
{
    struct log_stat st;
    log_stat_all(c->log, &st);
    return st.free >= 2ull * b->length + (1 << 20);
}

static int reserve_moving(struct churn *c, struct batch *b)
{
    int rc = log_reserve(c->log, b);
    if (rc != -EMBAR_EFULL)
        return rc;
    churn_commit(c);
    c->counts.full++;
    c->counts.scattered += enough(c, b);
    log_tick(c->log, c->clock);
    rc = log_reserve(c->log, b);
    if (rc != -EMBAR_EFULL || !enough(c, b))
        return rc;
    for (unsigned i = 0; i < PINS; i++)
        churn_unpin(c, &c->pin[i]);
    for (unsigned i = 0; i < 4 && rc == -EMBAR_EFULL; i++) {
        c->clock += 2 * SECOND; /* the pause after an attempt */
        log_tick(c->log, c->clock);
        rc = log_reserve(c->log, b);
    }
    if (rc == -EMBAR_EFULL && enough(c, b))
        churn_fail(c, "no space for %u bytes although more than twice that is free", b->length);
    c->counts.unpinned++;
    return rc;
}

/* Space for it: what may be trimmed goes by itself, what is in the way is moved, and only when there
 * is too little the rest is the campaign's to give up. */
static void reserve(struct churn *c, struct batch *b)
{
    int rc = reserve_moving(c, b);
    struct log_stat st;
    log_stat_all(c->log, &st);
    uint64_t kept = c->live / (st.data / 1000);
    if (rc == -EMBAR_EFULL) {
        c->counts.blocked++;
        c->least_kept = kept < c->least_kept ? kept : c->least_kept;
    }
    for (uint64_t tries = 1; rc == -EMBAR_EFULL; tries++) {
        struct churn_topic *k = &c->topic[churn_below(c, c->topics)];
        if (k->t && k->end > k->base)
            trim(c, k, k->end);
        if (tries > TRIES)
            churn_fail(c, "no space for %u bytes with %" PRIu64 " bytes kept", b->length, c->live);
        c->most_tries = tries > c->most_tries ? tries : c->most_tries;
        c->counts.tries++;
        rc = log_reserve(c->log, b);
        if (rc == -EMBAR_EFULL && enough(c, b))
            rc = reserve_moving(c, b);
    }
    if (rc)
        churn_fail(c, "reserving %u bytes: %d", b->length, rc);
}

static void publish(struct churn *c, struct churn_topic *k)
{
    if (c->grouped == GROUP)
        churn_commit(c);
    uint32_t length = some_length(c), count = 1 + churn_below(c, 20);
    bool equal = churn_below(c, 2);
    if (count > length)
        count = length;
    if (equal)
        length -= length % count;
    struct batch b = {.topic = k->t,
                      .length = length,
                      .count = count,
                      .equal = equal,
                      .session = k->session,
                      .sequence = k->session ? k->sequence + 1 : 0,
                      .epoch = k->epoch};
    reserve(c, &b);
    struct churn_sent *s = &c->sent[c->grouped];
    *s = (struct churn_sent){.completion.done = told, .batch = b, .topic = k, .offset = k->end};
    s->batch.completion = &s->completion;
    uint32_t n, crc = 0;
    for (uint32_t at = 0; at < length; at += n) {
        char *p = log_span(c->log, &s->batch, at, &n);
        oracle_fill(k->id, k->end + at, p, n);
        crc = crc32c(crc, p, n);
        log_writeback(c->log, &s->batch, at, n);
    }
    s->batch.payload_crc = crc;
    le32 *to = log_lengths(c->log, &s->batch);
    for (uint32_t i = 0, left = length; to && i < count; i++) {
        uint32_t here = i + 1 == count ? left : 1 + churn_below(c, left - (count - 1 - i));
        to[i] = le32_of(here);
        left -= here;
    }
    int rc = log_announce(log_producer(c->log, 0), &s->batch);
    if (rc)
        churn_fail(c, "announcing %u bytes: %d", length, rc);
    c->grouped++;
    k->end += length;
    k->messages += count;
    k->written = c->clock;
    if (k->session) {
        k->sequence++;
        k->session_messages += count;
    }
    c->live += length;
    c->counts.batches++;
    c->counts.bytes += length;
}

static void session(struct churn *c, struct churn_topic *k)
{
    struct commit commit;
    struct control act = {.kind = MEDIA_C_OPEN, .id = k->id};
    if (k->session)
        act = (struct control){.kind = MEDIA_C_CLOSE, .value = k->session};
    int rc = churn_control(c, act, &commit);
    if (rc)
        churn_fail(c, "a session of topic %u: %d", k->id, rc);
    k->session = k->session ? 0 : commit.session;
    k->epoch = commit.epoch;
    k->sequence = k->session_messages = 0;
    c->counts.sessions++;
}

/* ---- Steps -------------------------------------------------------------------------------- */

static void look(struct churn *c, struct churn_topic *k)
{
    churn_commit(c);
    churn_follow(c, k);
    if (k->base == k->end)
        return;
    uint64_t at = k->base + churn_draw(c) % (k->end - k->base), left = k->end - at;
    uint64_t n = 1 + churn_below(c, 8192);
    churn_read(c, k, at, n < left ? n : left);
}

static void pin(struct churn *c, struct churn_topic *k)
{
    struct churn_pin *p = &c->pin[churn_below(c, PINS)];
    churn_commit(c);
    churn_follow(c, k);
    if (p->held)
        churn_unpin(c, p);
    else if (k->end > k->base)
        churn_pin(c, p, k);
}

void churn_step(struct churn *c)
{
    struct churn_topic *k = some_topic(c);
    uint32_t dice = churn_below(c, 1000);
    c->clock += c->step;
    c->counts.operations++;
    if (!k) {
        churn_commit(c);
        k = &c->topic[churn_below(c, c->topics)];
        if (!k->t)
            churn_make(c, k);
    } else if (dice < 800) {
        publish(c, k);
    } else if (dice < 940) {
        look(c, k);
    } else if (dice < 960) {
        pin(c, k);
    } else if (dice < 964) {
        trim(c, k, k->base + churn_draw(c) % (k->end - k->base + 1));
    } else if (dice < 968) {
        change(c, k);
    } else if (dice < 972) {
        rename_topic(c, k);
    } else if (dice < 976) {
        session(c, k);
    } else if (dice < 978) {
        churn_drop(c, k);
    } else {
        churn_commit(c);
        log_tick(c->log, c->clock);
    }
}
