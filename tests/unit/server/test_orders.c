/* Orders 0 and 2 over the wire: batches are committed as they come, acks name those behind a gap by
 * their bits, duplicates are told as done, a new process goes on above what was ever committed. And
 * what a topic leaves to its publishers: the ack, and with it the session.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

static void make_topic(struct rig *r, const char *name, uint8_t order, uint8_t ack)
{
    struct control c = {
        .kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = order, .ack = ack};
    struct commit commit;
    memcpy(c.name, name, strlen(name) + 1);
    assert_int_equal(log_control_wait(r->log, &c, &commit), 0);
}

/* An ACK with its bits taken apart: which sequences it covers. */
struct heard {
    uint64_t mark, messages;
    unsigned words;
    bool done[2048]; /* by sequence */
};

static void hear(int fd, struct heard *h)
{
    struct got g;
    struct wire_ack a;
    assert_true(receive(fd, &g));
    assert_int_equal(g.f.type, WIRE_ACK);
    assert_true(g.length >= sizeof(a));
    memcpy(&a, g.body, sizeof(a));
    assert_int_equal(wire_ack_check(&a, g.length), 0);
    memset(h, 0, sizeof(*h));
    h->mark = le64_get(a.sequence);
    h->messages = le64_get(a.messages);
    h->words = le32_get(a.words);
    for (uint64_t s = 1; s <= h->mark; s++)
        h->done[s] = true;
    for (uint64_t i = 0; i < 64ull * h->words; i++) {
        le64 word;
        memcpy(&word, g.body + sizeof(a) + i / 64 * 8, sizeof(word));
        if (le64_get(word) >> (i % 64) & 1)
            h->done[h->mark + 1 + i] = true;
    }
    got_free(&g);
}

/* Hear ACKs until one covers this batch; then it must say exactly this of all others. */
static void hear_done(int fd, uint64_t sequence, uint64_t mark, uint64_t messages,
                      const uint64_t *ahead, unsigned n)
{
    struct heard h;
    do
        hear(fd, &h);
    while (!h.done[sequence]);
    assert_int_equal(h.mark, mark);
    assert_int_equal(h.messages, messages);
    for (unsigned i = 0; i < n; i++) {
        assert_true(h.done[ahead[i]]);
        h.done[ahead[i]] = false;
    }
    for (uint64_t s = mark + 1; s < 2048; s++)
        assert_false(h.done[s]);
    assert_int_equal(h.words, n == 0 ? 0 : (ahead[n - 1] - mark - 1) / 64 + 1);
}

static void send_batch(int fd, uint64_t sequence, uint32_t epoch)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%04u", (unsigned)sequence);
    publish(fd, 1, sequence, epoch, text, (uint32_t)n, NULL, 2); /* two messages */
}

/* The topic holds these batches, in this order. */
static void holds(const struct rig *r, const char *topic, const uint64_t *sequences, unsigned n)
{
    struct stream s = read_topic(r, topic);
    assert_int_equal(s.size, 4 * n);
    for (unsigned i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%04u", (unsigned)sequences[i]);
        assert_memory_equal(s.buf + 4 * (size_t)i, text, 4);
    }
    free(s.buf);
}

static void acked_ahead(uint8_t order)
{
    struct rig r = {.hold_ms = 60000}; /* nothing is held: nobody waits for it */
    rig_start(&r);
    make_topic(&r, "t", order, 1);
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    assert_int_equal(o.order, order);
    uint32_t epoch = le32_get(o.epoch);
    send_batch(fd, 1, epoch);
    hear_done(fd, 1, 1, 2, NULL, 0);
    send_batch(fd, 3, epoch);
    hear_done(fd, 3, 1, 2, (const uint64_t[]){3}, 1);
    send_batch(fd, 70, epoch);
    hear_done(fd, 70, 1, 2, (const uint64_t[]){3, 70}, 2);
    send_batch(fd, 4, epoch);
    hear_done(fd, 4, 1, 2, (const uint64_t[]){3, 4, 70}, 3);
    /* The window's last number; the one behind it is refused, and that channel is broken. */
    send_batch(fd, 1 + WIRE_WINDOW, epoch);
    hear_done(fd, 1 + WIRE_WINDOW, 1, 2, (const uint64_t[]){3, 4, 70, 1 + WIRE_WINDOW}, 4);
    holds(&r, "t", (const uint64_t[]){1, 3, 70, 4, 1 + WIRE_WINDOW}, 5);

    /* Sent again: done, and not there twice. */
    send_batch(fd, 70, epoch);
    hear_done(fd, 70, 1, 2, (const uint64_t[]){3, 4, 70, 1 + WIRE_WINDOW}, 4);

    /* Another connection hears of its own batches only, new ones and duplicates. */
    int other = peer(&r, false);
    o = join_session(other, "t", 1, le64_get(o.session), epoch);
    assert_int_equal(le64_get(o.sequence), 1);
    assert_int_equal(le64_get(o.messages), 2);
    send_batch(other, 6, epoch);
    hear_done(other, 6, 1, 2, (const uint64_t[]){6}, 1);
    send_batch(other, 3, epoch);
    hear_done(other, 3, 1, 2, (const uint64_t[]){3, 6}, 2);
    /* The gap is filled, as far as the next one. */
    send_batch(other, 2, epoch);
    hear_done(other, 2, 4, 8, (const uint64_t[]){6}, 1);
    send_batch(fd, 5, epoch);
    hear_done(fd, 5, 6, 12, (const uint64_t[]){70, 1 + WIRE_WINDOW}, 2);
    for (uint64_t s = 7; s < 70; s++)
        send_batch(other, s, epoch);
    struct heard h;
    do
        hear(other, &h);
    while (h.mark < 70);
    assert_int_equal(h.messages, 140);
    assert_int_equal(h.words, 0);

    uint64_t all[75] = {1, 3, 70, 4, 1 + WIRE_WINDOW, 6, 2, 5};
    for (unsigned i = 8; i < 71; i++)
        all[i] = i - 1;
    holds(&r, "t", all, 71);
    send_batch(fd, 71 + WIRE_WINDOW, epoch);
    struct got g;
    expect(fd, WIRE_ERROR, &g);
    struct wire_error e;
    memcpy(&e, g.body, sizeof(e));
    assert_int_equal(le32_get(e.code), EMBAR_ELIMIT);
    got_free(&g);
    close(fd);
    close(other);
    rig_stop(&r);
}

static void order_2(void **state)
{
    (void)state;
    acked_ahead(2);
}

static void order_0(void **state)
{
    (void)state;
    acked_ahead(0);
}

/* A connection breaks with batches acked ahead and others not: the next one sends the rest. */
static void reconnected(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    make_topic(&r, "t", 2, 1);
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    uint32_t epoch = le32_get(o.epoch);
    send_batch(fd, 1, epoch);
    send_batch(fd, 3, epoch);
    hear_done(fd, 3, 1, 2, (const uint64_t[]){3}, 1);
    close(fd);
    fd = peer(&r, false);
    o = join_session(fd, "t", 1, le64_get(o.session), epoch);
    assert_int_equal(le64_get(o.sequence), 1);
    send_batch(fd, 2, epoch);
    hear_done(fd, 2, 3, 6, NULL, 0);
    send_batch(fd, 4, epoch);
    hear_done(fd, 4, 4, 8, NULL, 0);
    holds(&r, "t", (const uint64_t[]){1, 3, 2, 4}, 4);
    close(fd);
    rig_stop(&r);
}

/* A new process hears how much of the stream is there without a gap, and numbers on above all. */
static void a_new_process(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    make_topic(&r, "t", 2, 1);
    int old = peer(&r, true);
    struct wire_opened o = open_topic(old, "t", 1, WIRE_S_NEW, 0);
    uint32_t epoch = le32_get(o.epoch);
    send_batch(old, 1, epoch);
    send_batch(old, 5, epoch);
    hear_done(old, 5, 1, 2, (const uint64_t[]){5}, 1);
    int fd = peer(&r, true);
    struct wire_opened n = open_topic(fd, "t", 1, WIRE_S_RESUME, le64_get(o.session));
    assert_int_equal(le64_get(n.sequence), 5);
    assert_int_equal(le64_get(n.messages), 2);
    assert_int_not_equal(le32_get(n.epoch), epoch);
    send_batch(old, 2, epoch); /* too late */
    assert_int_equal(expect_error(old), EMBAR_ETAKEN);
    send_batch(fd, 6, le32_get(n.epoch));
    hear_done(fd, 6, 6, 4, NULL, 0);
    holds(&r, "t", (const uint64_t[]){1, 5, 6}, 3);
    close(old);
    close(fd);
    rig_stop(&r);
}

static struct wire_opened open_as(int fd, const char *path, uint8_t mode, uint8_t ack)
{
    uint8_t b[256];
    struct got g;
    struct wire_opened o;
    send_bytes(fd, b, open_bytes(b, path, 1, mode, 0, ack));
    expect(fd, WIRE_OPEN, &g);
    assert_int_equal(g.length, sizeof(o));
    memcpy(&o, g.body, sizeof(o));
    got_free(&g);
    struct wire_close k = {0};
    send_frame(fd, WIRE_CLOSE, 1, 3, &k, sizeof(k));
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    return o;
}

static void the_topics_own_ack(void **state)
{
    (void)state;
    struct rig r = {0};
    uint8_t b[256];
    rig_start(&r);
    make_topic(&r, "zero", 5, 0);
    make_topic(&r, "one", 5, 1);
    make_topic(&r, "two", 5, 2);
    int fd = peer(&r, true);
    static const struct {
        const char *topic;
        uint8_t mode, ack, given;
        bool session;
    } cases[] = {
        {"zero", WIRE_S_AUTO, WIRE_ANY, 0, false}, {"zero", WIRE_S_AUTO, 1, 1, true},
        {"zero", WIRE_S_NEW, WIRE_ANY, 1, true},   {"zero", WIRE_S_NONE, WIRE_ANY, 0, false},
        {"one", WIRE_S_AUTO, WIRE_ANY, 1, true},   {"one", WIRE_S_AUTO, 0, 0, false},
        {"one", WIRE_S_NONE, WIRE_ANY, 1, false},  {"two", WIRE_S_AUTO, 1, 1, true},
        {"new", WIRE_S_AUTO, WIRE_ANY, 1, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_opened o = open_as(fd, cases[i].topic, cases[i].mode, cases[i].ack);
        assert_int_equal(o.ack, cases[i].given);
        assert_int_equal(le64_get(o.session) != 0, cases[i].session);
    }
    send_bytes(fd, b, open_bytes(b, "two", 1, WIRE_S_AUTO, 0, WIRE_ANY));
    assert_int_equal(expect_error(fd), EMBAR_EACK);
    send_bytes(fd, b, open_bytes(b, "unmade", 1, WIRE_S_AUTO, 0, 2));
    assert_int_equal(expect_error(fd), EMBAR_EACK);
    struct node_stat st;
    assert_int_not_equal(log_resolve(r.log, "unmade", &st), 0); /* a refusal makes no topic */
    close(fd);
    rig_stop(&r);
}

/* The table is full: refused at once, and who has a session goes on. */
static void no_more_sessions(void **state)
{
    (void)state;
    struct rig r = {.sessions = 2};
    uint8_t b[256];
    rig_start(&r);
    int fd = peer(&r, true);
    struct wire_opened first = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    open_topic(fd, "t", 2, WIRE_S_NEW, 0);
    for (unsigned i = 0; i < 3; i++) {
        send_bytes(fd, b, open_bytes(b, "t", 3, WIRE_S_NEW, 0, 1));
        assert_int_equal(expect_error(fd), EMBAR_ELIMIT);
    }
    open_topic(fd, "t", 3, WIRE_S_NONE, 0); /* needs none */
    publish(fd, 1, 1, le32_get(first.epoch), "one", 3, NULL, 1);
    await_ack(fd, 1, 1);
    struct wire_close k = {.forget = 1};
    struct got g;
    send_frame(fd, WIRE_CLOSE, 2, 3, &k, sizeof(k));
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    open_topic(fd, "t", 2, WIRE_S_NEW, 0);
    close(fd);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_2),
        cmocka_unit_test(order_0),
        cmocka_unit_test(reconnected),
        cmocka_unit_test(a_new_process),
        cmocka_unit_test(the_topics_own_ack),
        cmocka_unit_test(no_more_sessions),
    };
    return cmocka_run_group_tests_name("server orders", tests, NULL, NULL);
}
