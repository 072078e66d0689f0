/* What goes into the index beside batches: control actions, retention's trims, terms, grants and moves
 * (steps 7 and 8).
 *
 * A control action is a batch of topic 0 with an entry like any other (ordering rule "commit", seq.c):
 * validated, stored and drained, its entry hardened, then folded. All with the sequencer's role. Must
 * never validate an action against a state that one before it is still to change.
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

static int fold_record(struct log *log, const struct control *c, const struct record *r,
                       struct commit *commit)
{
    struct placed p = seq_placed(&r->b, r->offset);
    unsigned tries = 0;
    int rc;
    do
        rc = fold_batch(log, log->control, NULL, &p);
    while (rc == -ENOMEM && fold_patience(&tries));
    if (rc)
        return rc;
    do
        rc = fold_control(log, c, r->number, commit);
    while (rc == -ENOMEM && c->kind != MEDIA_C_RENAME &&
           fold_patience(&tries)); /* it waits itself */
    return rc;
}

int seq_control(struct log *log, struct control *c, struct commit *commit)
{
    struct record r;
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
    rc = control_place(log, c, &r);
    if (rc)
        return rc;
    r.offset = log->control->ordered_end;
    log->control->ordered_end += r.b.length;
    rc = guard_run(log->region, record_entry, &r);
    if (rc)
        return seq_fail(log, rc);
    rc = seq_harden(log, r.number);
    if (rc)
        return rc;
    rc = fold_record(log, c, &r, commit);
    if (rc == 0 && (c->kind == MEDIA_C_ATTR || c->kind == MEDIA_C_CREATE))
        retain_changed(log, c->id);
    fold_need(log);
    commit->number = r.number;
    if (rc)
        return seq_fail(log, rc);
    seq_watermark(log);
    return 0;
}

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
