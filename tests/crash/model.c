/* The model's check; see model.h. Must never accept what was acked and is not there. */
#include "tests/crash/model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/crc.h"

static const char *why(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static const char *why(const char *fmt, ...)
{
    static char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return text;
}

/* Eight bytes of a topic, at an offset that is a multiple of eight. */
static uint64_t word_at(uint32_t id, uint64_t offset)
{
    uint64_t z = offset + (uint64_t)id * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    return z ^ (z >> 29);
}

void model_fill(uint32_t id, uint64_t offset, void *to, uint32_t n)
{
    char *out = to;
    while (n > 0) {
        uint64_t word = word_at(id, offset & ~7ull);
        uint32_t skip = (uint32_t)(offset & 7);
        uint32_t take = 8 - skip < n ? 8 - skip : n;
        memcpy(out, (char *)&word + skip, take);
        out += take;
        offset += take;
        n -= take;
    }
}

void model_trim(struct model_topic *t, uint64_t base)
{
    t->base = base;
    while (t->head != t->tail && t->batch[t->head % MODEL_BATCHES].offset < base)
        t->head++;
}

/* A batch's bytes in the pool against what was published. */
static const char *check_bytes(const struct model_topic *t, const struct batch_view *v)
{
    char want[4096];
    uint64_t at = v->offset;
    for (int i = 0; i < v->data.pieces; i++) {
        const char *p = v->data.iov[i].iov_base;
        size_t left = v->data.iov[i].iov_len;
        while (left > 0) {
            uint32_t n = left < sizeof(want) ? (uint32_t)left : (uint32_t)sizeof(want);
            model_fill(t->id, at, want, n);
            if (memcmp(want, p, n) != 0)
                return why("topic %u: wrong bytes near offset %" PRIu64, t->id, at);
            at += n;
            p += n;
            left -= n;
        }
    }
    return at == v->offset + v->length ? NULL : why("topic %u: a batch is short", t->id);
}

static const char *check_batch(const struct model_topic *t, struct topic *topic,
                               struct batch_cursor *c, const struct model_batch *b)
{
    struct batch_view v;
    int rc = topic_next(topic, c, &v);
    if (rc != 1)
        return why("topic %u: batch at %" PRIu64 " is not there (%d)", t->id, b->offset, rc);
    const char *bad = NULL;
    if (v.offset != b->offset || v.length != b->length || v.count != b->count ||
        v.message != b->message)
        bad = why("topic %u: offset %" PRIu64 ", %u bytes, message %" PRIu64 " and %u more, are "
                  "shown as offset %" PRIu64 ", %u, %" PRIu64 " and %u",
                  t->id, b->offset, b->length, b->message, b->count - 1, v.offset, v.length,
                  v.message, v.count - 1);
    if (!bad)
        bad = check_bytes(t, &v);
    read_release(&v.data);
    return bad;
}

/* How many batches in flight the topic's end says are there; -1: it is no batch's end. */
static int arrived(const struct model_topic *t, uint64_t end)
{
    uint64_t at = t->end;
    for (unsigned i = 0; i <= t->in_flight; i++) {
        if (at == end)
            return (int)i;
        if (i < t->in_flight)
            at += t->flight[i].length;
    }
    return -1;
}

static const char *check_session(const struct model *m, const struct model_topic *t,
                                 struct log *log, unsigned n)
{
    if (!t->session)
        return NULL;
    struct session_stat st;
    int rc = log_session(log, t->session, &st);
    if (rc)
        return why("topic %u: its session is unknown (%d)", t->id, rc);
    uint64_t sequence = t->sequence;
    uint64_t messages = t->session_messages;
    for (unsigned i = 0; i < n; i++) {
        sequence += t->flight[i].in_session;
        messages += t->flight[i].in_session ? t->flight[i].count : 0;
    }
    if (st.sequence != sequence || st.messages != messages)
        return why("topic %u: session at %" PRIu64 " with %" PRIu64 " messages, not %" PRIu64
                   " with %" PRIu64,
                   t->id, st.sequence, st.messages, sequence, messages);
    bool fencing = m->kind == MEDIA_C_FENCE && &m->topic[m->subject] == t;
    if (st.epoch != t->epoch && !(fencing && st.epoch == t->epoch + 1))
        return why("topic %u: session epoch %u, not %u", t->id, st.epoch, t->epoch);
    return NULL;
}

static const char *check_content(const struct model *m, const struct model_topic *t,
                                 struct log *log, struct topic *topic)
{
    uint64_t base = topic_base(topic);
    uint64_t end = topic_end(topic);
    bool trimming = m->kind == MEDIA_C_TRIM && &m->topic[m->subject] == t;
    if (base != t->base && !(trimming && base == m->new_base))
        return why("topic %u: base %" PRIu64 ", not %" PRIu64, t->id, base, t->base);
    int n = arrived(t, end);
    if (n < 0)
        return why("topic %u: end %" PRIu64 ", acked to %" PRIu64, t->id, end, t->end);
    struct batch_cursor c = {.offset = base};
    for (unsigned i = t->head; i != t->tail; i++) {
        const struct model_batch *b = &t->batch[i % MODEL_BATCHES];
        if (b->offset < base)
            continue;
        if (c.offset == base)
            c.message = b->message;
        const char *bad = check_batch(t, topic, &c, b);
        if (bad)
            return bad;
    }
    for (int i = 0; i < n; i++) {
        const char *bad = check_batch(t, topic, &c, &t->flight[i]);
        if (bad)
            return bad;
    }
    struct batch_view v;
    if (topic_next(topic, &c, &v) != 0)
        return why("topic %u: something stands behind its end", t->id);
    return check_session(m, t, log, (unsigned)n);
}

static const char *check_topic(const struct model *m, unsigned i, struct log *log, unsigned *seen)
{
    const struct model_topic *t = &m->topic[i];
    bool subject = m->kind && m->subject == i;
    struct node_stat st;
    if (!t->exists) {
        if (!subject || m->kind != MEDIA_C_CREATE)
            return NULL;
        if (log_lookup(log, LOG_ROOT_ID, m->new_name, strlen(m->new_name), &st) != 0)
            return NULL;
        ++*seen;
        return st.end == 0 ? NULL : why("a topic being made has bytes");
    }
    int rc = log_stat(log, t->id, &st);
    if (rc)
        return subject && m->kind == MEDIA_C_REMOVE
                   ? NULL
                   : why("topic %u (%s) is not there (%d)", t->id, t->name, rc);
    ++*seen;
    if (strcmp(st.name, t->name) != 0 &&
        !(subject && m->kind == MEDIA_C_RENAME && strcmp(st.name, m->new_name) == 0))
        return why("topic %u is called %s, not %s", t->id, st.name, t->name);
    struct node_stat by_name;
    if (log_lookup(log, LOG_ROOT_ID, st.name, strlen(st.name), &by_name) != 0 ||
        by_name.id != t->id)
        return why("topic %u is not found by its name %s", t->id, st.name);
    struct topic *topic = log_topic(log, t->id);
    if (!topic)
        return why("topic %u cannot be opened", t->id);
    const char *bad = check_content(m, t, log, topic);
    topic_put(topic);
    return bad;
}

const char *model_check(const struct model *m, struct log *log)
{
    unsigned seen = 0;
    for (unsigned i = 0; i < MODEL_TOPICS; i++) {
        const char *bad = check_topic(m, i, log, &seen);
        if (bad)
            return bad;
    }
    struct node_stat st[MODEL_TOPICS + 4];
    int n = log_list(log, LOG_ROOT_ID, 0, st, MODEL_TOPICS + 4);
    return n == (int)seen ? NULL : why("%d topics are listed, %u known", n, seen);
}
