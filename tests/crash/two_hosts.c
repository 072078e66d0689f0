/* Another host looks at the pool: it opens for reading only, through a cache of its own that holds lines
 * of any age, while the server goes on. What it is served is right, and not older than what was acked
 * before it began; or it is refused, if the server did anything meanwhile. Must never write.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/crash/verify.h"

#define STEPS 12u /* of the server, while one looks, */
#define BURST 60u /* or all at once: rings go round and places are given away */

struct look {
    struct trial *run;
    struct ledger ledger; /* as of the entry that was recovered */
    struct log *log;
    bool stale; /* what was copied may be wrong, and it was said so */
};

static void far_open(struct trial *r, struct region *region, struct log **log, int *rc,
                     struct embar_error *err)
{
    shadow_far_region(r->medium.shadow, region);
    struct log_options options = trial_options(r, region, r->boot);
    options.readonly = true;
    *log = NULL;
    *rc = log_open(log, &options, err);
    r->counts->images++;
    r->counts->looks++;
}

/* The term that was claimed last, on the media. */
static uint32_t claimed(struct trial *r)
{
    struct region media;
    struct pool pool;
    shadow_media_region(r->medium.shadow, &media);
    if (pool_attach(&pool, &media, NULL) != 0)
        return 0;
    struct media_claim c = *pool_claim(&pool, 0);
    uint32_t crc = le32_get(c.crc);
    c.crc = le32_of(0);
    return crc32c(0, &c, sizeof c) == crc ? le32_get(c.term) : 0;
}

/* The first batch of a run, as a checker reads it: record and payload from the media. */
static bool checks(struct trial *r, const struct log *log)
{
    for (const struct topic *t = log->names.by_id; t; t = t->by_id.next) {
        struct side s;
        if (t->run_count == 0 || !chance(&r->shots, 2))
            continue;
        size_t i = below(&r->shots, (uint32_t)t->run_count);
        const struct run *run = topic_run(t, i);
        if (run->batches == 0)
            continue;
        if (side_read(&log->pool, run->side, &s) != 0)
            return false;
        topic_part_place(t, i, &s); /* its second part may have been moved */
        if (!side_payload_whole(&log->pool, &s))
            return false;
    }
    return true;
}

/* ---- While the server stands still -------------------------------------------------------- */

void hosts_glance(struct trial *r)
{
    struct region region;
    struct log *log;
    struct embar_error err = {0};
    struct outcome out;
    char why[512];
    int rc;
    if (r->looking || r->formatting || r->death || r->failed)
        return;
    r->looking = true;
    if (chance(&r->shots, 4))
        shadow_refresh(r->medium.shadow, draw(&r->shots));
    far_open(r, &region, &log, &rc, &err);
    struct expect e = trial_expect(r, false, draw(&r->shots));
    if (rc)
        trial_fail(r, "another host is refused while nothing happens: %s", err.text);
    else if (!checks(r, log))
        trial_fail(r, "another host finds damage where none is");
    else if (!verify(log, &e, &out, why))
        trial_fail(r, "another host sees what is wrong: %s", why);
    else if (log->term < claimed(r))
        trial_fail(r, "another host sees an older term");
    else if (log_settled(log) != 0)
        trial_fail(r, "another host sees changes while nothing happens");
    log_close(log);
    r->looking = false;
}

/* An entry that was acked is damaged, and the watermark vouches for it: the other host is told. */
void hosts_damage(struct trial *r, uint64_t number)
{
    struct region region, media;
    struct log *log;
    struct pool pool;
    struct embar_error err = {0};
    int rc;
    if (atomic_load(&r->log->checkpoint) >= number)
        return;
    shadow_media_region(r->medium.shadow, &media);
    if (pool_attach(&pool, &media, &err) != 0)
        return;
    char *byte = (char *)pool_entry(&pool, 0, number) + below(&r->shots, MEDIA_LINE);
    *byte ^= 1;
    far_open(r, &region, &log, &rc, &err);
    *byte ^= 1;
    if (rc != -EMBAR_ECORRUPT || !err.text[0])
        trial_fail(r, "entry %" PRIu64 " was acked and is damaged, and another host is told %d",
                   number, rc);
    log_close(log);
}

/* ---- While it goes on --------------------------------------------------------------------- */

static void meanwhile(void *arg)
{
    struct trial *r = arg;
    if (r->death || r->failed)
        return;
    if (r->steps < STEPS && chance(&r->shots, r->hurry)) {
        unsigned burst = chance(&r->shots, 6) ? BURST : 1;
        for (; burst > 0 && !r->death && !r->failed; burst--, r->steps++)
            workload_step(r);
    }
    if (r->death)
        return; /* what a ghost stores reaches nobody */
    if (chance(&r->shots, 30))
        shadow_leak(r->medium.shadow, draw(&r->shots));
    if (chance(&r->shots, 30))
        shadow_refresh(r->medium.shadow, draw(&r->shots));
}

/* What was promised when entry `number` was the last: from the ledger as the look began. */
static bool ledger_at(const struct trial *r, struct ledger *l, uint64_t number)
{
    for (size_t i = 0; i < r->op_count && r->ops[i].last <= number; i++) {
        const struct op *op = &r->ops[i];
        if (op->is_batch)
            ledger_append(l, op->topic, &op->batch);
        else if (ledger_control(l, &op->control, op->number) != 0)
            return false;
        l->number = op->last;
    }
    return number >= l->number && number <= r->now.number;
}

static bool batch_right(const struct look *k, const struct node *n, const struct entry_batch *b,
                        const struct batch_view *v)
{
    static char bytes[1 << 17];
    static le32 lengths[1 << 12];
    static uint32_t want[1 << 12];
    size_t at = 0;
    bool ok = v->offset == b->offset && v->length == b->length && v->message == b->message &&
              v->count == b->count && !v->lengths == b->equal;
    for (int i = 0; ok && i < v->data.pieces; at += v->data.iov[i++].iov_len) {
        ok = v->data.iov[i].iov_len <= b->length - at;
        if (ok)
            memcpy(bytes + at, v->data.iov[i].iov_base, v->data.iov[i].iov_len);
    }
    if (ok && v->lengths)
        memcpy(lengths, v->lengths, b->count * sizeof *lengths);
    /* From here on only the copies count. */
    if (log_settled(k->log) != 0) {
        ((struct look *)k)->stale = true;
        return true;
    }
    ok = ok && at == b->length && payload_equal(b->serial, 0, bytes, b->length);
    if (ok && v->lengths) {
        payload_lengths(b, want);
        for (uint32_t i = 0; ok && i < b->count; i++)
            ok = le32_get(lengths[i]) == want[i];
    }
    if (!ok)
        trial_fail(k->run, "another host is served a wrong batch %u of topic %u at %" PRIu64,
                   b->serial, n->id, b->offset);
    return ok;
}

static bool topic_right(struct look *k, const struct node *n)
{
    struct topic *t = log_topic(k->log, n->id);
    struct batch_cursor c = {.offset = n->base};
    bool ok = t != NULL;
    for (size_t i = ledger_find(&k->ledger, n, n->base); ok && !k->stale && i < n->batches; i++) {
        struct batch_view v;
        int rc = topic_next(t, &c, &v);
        if (rc != 1) {
            k->stale = log_settled(k->log) != 0;
            ok = k->stale;
            if (!ok)
                trial_fail(k->run, "another host cannot read topic %u at %" PRIu64 ": %d", n->id,
                           c.offset, rc);
            break;
        }
        struct entry_batch b = *ledger_batch(&k->ledger, n->id, i); /* lists move */
        ok = batch_right(k, n, &b, &v);
        read_release(&v.data);
    }
    if (t)
        topic_put(t);
    return ok;
}

static void compare(struct look *k)
{
    struct trial *r = k->run;
    uint64_t number = atomic_load(&k->log->committed);
    char why[512];
    if (!ledger_at(r, &k->ledger, number)) {
        trial_fail(r, "another host sees entries up to %" PRIu64 ", acked are %" PRIu64, number,
                   k->ledger.number);
        return;
    }
    struct outcome out;
    struct expect e = {.must = &k->ledger, .flight = r->flight, .random = 1, .unread = true};
    if (!verify(k->log, &e, &out, why)) {
        trial_fail(r, "another host sees what is wrong: %s", why);
        return;
    }
    for (unsigned i = 0; i < k->ledger.nodes && !k->stale && !r->death; i++)
        if (!k->ledger.node[i].is_dir && !topic_right(k, &k->ledger.node[i]))
            return;
}

void hosts_look(struct trial *r)
{
    static struct look look;
    struct region region;
    struct embar_error err = {0};
    int rc;
    if (r->looking || r->death || r->failed)
        return;
    look = (struct look){.run = r, .ledger = r->now};
    r->looking = true;
    r->steps = 0;
    r->op_count = 0;
    r->hurry = 4u << below(&r->shots, 7);
    shadow_on_invalidate(r->medium.shadow, meanwhile, r);
    far_open(r, &region, &look.log, &rc, &err);
    if (!r->death && !r->failed && rc && (r->steps == 0 || !err.text[0]))
        trial_fail(r, "another host is refused while nothing happens: %s", err.text);
    if (!r->death && !r->failed && rc == 0)
        compare(&look);
    r->counts->overtaken += rc != 0 || look.stale;
    if (!r->death && !r->failed && look.stale && r->steps == 0)
        trial_fail(r, "another host sees changes while nothing happens");
    shadow_on_invalidate(r->medium.shadow, NULL, NULL);
    log_close(look.log);
    r->looking = false;
    r->op_count = 0;
}
