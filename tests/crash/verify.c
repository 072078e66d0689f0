/* The comparison; see verify.h. Must never accept what was promised and is not there, nor what was
 * not announced and is.
 */
#include "tests/crash/verify.h"
#include "core/crc.h"
#include "core/log_state.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct check {
    struct log *log;
    struct expect *e;
    struct ledger *m;
    unsigned found;
    bool may_fly; /* batches in flight may be there */
    char *why;
};

static bool bad(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool bad(struct check *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(c->why, 512, fmt, args);
    va_end(args);
    return false;
}

/* ---- Batches ------------------------------------------------------------------------------ */

static bool lengths_equal(const struct entry_batch *b, const le32 *lengths)
{
    if (b->equal || !lengths)
        return b->equal && !lengths;
    uint32_t *want = calloc(b->count, sizeof *want);
    if (!want)
        abort();
    payload_lengths(b, want);
    bool same = true;
    for (uint32_t i = 0; same && i < b->count; i++)
        same = le32_get(lengths[i]) == want[i];
    free(want);
    return same;
}

static bool check_batch(struct check *c, const struct node *n, const struct entry_batch *b,
                        const struct batch_view *v)
{
    if (v->offset != b->offset || v->length != b->length || v->message != b->message ||
        v->count != b->count)
        return bad(c,
                   "topic %u: batch %u is %u bytes at %" PRIu64 ", %u messages from %" PRIu64
                   ", but shows as %u at %" PRIu64 ", %u from %" PRIu64,
                   n->id, b->serial, b->length, b->offset, b->count, b->message, v->length,
                   v->offset, v->count, v->message);
    uint32_t at = 0, crc = 0;
    for (int i = 0; i < v->data.pieces; i++) {
        size_t size = v->data.iov[i].iov_len;
        if (size > b->length - at || !payload_equal(b->serial, at, v->data.iov[i].iov_base, size))
            return bad(c, "topic %u: wrong bytes in batch %u at %" PRIu64 " (piece %d)", n->id,
                       b->serial, b->offset, i);
        at += (uint32_t)size;
        crc = crc32c(crc, v->data.iov[i].iov_base, size);
    }
    if (crc != v->payload_crc)
        return bad(c, "topic %u: wrong checksum of batch %u", n->id, b->serial);
    if (at != b->length)
        return bad(c, "topic %u: batch %u is short", n->id, b->serial);
    if (!lengths_equal(b, v->lengths))
        return bad(c, "topic %u: wrong message lengths in batch %u", n->id, b->serial);
    return true;
}

static struct flight *flight_of(struct check *c, const struct node *n, const struct batch_view *v)
{
    uint32_t serial = 0;
    if (v->data.pieces == 0 || v->data.iov[0].iov_len < 4)
        return NULL;
    const unsigned char *p = v->data.iov[0].iov_base;
    for (unsigned i = 4; i-- > 0;)
        serial = serial << 8 | p[i];
    for (unsigned i = 0; i < FLIGHTS; i++) {
        struct flight *f = &c->e->flight[i];
        if (f->state == FLIGHT_ANNOUNCED && f->m.serial == serial && f->topic == n->id)
            return f;
    }
    return NULL;
}

/* What stands behind the acked part was announced, and comes once. */
static bool check_tail(struct check *c, const struct node *n, struct topic *t,
                       struct batch_cursor *at)
{
    uint64_t end = n->end, messages = n->messages;
    struct batch_view v;
    int rc;
    while ((rc = topic_next(t, at, &v)) == 1) {
        struct flight *f = flight_of(c, n, &v);
        bool ok;
        if (!f) {
            ok = bad(c, "topic %u: what stands at %" PRIu64 " was never announced", n->id, end);
        } else if (f->found || !c->may_fly) {
            ok = bad(c,
                     f->found ? "topic %u: batch %u is there twice"
                              : "topic %u: batch %u is there before an action that came first",
                     n->id, f->m.serial);
        } else {
            f->found = ++c->found;
            f->m.offset = end;
            f->m.message = messages;
            ok = check_batch(c, n, &f->m, &v);
        }
        end += v.length;
        messages += v.count;
        read_release(&v.data);
        if (!ok)
            return false;
    }
    if (rc == -EMBAR_ECORRUPT && c->e->damaged)
        return true;
    if (rc)
        return bad(c, "topic %u: reading at %" PRIu64 " fails: %d", n->id, at->offset, rc);
    if (end != topic_end(t))
        return bad(c, "topic %u: ends at %" PRIu64 ", its batches at %" PRIu64, n->id, topic_end(t),
                   end);
    return true;
}

static bool check_batches(struct check *c, const struct node *n, struct topic *t)
{
    struct batch_cursor at = {.offset = n->base};
    struct batch_view v;
    for (size_t i = ledger_find(c->m, n, n->base); i < n->batches; i++) {
        const struct entry_batch *b = ledger_batch(c->m, n->id, i);
        int rc = topic_next(t, &at, &v);
        if (rc == -EMBAR_ECORRUPT && c->e->damaged)
            return true;
        if (rc != 1)
            return bad(c, "topic %u: batch %u at %" PRIu64 " cannot be read: %d", n->id, b->serial,
                       b->offset, rc);
        bool ok = check_batch(c, n, b, &v);
        read_release(&v.data);
        if (!ok)
            return false;
    }
    return check_tail(c, n, t, &at);
}

/* A read across batches and a seek, somewhere in the acked part. */
static bool check_random(struct check *c, const struct node *n, struct topic *t)
{
    if (n->base == n->end)
        return true;
    uint64_t from = n->base + draw(&c->e->random) % (n->end - n->base);
    struct read_view v;
    int rc = topic_read(t, from, 1 + below(&c->e->random, 20000), &v);
    if (rc || v.bytes == 0)
        return bad(c, "topic %u: %zu bytes read at %" PRIu64 ": %d", n->id, v.bytes, from, rc);
    uint64_t at = from;
    size_t i = ledger_find(c->m, n, from);
    bool ok = true;
    for (int p = 0; ok && p < v.pieces; p++)
        for (size_t done = 0; ok && done < v.iov[p].iov_len && at < n->end;) {
            const struct entry_batch *b = ledger_batch(c->m, n->id, i);
            size_t size = v.iov[p].iov_len - done;
            if (size > b->offset + b->length - at)
                size = b->offset + b->length - at;
            ok = payload_equal(b->serial, (uint32_t)(at - b->offset),
                               (char *)v.iov[p].iov_base + done, size) ||
                 bad(c, "topic %u: wrong bytes read at %" PRIu64, n->id, at);
            at += size;
            done += size;
            i += at == b->offset + b->length;
        }
    read_release(&v);
    const struct entry_batch *b = ledger_batch(c->m, n->id, ledger_find(c->m, n, from));
    uint64_t offset = 0;
    if (ok && b->message >= n->first &&
        ((rc = topic_seek_message(t, b->message, &offset)) != 0 || offset != b->offset) &&
        !(rc == -EMBAR_ECORRUPT && c->e->damaged))
        ok = bad(c, "topic %u: message %" PRIu64 " begins at %" PRIu64 ", not %" PRIu64 " (%d)",
                 n->id, b->message, b->offset, offset, rc);
    return ok;
}

static bool check_topic(struct check *c, const struct node *n)
{
    struct topic *t = log_topic(c->log, n->id);
    if (!t)
        return bad(c, "topic %u cannot be opened", n->id);
    bool ok = check_batches(c, n, t) && check_random(c, n, t);
    for (unsigned i = 0; ok && i < c->e->visibles; i++)
        if (c->e->visible[i].id == n->id && topic_end(t) < c->e->visible[i].end)
            ok = bad(c, "topic %u: readers saw it up to %" PRIu64 ", now it ends at %" PRIu64,
                     n->id, c->e->visible[i].end, topic_end(t));
    topic_put(t);
    return ok;
}

/* ---- Names and sessions ------------------------------------------------------------------- */

/* All that is below `base` as a whole. */
static bool is_old(const struct ledger *l, const struct node *n, uint64_t base, uint64_t old)
{
    for (size_t i = ledger_find(l, n, n->base); i < n->batches; i++) {
        const struct entry_batch *b = ledger_batch(l, n->id, i);
        if (b->offset + b->length > base)
            break;
        if (b->time + n->keep_age < b->time || b->time + n->keep_age > old)
            return false;
    }
    return true;
}

bool verify_retained(const struct ledger *l, const struct node *n, uint64_t base, uint64_t end,
                     const struct ledger *rule)
{
    struct ledger try = *l;
    struct control c = {.kind = MEDIA_C_TRIM, .id = n->id, .value = base};
    if (base <= n->base || ledger_control(&try, &c, 0) != 0 ||
        ledger_node(&try, n->id)->base != base)
        return false;
    if ((n->policy && (!rule || rule->starved)) || (n->keep_bytes && end - base >= n->keep_bytes))
        return true;
    /* With another setting, who trimmed first is not known. */
    return n->keep_age && (!rule || n->policy || n->keep_bytes || is_old(l, n, base, rule->old));
}

static bool check_node(struct check *c, struct node *n)
{
    struct node_stat st;
    int rc = log_stat(c->log, n->id, &st);
    if (rc)
        return bad(c, "node %u (%s) is not there: %d", n->id, n->name, rc);
    if (n->id == LOG_ROOT_ID)
        return true;
    if (st.parent != n->parent || strcmp(st.name, n->name) != 0)
        return bad(c, "node %u is %u/%s, not %u/%s", n->id, st.parent, st.name, n->parent, n->name);
    if (st.mode != n->mode || st.uid != n->uid || st.gid != n->gid || st.ack != n->ack ||
        st.order != n->order || st.policy != n->policy || st.keep_bytes != n->keep_bytes ||
        st.keep_age != n->keep_age)
        return bad(c, "node %u has other attributes", n->id);
    rc = log_lookup(c->log, n->parent, n->name, strlen(n->name), &st);
    if (rc || st.id != n->id)
        return bad(c, "node %u is not found by its name %s: %d", n->id, n->name, rc);
    if (n->is_dir)
        return true;
    /* Retention may have trimmed it and nobody was told yet. */
    if (st.base <= n->end && verify_retained(c->m, n, st.base, st.end, c->e->rule) &&
        ledger_control(c->m,
                       &(struct control){
                           .kind = MEDIA_C_TRIM, .id = n->id, .value = st.base, .value2 = st.first},
                       c->m->number) != 0)
        abort();
    if (st.base != n->base || st.first != n->first)
        return bad(c,
                   "topic %u begins at %" PRIu64 " with message %" PRIu64 ", not %" PRIu64
                   " with %" PRIu64,
                   n->id, st.base, st.first, n->base, n->first);
    if (st.end < n->end || st.messages < n->messages)
        return bad(c, "topic %u ends at %" PRIu64 ", acked up to %" PRIu64, n->id, st.end, n->end);
    if (c->e->unread)
        return st.end == n->end || bad(c, "topic %u ends at %" PRIu64, n->id, st.end);
    return check_topic(c, n);
}

/* The batches of a session that were found are the next ones, in their order in the topic. */
static bool check_session(struct check *c, const struct promise *s)
{
    struct session_stat st;
    if (log_session(c->log, s->id, &st))
        return bad(c, "session %" PRIu64 " is not known", s->id);
    struct promise now = *s;
    const struct node *t = ledger_node((struct ledger *)c->m, s->topic);
    for (unsigned found = 1; found <= c->found; found++)
        for (unsigned i = 0; i < FLIGHTS; i++) {
            const struct flight *f = &c->e->flight[i];
            if (f->found != found || f->m.session != s->id)
                continue;
            if (promise_has(&now, f->m.sequence))
                return bad(c, "session %" PRIu64 ": batch %" PRIu64 " is there twice", s->id,
                           f->m.sequence);
            if (t && t->order == 5 && f->m.sequence != now.sequence + 1)
                return bad(c,
                           "session %" PRIu64 ": batch %" PRIu64 " stands where %" PRIu64 " is due",
                           s->id, f->m.sequence, now.sequence + 1);
            promise_take(&now, f->m.sequence, f->m.count);
        }
    if (st.sequence != now.sequence || st.messages != now.messages)
        return bad(c,
                   "session %" PRIu64 " stands at %" PRIu64 " with %" PRIu64
                   " messages, not %" PRIu64 " with %" PRIu64,
                   s->id, st.sequence, st.messages, now.sequence, now.messages);
    if (st.epoch != s->epoch || st.topic != s->topic || st.principal != s->principal)
        return bad(c, "session %" PRIu64 " has epoch %u, topic %u, principal %u", s->id, st.epoch,
                   st.topic, st.principal);
    return true;
}

/* What one producer announced for one topic is there from the first one on. */
static bool check_order(struct check *c)
{
    for (unsigned i = 0; i < FLIGHTS; i++) {
        const struct flight *later = &c->e->flight[i];
        for (unsigned k = 0; later->found && k < FLIGHTS; k++) {
            const struct flight *earlier = &c->e->flight[k];
            if (later->m.session || earlier->state != FLIGHT_ANNOUNCED || earlier->m.session ||
                earlier->producer != later->producer || earlier->topic != later->topic ||
                earlier->announced >= later->announced)
                continue;
            if (!earlier->found || earlier->found > later->found)
                return bad(c, "topic %u: batch %u is there and %u, announced before it, is not",
                           later->topic, later->m.serial, earlier->m.serial);
        }
    }
    return true;
}

static bool check_state(struct check *c)
{
    c->found = 0;
    for (unsigned i = 0; i < FLIGHTS; i++)
        c->e->flight[i].found = 0;
    struct log_stat st;
    log_stat_all(c->log, &st);
    if (st.topics + st.directories != c->m->nodes)
        return bad(c, "%" PRIu64 " nodes, not %u", st.topics + st.directories, c->m->nodes);
    if (st.sessions != c->m->sessions)
        return bad(c, "%" PRIu64 " sessions, not %u", st.sessions, c->m->sessions);
    if (st.faulted)
        return bad(c, "the log has faulted");
    for (unsigned i = 0; i < c->m->nodes; i++)
        if (!check_node(c, &c->m->node[i]))
            return false;
    for (unsigned i = 0; i < c->m->sessions; i++)
        if (!check_session(c, &c->m->session[i]))
            return false;
    return check_order(c);
}

/* Number of the last entry that recovery accepted. */
static uint64_t cut_of(struct log *log)
{
    if (log->readonly)
        return atomic_load(&log->committed);
    struct log_stat st;
    log_stat_all(log, &st);
    return le64_get(pool_claim(log_pool(log), st.slot)->start) - 1;
}

/* Is the action there? Its number alone does not say so: recoveries that crashed in their turn began
 * terms behind an earlier cut. They move nothing: what retention trimmed is noted by the last entry of its
 * turn, and that one may be a move's. */
static bool arrived(const struct check *c, const struct op *op, uint64_t cut)
{
    struct log_stat st;
    log_stat_all(c->log, &st);
    const struct media_entry *line = pool_entry(log_pool(c->log), st.slot, op->last);
    bool other = le64_get(line->number) == op->last &&
                 (line->kind == MEDIA_TERM || line->kind == MEDIA_GRANT);
    return op->last <= cut && !other;
}

/* The session that was being opened, if it is there: terms may have begun behind it. */
static uint64_t opened(const struct check *c, uint64_t cut)
{
    struct session_stat st;
    for (uint64_t number = cut; number > c->m->number; number--)
        if (log_session(c->log, number, &st) == 0)
            return number;
    return cut;
}

/* What was in flight and is there is a promise from now on. */
static void take_flights(const struct check *c, struct ledger *to)
{
    for (unsigned found = 1; found <= c->found; found++)
        for (unsigned i = 0; i < FLIGHTS; i++)
            if (c->e->flight[i].found == found)
                ledger_append(to, c->e->flight[i].topic, &c->e->flight[i].m);
}

bool verify(struct log *log, struct expect *e, struct outcome *out, char *why)
{
    uint64_t cut = cut_of(log);
    *out = (struct outcome){.ledger = *e->must, .cut = cut};
    struct check c = {.log = log, .e = e, .m = &out->ledger, .why = why};
    if (cut < e->must->number)
        return bad(&c, "recovered up to entry %" PRIu64 ", acked up to %" PRIu64, cut,
                   e->must->number);
    size_t i = 0;
    for (; i < e->tail_count && arrived(&c, &e->tail[i], cut); i++) {
        const struct op *op = &e->tail[i];
        if (op->is_batch)
            ledger_append(&out->ledger, op->topic, &op->batch);
        else if (ledger_control(&out->ledger, &op->control, op->number) != 0)
            abort();
        out->ledger.number = op->last;
    }
    c.may_fly = !e->control && i == e->tail_count;
    if (check_state(&c)) {
        take_flights(&c, &out->ledger);
        return true;
    }
    if (!e->control || i < e->tail_count)
        return false;
    char other[512];
    memcpy(other, why, sizeof other);
    if (ledger_control(&out->ledger, e->control, opened(&c, cut)) != 0)
        return false;
    out->has_control = true;
    if (check_state(&c)) {
        take_flights(&c, &out->ledger);
        return true;
    }
    size_t n = strlen(why);
    snprintf(why + n, 512 - n, " (or: %s)", other);
    return false;
}
