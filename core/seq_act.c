/* What goes into the index beside batches: control actions, retention's trims, terms, grants and moves
 * (steps 7 and 8).
 *
 * A control action is a batch of topic 0 with an entry like any other (ordering rule "commit", seq.c):
 * validated, stored and drained, its entry hardened, then folded. All with the sequencer's role. Must
 * never validate an action against a state that one before it is still to change: a control action is
 * folded before the next one, and trims that are hardened together are of different topics.
 */
#include <errno.h>
#include <string.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/seq_state.h"

struct record {
    struct log *log;
    struct batch b;
    uint64_t offset, number;
    char bytes[sizeof(struct media_control) + MEDIA_MAX_NAME];
};

static int record_store(void *arg)
{
    const struct record *r = arg;
    struct log *log = r->log;
    flush_copy(log->pool.flush, pool_at(&log->pool, r->b.run0), r->bytes, r->b.length);
    return 0;
}

static int record_entry(void *arg)
{
    struct record *r = arg;
    r->number = seq_batch_entries(r->log, &r->b, r->offset, MEDIA_CONTROL, false);
    return 0;
}

/* The action as a batch of topic 0, drained like any payload before its entry. */
static int control_place(struct log *log, const struct control *c, struct record *r)
{
    struct batch *b = &r->b;
    char *record = r->bytes;
    struct media_control m;
    control_encode(&m, c);
    size_t name = le16_get(m.name_length);
    memcpy(record, &m, sizeof m);
    memcpy(record + sizeof m, c->name, name);
    *b = (struct batch){.topic = log->control,
                        .length = (uint32_t)(sizeof m + name),
                        .count = 1,
                        .equal = true,
                        .after = log->seq.next - 1,
                        .time = now_realtime()};
    int rc = reserve_in(log, b, EXTENT_META);
    if (rc)
        return rc;
    b->payload_crc = crc32c(0, record, b->length);
    r->log = log;
    rc = guard_run(log->region, record_store, r);
    if (rc == 0)
        rc = side_write(&log->pool, b);
    if (rc)
        return seq_fail(log, rc);
    flush_drain(log->pool.flush);
    return 0;
}

/* Its bytes, drained, and its entry, not hardened yet. */
static int control_write(struct log *log, const struct control *c, struct placed *p)
{
    struct record r;
    int rc = control_place(log, c, &r);
    if (rc)
        return rc;
    r.offset = log->control->ordered_end;
    log->control->ordered_end += r.b.length;
    *p = seq_placed(&r.b, r.offset);
    rc = guard_run(log->region, record_entry, &r);
    return rc ? seq_fail(log, rc) : 0;
}

/* What stands behind its entry by now. */
static int control_fold(struct log *log, const struct control *c, const struct placed *p,
                        struct commit *commit)
{
    unsigned tries = 0;
    int rc;
    do
        rc = fold_batch(log, log->control, NULL, p);
    while (rc == -ENOMEM && fold_patience(&tries));
    if (rc)
        return seq_fail(log, rc);
    do
        rc = fold_control(log, c, c->number, commit);
    while (rc == -ENOMEM && c->kind != MEDIA_C_RENAME &&
           fold_patience(&tries)); /* it waits itself */
    commit->number = c->number;
    return rc ? seq_fail(log, rc) : 0;
}

int seq_control(struct log *log, struct control *c, struct commit *commit)
{
    struct placed p;
    if (log->readonly)
        return -EROFS;
    if (log_faulted(log))
        return -EMBAR_EFAULTED;
    int rc = control_validate(log, c);
    commit->id = c->id;
    if (rc == -ENOENT && c->kind == MEDIA_C_ATTR)
        return fold_removed_attr(log, c);
    if (rc == 1) {
        commit->offset = c->value;
        return 0;
    }
    if (rc)
        return rc;
    rc = seq_room(log, 1);
    if (rc)
        return rc;
    c->number = log->seq.next;
    rc = control_write(log, c, &p);
    if (rc == 0)
        rc = seq_harden(log, c->number);
    if (rc == 0)
        rc = control_fold(log, c, &p, commit);
    if (rc)
        return rc;
    if (c->kind == MEDIA_C_ATTR || c->kind == MEDIA_C_CREATE)
        retain_changed(log, c->id);
    fold_need(log);
    seq_watermark(log);
    return 0;
}

/* ---- Trims --------------------------------------------------------------------------------- */

static struct control trim_control(const struct trim *t)
{
    return (struct control){.kind = MEDIA_C_TRIM,
                            .id = t->topic->id,
                            .value = t->to,
                            .value2 = t->first,
                            .altered = t->altered,
                            .number = t->number,
                            .end = t->end,
                            .messages = t->messages};
}

static int trim_write(struct log *log, struct trim *t)
{
    struct control c = trim_control(t);
    t->number = 0;
    int rc = control_validate(log, &c);
    if (rc)
        return rc < 0 ? rc : 0; /* 1: it begins there already */
    c.number = log->seq.next;
    rc = control_write(log, &c, &t->placed);
    if (rc)
        return rc;
    t->to = c.value;
    t->first = c.value2;
    t->altered = c.altered;
    t->number = c.number;
    t->end = c.end;
    t->messages = c.messages;
    return 0;
}

/* How many trims the ring takes now, leaving those by hand what is kept for them. As long as there is
 * no checkpoint for want of space: one, which may make some. */
static int trims_room(struct log *log, uint64_t *fit)
{
    uint64_t keep = seq_ring_margin(log) + 2;
    int rc = seq_room(log, keep + 1);
    *fit = rc ? 1 : seq_ring_room(log) - keep;
    return rc == -EMBAR_EFULL ? seq_room(log, 1) : rc;
}

/* The first of *n, as far as there is room; *n: how many these were. */
static int trims_some(struct log *log, struct trim *trim, unsigned *n)
{
    uint64_t first = log->seq.next, fit = 0;
    unsigned most = *n, done = 0;
    int full = trims_room(log, &fit), rc = 0;
    *n = 0;
    while (full == 0 && done < most && log->seq.next - first < fit) {
        rc = trim[done].status = trim_write(log, &trim[done]);
        if (rc == -EMBAR_EFAULTED)
            return rc;
        if (rc == -EMBAR_EFULL)
            full = rc;
        else
            done++;
    }
    *n = done;
    if (log->seq.next == first)
        return full;
    rc = seq_harden(log, first);
    for (unsigned i = 0; rc == 0 && i < done; i++) {
        struct control c = trim_control(&trim[i]);
        struct commit commit;
        if (c.number > 0)
            rc = control_fold(log, &c, &trim[i].placed, &commit);
    }
    if (rc)
        return rc;
    fold_need(log);
    seq_watermark(log);
    return full;
}

int seq_trims(struct log *log, struct trim *trim, unsigned n)
{
    unsigned done = 0;
    int rc = 0;
    while (rc == 0 && done < n) {
        unsigned some = n - done;
        rc = trims_some(log, trim + done, &some);
        done += some;
    }
    for (; done < n; done++)
        trim[done].status = rc;
    return rc;
}

/* ---- Entries without a payload -------------------------------------------------------------- */

struct bare {
    struct log *log;
    const struct entry *entry;
};

static int bare_store(void *arg)
{
    const struct bare *b = arg;
    seq_entry_put(b->log, b->entry);
    return 0;
}

/* An entry without a payload. */
static int bare_entry(struct log *log, struct entry *e)
{
    int rc = seq_room(log, 1);
    if (rc)
        return rc;
    e->number = log->seq.next;
    e->term = log->term;
    e->count = 1;
    rc = guard_run(log->region, bare_store, &(struct bare){log, e});
    if (rc)
        return seq_fail(log, rc);
    rc = seq_harden(log, e->number);
    if (rc == 0)
        seq_watermark(log);
    return rc;
}

int seq_term(struct log *log)
{
    return bare_entry(log, &(struct entry){.kind = MEDIA_TERM, .session = log->slot});
}

int seq_grant(struct log *log, uint32_t slot, uint64_t first, uint64_t count)
{
    struct entry e = {.kind = MEDIA_GRANT, .session = slot, .offset = first, .sequence = count};
    int rc = bare_entry(log, &e);
    return rc ? rc : fold_grant(log, slot, first, count);
}

struct moves {
    struct log *log;
    struct entry *entry;
    unsigned n;
};

static int moves_store(void *arg)
{
    const struct moves *m = arg;
    for (unsigned i = 0; i < m->n; i++) {
        m->entry[i].number = m->log->seq.next;
        seq_entry_put(m->log, &m->entry[i]);
    }
    return 0;
}

int seq_moves(struct log *log, struct entry *entry, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        entry[i].kind = MEDIA_MOVE;
        entry[i].term = log->term;
        entry[i].slot = (uint8_t)log->slot;
    }
    int rc = seq_room(log, n + seq_ring_margin(log) + 2);
    if (rc)
        return rc;
    uint64_t first = log->seq.next;
    rc = guard_run(log->region, moves_store, &(struct moves){log, entry, n});
    if (rc)
        return seq_fail(log, rc);
    rc = seq_harden(log, first);
    if (rc)
        return rc;
    for (unsigned i = 0; i < n; i++) {
        unsigned tries = 0;
        do
            rc = fold_move(log, &entry[i]);
        while (rc == -ENOMEM && fold_patience(&tries));
        if (rc)
            return seq_fail(log, rc);
    }
    fold_need(log);
    seq_watermark(log);
    return 0;
}
