/* What is refused, each with its code, while the connection and what it has go on; and limits of what a
 * peer may have. Frames that make no sense are test_peer.c's, and publishing is others'. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

static struct rig r;

static int setup(void **state)
{
    (void)state;
    r = (struct rig){0};
    rig_start(&r);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(&r);
    return 0;
}

static void make(int fd, uint8_t verb, const char *path)
{
    assert_int_equal(admin(fd, verb, path, NULL, 0, 0, 0, NULL, NULL), 0);
}

static int rename_to(int fd, const char *from, const char *to)
{
    return admin(fd, WIRE_V_RENAME, from, to, 0, 0, 0, NULL, NULL);
}

static void holds(const char *path, const char *text)
{
    struct stream s = read_topic(&r, path);
    assert_int_equal(s.size, strlen(text));
    assert_memory_equal(s.buf, text, s.size);
    free(s.buf);
}

/* A topic with three messages. */
static void letters(int fd, const char *path, uint16_t channel)
{
    const uint32_t lengths[3] = {1, 2, 3};
    open_topic(fd, path, channel, WIRE_S_NONE, 0);
    publish(fd, channel, 1, 0, "abbccc", 6, lengths, 3);
    await_ack(fd, channel, 1);
}

static void renames(void **state)
{
    (void)state;
    int fd = peer(&r, true);
    make(fd, WIRE_V_MKDIR, "full");
    make(fd, WIRE_V_MKDIR, "empty");
    make(fd, WIRE_V_CREATE, "full/t");
    letters(fd, "topic", 1);
    assert_int_equal(rename_to(fd, "missing", "x"), ENOENT);
    assert_int_equal(rename_to(fd, "topic", "missing/x"), ENOENT);
    assert_int_equal(rename_to(fd, "", "x"), EBUSY);
    assert_int_equal(rename_to(fd, "topic", ""), EBUSY);
    assert_int_equal(rename_to(fd, "topic", "empty"), EISDIR);
    assert_int_equal(rename_to(fd, "empty", "topic"), ENOTDIR);
    assert_int_equal(rename_to(fd, "empty", "full"), ENOTEMPTY);
    assert_int_equal(rename_to(fd, "topic", "topic/x"), ENOTDIR);
    assert_int_equal(rename_to(fd, "topic", ".embar/x"), EMBAR_ERESERVED);
    holds("topic", "abbccc");
    assert_int_equal(rename_to(fd, "full", "empty"), 0);
    assert_int_equal(rename_to(fd, "topic", "empty/t"), 0);
    holds("empty/t", "abbccc");
    close(fd);
}

static int trim(int fd, const char *path, uint8_t from, uint64_t value)
{
    return admin(fd, WIRE_V_TRIM, path, NULL, from, value, 0, NULL, NULL);
}

static void trims(void **state)
{
    (void)state;
    int fd = peer(&r, true);
    letters(fd, "topic", 1);
    make(fd, WIRE_V_MKDIR, "dir");
    assert_int_equal(trim(fd, "missing", WIRE_FROM_LATEST, 0), ENOENT);
    assert_int_equal(trim(fd, "dir", WIRE_FROM_LATEST, 0), EISDIR);
    assert_int_equal(trim(fd, "topic", WIRE_FROM_MESSAGE, 4), EMBAR_EINVALID);
    assert_int_equal(trim(fd, "topic", 77, 0), EMBAR_EINVALID);
    assert_int_equal(trim(fd, "topic", WIRE_FROM_EARLIEST, 0), 0);
    assert_int_equal(trim(fd, "topic", WIRE_FROM_TIME, 1), 0); /* before all of it */
    holds("topic", "abbccc");
    assert_int_equal(trim(fd, "topic", WIRE_FROM_MESSAGE, 1), 0);
    holds("topic", "bbccc");
    assert_int_equal(trim(fd, "topic", WIRE_FROM_MESSAGE, 0), 0); /* it is gone already */
    holds("topic", "bbccc");
    assert_int_equal(trim(fd, "topic", WIRE_FROM_TIME, UINT64_MAX / 2), 0); /* behind all */
    holds("topic", "");
    close(fd);
}

static int other_verbs(int fd, uint8_t verb, uint64_t value, uint16_t flags)
{
    return admin(fd, verb, "topic", NULL, 0, value, flags, NULL, NULL);
}

static void verbs(void **state)
{
    (void)state;
    int fd = peer(&r, true);
    letters(fd, "topic", 1);
    assert_int_equal(other_verbs(fd, 99, 0, 0), EMBAR_EINVALID);
    assert_int_equal(other_verbs(fd, WIRE_V_ATTR, 0, 0), EMBAR_EINVALID); /* of nothing */
    assert_int_equal(admin(fd, WIRE_V_LIST, "", NULL, 0, UINT64_MAX, 0, NULL, NULL),
                     EMBAR_EINVALID);
    char *text = NULL;
    assert_int_equal(admin(fd, WIRE_V_LIST, "topic", NULL, 0, 0, 0, NULL, &text), 0);
    assert_non_null(strstr(text, "\"topic\""));
    free(text);
    /* A path that is as long as one may be, and one byte more. */
    char path[MEDIA_MAX_PATH + 2];
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(admin(fd, WIRE_V_CREATE, path, NULL, 0, 0, 0, NULL, NULL), EMBAR_ENAME);
    for (unsigned i = 255; i < MEDIA_MAX_PATH; i += 256)
        path[i] = '/';
    path[MEDIA_MAX_PATH] = '\0';
    path[MEDIA_MAX_PATH - 1] = 'x';
    path[MEDIA_MAX_PATH - 3] = '/';
    assert_int_equal(admin(fd, WIRE_V_CREATE, path, NULL, 0, 0, WIRE_A_PARENTS, NULL, NULL), 0);
    letters(fd, path, 2);
    holds(path, "abbccc");
    holds("topic", "abbccc");
    /* Paths that do not fill their frame. */
    struct wire_admin a = {.verb = WIRE_V_STAT, .path = le16_of(9)};
    send_frame(fd, WIRE_ADMIN, 0, 11, &a, sizeof(a));
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
}

static int refused_open(int fd, const char *path, uint8_t mode, uint64_t session, uint8_t order,
                        uint32_t epoch)
{
    uint8_t b[2048];
    le32 e = le32_of(epoch);
    size_t n = open_bytes(b, path, 7, mode, session, 1);
    memcpy(b + sizeof(struct wire_frame) + offsetof(struct wire_open, epoch), &e, sizeof(e));
    b[sizeof(struct wire_frame) + offsetof(struct wire_open, order)] = order;
    send_bytes(fd, b, n);
    return expect_error(fd);
}

static void opens(void **state)
{
    (void)state;
    int fd = peer(&r, true), second = peer(&r, true);
    make(fd, WIRE_V_MKDIR, "dir");
    letters(fd, "topic", 1);
    struct wire_opened o = open_topic(fd, "session", 2, WIRE_S_NEW, 0);
    uint64_t id = le64_get(o.session);
    uint32_t epoch = le32_get(o.epoch);
    publish(fd, 2, 1, epoch, "kept", 4, NULL, 1);
    await_ack(fd, 2, 1);
    assert_int_equal(refused_open(second, "dir", WIRE_S_NONE, 0, WIRE_ANY, 0), EISDIR);
    assert_int_equal(refused_open(second, "topic/x", WIRE_S_NONE, 0, WIRE_ANY, 0), ENOTDIR);
    assert_int_equal(refused_open(second, "topic", WIRE_S_NONE, 0, 2, 0), EMBAR_EORDER);
    assert_int_equal(refused_open(second, "topic", WIRE_S_RESUME, id, WIRE_ANY, 0), EMBAR_ESESSION);
    assert_int_equal(refused_open(second, "session", WIRE_S_RESUME, id + 1, WIRE_ANY, 0),
                     EMBAR_ESESSION);
    /* An epoch that never was is no reason to go on, one that somebody else has taken is. */
    assert_int_equal(refused_open(second, "session", WIRE_S_RESUME, id, WIRE_ANY, epoch + 1),
                     EMBAR_EFENCED);
    open_topic(second, "session", 3, WIRE_S_RESUME, id); /* takes it */
    assert_int_equal(refused_open(fd, "session", WIRE_S_RESUME, id, WIRE_ANY, epoch), EMBAR_ETAKEN);
    /* The channel that was refused is free. */
    letters(second, "free", 7);
    holds("session", "kept");
    holds("free", "abbccc");
    close(fd);
    close(second);
}

static void subscriptions(void **state)
{
    (void)state;
    uint8_t b[256];
    struct got g;
    int fd = peer(&r, true);
    make(fd, WIRE_V_MKDIR, "dir");
    letters(fd, "topic", 1);
    send_bytes(fd, b, subscribe_bytes(b, "dir", 2, WIRE_FROM_EARLIEST, 0, 0, 0));
    assert_int_equal(expect_error(fd), EISDIR);
    send_bytes(fd, b, subscribe_bytes(b, "topic", 2, WIRE_FROM_OFFSET, 7, 0, 0));
    assert_int_equal(expect_error(fd), EMBAR_EINVALID);
    /* Cancelled while it waits for more: where it ended; and once more, when it is gone. */
    subscribe(fd, "topic", 2, WIRE_FROM_LATEST, 0, 0, 1);
    for (unsigned i = 0; i < 2; i++) {
        struct wire_ok ok;
        send_frame(fd, WIRE_CANCEL, 2, 9, NULL, 0);
        expect(fd, WIRE_OK, &g);
        assert_int_equal(g.length, sizeof(ok));
        memcpy(&ok, g.body, sizeof(ok));
        assert_int_equal(le64_get(ok.value), i ? 0 : 6);
        got_free(&g);
    }
    /* A channel that publishes is no subscription, nor free for one. */
    send_frame(fd, WIRE_CANCEL, 1, 9, NULL, 0);
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    fd = peer(&r, true);
    subscribe(fd, "topic", 2, WIRE_FROM_LATEST, 0, 0, 1);
    send_bytes(fd, b, subscribe_bytes(b, "topic", 2, WIRE_FROM_LATEST, 0, 0, 1));
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
}

/* 256 channels, and no more until one is closed. */
static void channels(void **state)
{
    (void)state;
    enum { MOST = 256 };
    uint8_t b[256];
    struct got g;
    int fd = peer(&r, true);
    for (unsigned i = 1; i <= MOST; i++)
        open_topic(fd, "topic", (uint16_t)i, WIRE_S_NONE, 0);
    send_bytes(fd, b, open_bytes(b, "topic", MOST + 1, WIRE_S_NONE, 0, 1));
    assert_int_equal(expect_error(fd), EMBAR_ELIMIT);
    send_bytes(fd, b, subscribe_bytes(b, "topic", MOST + 1, WIRE_FROM_EARLIEST, 0, 0, 1));
    assert_int_equal(expect_error(fd), EMBAR_ELIMIT);
    send_frame(fd, WIRE_CLOSE, 77, 3, &(struct wire_close){0}, sizeof(struct wire_close));
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    letters(fd, "other", MOST + 1);
    holds("other", "abbccc");
    close(fd);
}

/* A peer that asks and asks and reads no answer is not read from any more, and takes nothing with it. */
static void unread_answers(void **state)
{
    (void)state;
    int fd = peer(&r, true);
    struct wire_admin a = {.verb = WIRE_V_LIST};
    char path[24];
    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(path, sizeof(path), "topic%u", i);
        make(fd, WIRE_V_CREATE, path);
    }
    uint8_t b[sizeof(struct wire_frame) + sizeof(a)];
    struct wire_frame f = wire_frame_of(WIRE_ADMIN, 0, 0, 11, sizeof(a));
    memcpy(b, &f, sizeof(f));
    memcpy(b + sizeof(f), &a, sizeof(a));
    unsigned asked = 0;
    while (asked < 100000 && send(fd, b, sizeof(b), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(b))
        asked++;
    assert_in_range(asked, 10, 99999); /* its socket is full: so ours is, and nobody reads it */
    int other = peer(&r, true);
    letters(other, "other", 1);
    holds("other", "abbccc");
    close(other);
    close(fd);
    until(nobody_is_there, &r);
    /* The bound on what clients have not read is theirs no more. */
    fd = peer(&r, true);
    char *text = NULL;
    assert_int_equal(admin(fd, WIRE_V_LIST, "", NULL, 0, 0, 0, NULL, &text), 0);
    assert_non_null(strstr(text, "topic199"));
    free(text);
    close(fd);
}

/* Many small answers to somebody who reads them late: each comes, in order. */
static void late_reader(void **state)
{
    (void)state;
    enum { PINGS = 30000 };
    struct got g;
    int fd = peer(&r, true);
    unsigned sent = 0, heard = 0;
    while (heard < PINGS) {
        struct wire_frame f = wire_frame_of(WIRE_PING, 0, 0, 1000 + sent, 0);
        if (sent < PINGS && send(fd, &f, sizeof(f), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(f)) {
            sent++;
            continue;
        }
        expect(fd, WIRE_OK, &g);
        assert_int_equal(le64_get(g.f.ref), 1000 + heard++);
        got_free(&g);
    }
    close(fd);
}

static uint64_t errors(void)
{
    struct server_stat st;
    server_stat(r.server, &st);
    return st.errors;
}

static bool has_erred(void *arg)
{
    return errors() > *(const uint64_t *)arg;
}

/* Nonsense while a DATA frame is half sent: no ERROR can come in the middle of it, so the stream ends. */
static void nonsense_in_the_middle(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    uint8_t *data = malloc(SIZE), b[256];
    struct got g;
    struct stream s = {0};
    fill(data, SIZE, 9);
    int fd = peer(&r, true), sub = peer(&r, true);
    open_topic(fd, "large", 1, WIRE_S_NONE, 0);
    publish(fd, 1, 1, 0, data, SIZE, NULL, 1);
    await_ack(fd, 1, 1);
    send_bytes(sub, b, subscribe_bytes(b, "large", 2, WIRE_FROM_EARLIEST, 0, 0, 0));
    expect(sub, WIRE_SUBSCRIBE, &g);
    got_free(&g);
    assert_int_equal(recv(sub, b, 1, MSG_PEEK), 1); /* it has begun, and cannot be all there */
    uint64_t before = errors();
    send_frame(sub, 99, 0, 1, NULL, 0);
    until(has_erred, &before);
    while (receive(sub, &g)) {
        assert_int_equal(g.f.type, WIRE_DATA);
        stream_add(&s, &g);
        got_free(&g);
    }
    assert_in_range(s.size, 0, SIZE - 1);
    free(s.buf);
    struct stream all = read_topic(&r, "large");
    assert_int_equal(all.size, SIZE);
    assert_memory_equal(all.buf, data, SIZE);
    free(all.buf);
    free(data);
    close(sub);
    close(fd);
}

/* Refused, and it goes on sending, more than one turn drops: it is told, and gone in the end. */
static void refused_and_goes_on(void **state)
{
    (void)state;
    enum { MORE = 3 << 20 };
    struct got g;
    uint8_t *more = calloc(1, MORE);
    int fd = peer(&r, false);
    send_frame(fd, 99, 0, 1, NULL, 0);
    send_bytes(fd, more, MORE);
    assert_true(receive(fd, &g));
    assert_int_equal(g.f.type, WIRE_ERROR);
    got_free(&g);
    assert_false(receive(fd, &g));
    send_bytes(fd, more, MORE); /* still dropped: a reset could take the ERROR with it */
    close(fd);
    until(nobody_is_there, &r);
    free(more);
}

/* Who speaks another version is told which one is spoken here. */
static void another_version(void **state)
{
    (void)state;
    uint8_t b[128];
    char words[32];
    struct got g;
    le16 next = le16_of(WIRE_VERSION + 1);
    size_t n = hello_bytes(&r, b, true);
    memcpy(b + sizeof(struct wire_frame) + offsetof(struct wire_hello, version), &next, 2);
    memcpy(b + sizeof(struct wire_frame) + offsetof(struct wire_hello, oldest), &next, 2);
    int fd = dial_tcp(&r);
    send_bytes(fd, b, n);
    assert_true(receive(fd, &g));
    assert_int_equal(g.f.type, WIRE_ERROR);
    (void)snprintf(words, sizeof(words), "speaks version %u of", WIRE_VERSION);
    assert_non_null(strstr((const char *)g.body + sizeof(struct wire_error), words));
    got_free(&g);
    assert_false(receive(fd, &g));
    close(fd);
    /* A HELLO that ends before its fields do. */
    fd = dial_tcp(&r);
    send_frame(fd, WIRE_HELLO, 0, 1, b, 5);
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
}

int main(void)
{
#define WITH_RIG(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_RIG(another_version),
        WITH_RIG(renames),
        WITH_RIG(trims),
        WITH_RIG(verbs),
        WITH_RIG(opens),
        WITH_RIG(subscriptions),
        WITH_RIG(channels),
        WITH_RIG(unread_answers),
        WITH_RIG(late_reader),
        WITH_RIG(nonsense_in_the_middle),
        WITH_RIG(refused_and_goes_on),
    };
    return cmocka_run_group_tests_name("server refused", tests, NULL, NULL);
}
