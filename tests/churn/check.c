/* What the campaign knows without having stored it, compared with what the log shows. */
#include <inttypes.h>

#include "tests/churn/churn.h"
#include "tests/churn/oracle.h"

static void check_view(struct churn *c, const struct read_view *v, uint32_t id, uint64_t at)
{
    for (int i = 0; i < v->pieces; i++) {
        if (!oracle_equal(id, at, v->iov[i].iov_base, v->iov[i].iov_len))
            churn_fail(c, "topic %u: wrong bytes from %" PRIu64 " on", id, at);
        at += v->iov[i].iov_len;
        c->counts.read += v->iov[i].iov_len;
    }
}

void churn_read(struct churn *c, struct churn_topic *k, uint64_t at, uint64_t n)
{
    while (n > 0) {
        struct read_view v;
        int rc = topic_read(k->t, at, n, &v);
        if (rc || v.bytes == 0 || v.bytes > n)
            churn_fail(c, "topic %u: reading at %" PRIu64 " of %" PRIu64 "..%" PRIu64 ": %d", k->id,
                       at, k->base, k->end, rc);
        check_view(c, &v, k->id, at);
        at += v.bytes;
        n -= v.bytes;
        read_release(&v);
    }
}

void churn_pin(struct churn *c, struct churn_pin *p, struct churn_topic *k)
{
    p->at = k->base + churn_draw(c) % (k->end - k->base);
    p->id = k->id;
    int rc = topic_read(k->t, p->at, 1 + churn_below(c, 1 << 20), &p->view);
    if (rc)
        churn_fail(c, "topic %u: pinning at %" PRIu64 ": %d", k->id, p->at, rc);
    p->held = true;
}

void churn_unpin(struct churn *c, struct churn_pin *p)
{
    if (!p->held)
        return;
    check_view(c, &p->view, p->id, p->at);
    read_release(&p->view);
    p->held = false;
}

void churn_follow(struct churn *c, struct churn_topic *k)
{
    struct node_stat st;
    int rc = log_stat(c->log, k->id, &st);
    if (rc || st.end != k->end || st.messages != k->messages)
        churn_fail(c,
                   "topic %u ends at %" PRIu64 " with message %" PRIu64 ", not %" PRIu64
                   " with %" PRIu64 " (%d)",
                   k->id, st.end, st.messages, k->end, k->messages, rc);
    if (st.base == k->base && st.first == k->first)
        return;
    uint64_t left = st.end - st.base;
    bool lawful = st.base > k->base && st.base <= st.end && st.first > k->first;
    bool by_bytes = k->keep && left >= k->keep;
    /* The newest batch is kept while it is young. */
    bool by_age = k->age && (left > 0 || k->written + k->age <= c->clock);
    if (!lawful || (!k->policy && !by_bytes && !by_age))
        churn_fail(c,
                   "topic %u was trimmed from %" PRIu64 " to %" PRIu64 " of %" PRIu64
                   ", keeping %" PRIu64 " bytes, %" PRIu64 " ns, policy %u",
                   k->id, k->base, st.base, st.end, k->keep, k->age, k->policy);
    c->counts.retained += st.base - k->base;
    c->live -= st.base - k->base;
    k->base = st.base;
    k->first = st.first;
}

/* The base is where a message begins, and that message has the number that the log says. */
static void check_base(struct churn *c, struct churn_topic *k)
{
    struct batch_cursor at = {.offset = k->base};
    struct batch_view v;
    if (k->base == k->end)
        return;
    int rc = topic_next(k->t, &at, &v);
    if (rc != 1)
        churn_fail(c, "topic %u: the batch at its base: %d", k->id, rc);
    uint64_t offset = v.offset, message = v.message;
    for (uint32_t i = 0; i < v.count && offset < k->base; i++, message++)
        offset += v.lengths ? le32_get(v.lengths[i]) : v.length / v.count;
    if (offset != k->base || message != k->first)
        churn_fail(c,
                   "topic %u begins at %" PRIu64 " with message %" PRIu64 ", but %" PRIu64
                   " begins at %" PRIu64,
                   k->id, k->base, k->first, message, offset);
    check_view(c, &v.data, k->id, v.offset);
    read_release(&v.data);
}

static void check_session(struct churn *c, const struct churn_topic *k)
{
    struct session_stat st;
    if (k->session && (log_session(c->log, k->session, &st) || st.sequence != k->sequence ||
                       st.messages != k->session_messages))
        churn_fail(c, "session %" PRIu64 " of topic %u is not where it was", k->session, k->id);
}

void churn_verify(struct churn *c)
{
    uint64_t live = 0;
    for (unsigned i = 0; i < c->topics; i++) {
        struct churn_topic *k = &c->topic[i];
        if (!k->t)
            continue;
        churn_follow(c, k);
        check_base(c, k);
        churn_read(c, k, k->base, k->end - k->base);
        check_session(c, k);
        live += k->end - k->base;
    }
    if (live != c->live)
        churn_fail(c, "%" PRIu64 " bytes are kept, not %" PRIu64, live, c->live);
    c->counts.verified++;
}
