/* The plain counterpart of a topic: see model.h. */
#include "tests/unit/core/model.h"

#include <string.h>

#include "core/crc.h"

static void grow(void *array, size_t *capacity, size_t need, size_t each)
{
    if (need <= *capacity)
        return;
    *capacity = need * 2;
    void **p = array;
    *p = realloc(*p, *capacity * each);
    assert_non_null(*p);
}

void model_append(struct model_topic *m, const void *data, uint32_t length, const uint32_t *lengths,
                  uint32_t count)
{
    grow(&m->bytes, &m->bytes_capacity, m->end + length - m->kept, 1);
    memcpy(m->bytes + (m->end - m->kept), data, length);
    grow(&m->ends, &m->ends_capacity, m->messages + count - m->ends_from, sizeof *m->ends);
    for (uint32_t i = 0; i < count; i++) {
        m->end += lengths ? lengths[i] : length / count;
        m->ends[m->messages++ - m->ends_from] = m->end;
    }
}

void model_unappend(struct model_topic *m, uint32_t length, uint32_t count)
{
    m->end -= length;
    m->messages -= count;
}

/* Number of the message that holds `offset`: the first that ends above it. */
static uint64_t message_at(const struct model_topic *m, uint64_t offset)
{
    uint64_t low = m->first, high = m->messages;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (m->ends[mid - m->ends_from] <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static uint64_t begins(const struct model_topic *m, uint64_t message)
{
    return message == m->first ? m->base : m->ends[message - 1 - m->ends_from];
}

uint64_t model_boundary(const struct model_topic *m, uint64_t offset)
{
    if (offset <= m->base)
        return m->base;
    return offset >= m->end ? m->end : begins(m, message_at(m, offset));
}

void model_trim(struct model_topic *m, uint64_t base)
{
    m->first = message_at(m, base);
    m->base = base;
    if (m->base - m->kept > 1 << 20) {
        memmove(m->bytes, m->bytes + (m->base - m->kept), m->end - m->base);
        m->kept = m->base;
        memmove(m->ends, m->ends + (m->first - m->ends_from),
                (m->messages - m->first) * sizeof *m->ends);
        m->ends_from = m->first;
    }
}

void model_free(struct model_topic *m)
{
    free(m->bytes);
    free(m->ends);
    memset(m, 0, sizeof *m);
}

static void check_view(const struct model_topic *m, const struct read_view *v, uint64_t at)
{
    size_t n = 0;
    for (int i = 0; i < v->pieces; i++) {
        if (at + n >= m->kept)
            assert_memory_equal(v->iov[i].iov_base, m->bytes + (at + n - m->kept),
                                v->iov[i].iov_len);
        n += v->iov[i].iov_len;
    }
    assert_int_equal(n, v->bytes);
}

static void check_bytes(const struct model_topic *m, struct topic *t, struct draws *d)
{
    struct read_view v;
    uint64_t at = m->base;
    while (at < m->end) {
        uint32_t max = one_in(d, 8) ? 1 + pick(d, 7) : 1 + pick(d, 1 << 17);
        assert_int_equal(topic_read(t, at, max, &v), 0);
        assert_true(v.bytes > 0 && v.bytes <= max && v.bytes <= m->end - at);
        if (v.pieces < READ_PIECES)
            assert_int_equal(v.bytes, max < m->end - at ? max : m->end - at);
        check_view(m, &v, at);
        at += v.bytes;
        read_release(&v);
    }
    assert_int_equal(topic_read(t, m->end, 100, &v), 0);
    assert_int_equal(v.bytes, 0);
    if (m->base > 0)
        assert_int_equal(topic_read(t, m->base - 1, 1, &v), -EMBAR_ETRIMMED);
}

static void check_batch(const struct model_topic *m, const struct batch_view *v)
{
    uint64_t at = v->offset;
    for (uint32_t i = 0; i < v->count; i++) {
        at += v->lengths ? le32_get(v->lengths[i]) : v->length / v->count;
        if (v->message + i >= m->ends_from)
            assert_int_equal(at, m->ends[v->message + i - m->ends_from]);
    }
    assert_int_equal(at, v->offset + v->length);
    check_view(m, &v->data, v->offset);
    uint32_t crc = 0;
    for (int i = 0; i < v->data.pieces; i++)
        crc = crc32c(crc, v->data.iov[i].iov_base, v->data.iov[i].iov_len);
    assert_int_equal(crc, v->payload_crc);
}

static void check_batches(const struct model_topic *m, struct topic *t, struct draws *d)
{
    struct batch_cursor c = {.offset = m->base};
    struct batch_view v;
    uint64_t at = m->base;
    int rc;
    while ((rc = topic_next(t, &c, &v)) == 1) {
        /* The first may begin below the base. */
        assert_true(at == m->base ? v.offset <= at : v.offset == at);
        assert_true(v.offset + v.length > at);
        check_batch(m, &v);
        at = v.offset + v.length;
        read_release(&v.data);
        assert_int_equal(c.offset, at);
        assert_int_equal(c.message, v.message + v.count);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(at, m->end);
    for (int i = 0; i < 4 && m->base < m->end; i++) {
        uint64_t inside = m->base + draw(d) % (m->end - m->base);
        c = (struct batch_cursor){.offset = inside};
        assert_int_equal(topic_next(t, &c, &v), 1);
        assert_true(v.offset <= inside && inside < v.offset + v.length);
        check_batch(m, &v);
        read_release(&v.data);
    }
}

static void check_seeks(const struct model_topic *m, struct topic *t, struct draws *d)
{
    uint64_t at;
    for (int i = 0; i < 6; i++) {
        uint64_t n = m->first + draw(d) % (m->messages - m->first + 1);
        assert_int_equal(topic_seek_message(t, n, &at), 0);
        assert_int_equal(at, begins(m, n));
    }
    assert_int_equal(topic_seek_message(t, m->messages, &at), 0);
    assert_int_equal(at, m->end);
    assert_int_equal(topic_seek_message(t, m->messages + 1, &at), -EMBAR_EINVALID);
    if (m->first > 0)
        assert_int_equal(topic_seek_message(t, m->first - 1, &at), -EMBAR_ETRIMMED);
    assert_int_equal(topic_seek_time(t, 0, &at), 0);
    assert_int_equal(at, m->base);
    assert_int_equal(topic_seek_time(t, UINT64_MAX, &at), 0);
    assert_int_equal(at, m->end);
}

void model_check(const struct model_topic *m, struct topic *t, struct draws *d)
{
    assert_int_equal(topic_base(t), m->base);
    assert_int_equal(topic_end(t), m->end);
    check_bytes(m, t, d);
    check_batches(m, t, d);
    check_seeks(m, t, d);
}
