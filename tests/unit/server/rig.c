/* The test server and the raw client: see rig.h. */
#include "tests/unit/server/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc.h"

void rig_start(struct rig *r)
{
    struct embar_error err = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(r->dir, sizeof(r->dir), "%s/embar-server-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->socket, sizeof(r->socket), "%s/s", r->dir);
    snprintf(r->file, sizeof(r->file), "%s/pool", r->dir);
    struct region_options ro = {.spec = r->file_size ? r->file
                                        : r->spec    ? r->spec
                                                     : "mem:64M",
                                .size = r->file_size,
                                .create = r->file_size > 0,
                                .durability = r->file_size ? MEDIA_DURABLE_MACHINE : -1};
    int rc = region_open(&r->region, &ro, &err);
    if (rc)
        fail_msg("region_open: %s", err.text);
    struct log_options lo = {
        .region = &r->region, .geo = r->geo, .hold_ms = r->hold_ms, .sessions = r->sessions};
    rc = log_open(&r->log, &lo, &err);
    if (rc)
        fail_msg("log_open: %s", err.text);
    fill(r->token, sizeof(r->token), 77);
    struct server_options so = {.log = r->log,
                                .listen = "127.0.0.1:0",
                                .unix_path = r->socket,
                                .token = r->token,
                                .workers = r->workers ? r->workers : 2,
                                .staging = r->staging,
                                .tick_ms = r->tick_ms,
                                .auto_create = !r->no_auto_create,
                                .ack_max = 1,
                                .note = r->note,
                                .note_arg = r};
    rc = server_start(&r->server, &so, &err);
    if (rc)
        fail_msg("server_start: %s", err.text);
}

void rig_stop(struct rig *r)
{
    server_stop(r->server);
    assert_int_not_equal(access(r->socket, F_OK), 0);
    log_close(r->log);
    region_close(&r->region);
    if (r->file_size)
        assert_int_equal(unlink(r->file), 0);
    assert_int_equal(rmdir(r->dir), 0);
}

/* The fixed part of a frame's body. */
static void take(void *to, const struct got *g, size_t n)
{
    if (!g->body || g->length < n)
        abort(); /* the callers have checked it */
    memcpy(to, g->body, n);
}

/* Bytes of a counted string: no NUL goes with them. */
static void put_text(uint8_t *to, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)text[i];
}

void got_free(struct got *g)
{
    free(g->body);
    g->body = NULL;
}

static int deadline(int fd)
{
    struct timeval t = {.tv_sec = 120};
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)), 0);
    return fd;
}

int dial_tcp(const struct rig *r)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)atoi(strrchr(server_address(r->server), ':') + 1))};
    int fd = deadline(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

int dial_unix(const struct rig *r)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, r->socket, strlen(r->socket) + 1);
    int fd = deadline(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

int peer(const struct rig *r, bool local)
{
    uint8_t b[128];
    struct got g;
    int fd = local ? dial_unix(r) : dial_tcp(r);
    send_bytes(fd, b, hello_bytes(r, b, !local));
    expect(fd, WIRE_HELLO, &g);
    struct wire_welcome w;
    assert_int_equal(g.length, sizeof(w));
    take(&w, &g, sizeof(w));
    assert_int_equal(le32_get(w.magic), WIRE_MAGIC);
    assert_memory_equal(w.uuid, log_pool(r->log)->uuid, 16);
    got_free(&g);
    return fd;
}

void send_bytes(int fd, const void *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && (errno == EPIPE || errno == ECONNRESET))
            return; /* the test reads why */
        assert_true(k > 0);
        p = (const char *)p + k;
        n -= (size_t)k;
    }
}

static size_t frame_bytes(uint8_t *out, enum wire_type type, uint16_t channel, uint64_t ref,
                          size_t length)
{
    struct wire_frame f = wire_frame_of(type, 0, channel, ref, (uint32_t)length);
    memcpy(out, &f, sizeof(f));
    return sizeof(f);
}

void send_frame(int fd, enum wire_type type, uint16_t channel, uint64_t ref, const void *body,
                size_t length)
{
    uint8_t b[8192];
    size_t n = frame_bytes(b, type, channel, ref, length);
    assert_true(n + length <= sizeof(b));
    if (length)
        memcpy(b + n, body, length);
    send_bytes(fd, b, n + length);
}

static bool read_all(int fd, void *p, size_t n)
{
    while (n > 0) {
        ssize_t k = recv(fd, p, n, 0);
        if (k == 0 || (k < 0 && errno == ECONNRESET))
            return false;
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            fail_msg("receive: %s", strerror(errno));
        p = (char *)p + k;
        n -= (size_t)k;
    }
    return true;
}

bool receive(int fd, struct got *g)
{
    memset(g, 0, sizeof(*g));
    if (!read_all(fd, &g->f, sizeof(g->f)))
        return false;
    g->length = le32_get(g->f.length);
    assert_true(g->length <= (17u << 20));
    g->body = malloc(g->length + 1u);
    assert_non_null(g->body);
    if (!read_all(fd, g->body, g->length)) {
        got_free(g);
        return false;
    }
    g->body[g->length] = 0;
    return true;
}

static void show_error(const struct got *g)
{
    struct wire_error e;
    take(&e, g, sizeof(e));
    print_message("ERROR %u: %.*s\n", le32_get(e.code), (int)(g->length - sizeof(e)),
                  (const char *)g->body + sizeof(e));
}

void expect(int fd, enum wire_type type, struct got *g)
{
    for (;;) {
        if (!receive(fd, g))
            fail_msg("the connection ended; a frame of type %d was expected", (int)type);
        if (g->f.type == type)
            return;
        if (g->f.type == WIRE_ERROR)
            show_error(g);
        if (g->f.type != WIRE_ACK)
            fail_msg("a frame of type %d came; %d was expected", g->f.type, (int)type);
        got_free(g);
    }
}

static int error_code(struct got *g)
{
    struct wire_error e;
    assert_true(g->length >= sizeof(e));
    take(&e, g, sizeof(e));
    assert_int_equal(g->length, sizeof(e) + le16_get(e.text));
    assert_true(le16_get(e.text) > 10); /* a sentence */
    got_free(g);
    return (int)le32_get(e.code);
}

int expect_error(int fd)
{
    struct got g;
    expect(fd, WIRE_ERROR, &g);
    assert_true(le16_get(g.f.channel) != 0 || le64_get(g.f.ref) != 0);
    return error_code(&g);
}

int expect_refusal(int fd)
{
    struct got g;
    do {
        if (!receive(fd, &g))
            fail_msg("the connection ended without an ERROR");
        if (g.f.type != WIRE_ERROR)
            got_free(&g);
    } while (!g.body);
    assert_int_equal(le16_get(g.f.channel), 0);
    assert_int_equal(le64_get(g.f.ref), 0);
    int code = error_code(&g);
    assert_false(receive(fd, &g));
    close(fd);
    return code;
}

size_t hello_bytes(const struct rig *r, uint8_t *out, bool token)
{
    struct wire_hello h = {.magic = le32_of(WIRE_MAGIC),
                           .version = le16_of(WIRE_VERSION),
                           .oldest = le16_of(WIRE_VERSION),
                           .token = le32_of(token ? WIRE_TOKEN : 0)};
    size_t n = frame_bytes(out, WIRE_HELLO, 0, 1, sizeof(h) + (token ? WIRE_TOKEN : 0));
    memcpy(out + n, &h, sizeof(h));
    n += sizeof(h);
    if (token) {
        memcpy(out + n, r->token, WIRE_TOKEN);
        n += WIRE_TOKEN;
    }
    return n;
}

size_t open_bytes(uint8_t *out, const char *path, uint16_t channel, uint8_t mode, uint64_t session,
                  uint8_t ack)
{
    struct wire_open o = {.session = le64_of(session),
                          .mode = mode,
                          .order = WIRE_ANY,
                          .ack = ack,
                          .create = 1,
                          .path = le16_of((uint16_t)strlen(path))};
    size_t n = frame_bytes(out, WIRE_OPEN, channel, 5, sizeof(o) + strlen(path));
    memcpy(out + n, &o, sizeof(o));
    put_text(out + n + sizeof(o), path, strlen(path));
    return n + sizeof(o) + strlen(path);
}

static struct wire_opened opened(int fd, const uint8_t *b, size_t n, uint16_t channel)
{
    struct got g;
    struct wire_opened o;
    send_bytes(fd, b, n);
    expect(fd, WIRE_OPEN, &g);
    assert_int_equal(g.length, sizeof(o));
    assert_int_equal(le16_get(g.f.channel), channel);
    assert_int_equal(le64_get(g.f.ref), 5);
    take(&o, &g, sizeof(o));
    got_free(&g);
    return o;
}

struct wire_opened open_topic(int fd, const char *path, uint16_t channel, uint8_t mode,
                              uint64_t session)
{
    uint8_t b[2048];
    return opened(fd, b, open_bytes(b, path, channel, mode, session, 1), channel);
}

struct wire_opened join_session(int fd, const char *path, uint16_t channel, uint64_t session,
                                uint32_t epoch)
{
    uint8_t b[2048];
    size_t n = open_bytes(b, path, channel, WIRE_S_RESUME, session, 1);
    le32 e = le32_of(epoch);
    memcpy(b + sizeof(struct wire_frame) + offsetof(struct wire_open, epoch), &e, sizeof(e));
    return opened(fd, b, n, channel);
}

void batch_seal(struct batch_bytes *b)
{
    struct wire_frame f;
    struct wire_publish p;
    memcpy(&f, b->p, sizeof(f));
    memcpy(&p, b->p + sizeof(f), sizeof(p));
    p.crc = le32_of(wire_publish_crc(&f, &p));
    memcpy(b->p + sizeof(f), &p, sizeof(p));
}

struct batch_bytes batch_make(uint16_t channel, uint64_t sequence, uint32_t epoch, const void *data,
                              uint32_t size, const uint32_t *lengths, uint32_t count)
{
    uint32_t n = lengths ? 4 * count : 0;
    struct batch_bytes b = {.n = 64 + n + size};
    b.p = malloc(b.n);
    assert_non_null(b.p);
    struct wire_frame f =
        wire_frame_of(WIRE_PUBLISH, lengths ? 0 : WIRE_F_EQUAL, channel, sequence, 48 + n + size);
    struct wire_publish p = {.sequence = le64_of(sequence),
                             .count = le32_of(count),
                             .payload = le32_of(size),
                             .payload_crc = le32_of(crc32c(0, data, size)),
                             .epoch = le32_of(epoch)};
    for (uint32_t i = 0; lengths && i < count; i++) {
        le32 v = le32_of(lengths[i]);
        memcpy(b.p + 64 + 4 * i, &v, 4);
    }
    p.lengths_crc = le32_of(crc32c(0, b.p + 64, n));
    memcpy(b.p, &f, sizeof(f));
    memcpy(b.p + sizeof(f), &p, sizeof(p));
    memcpy(b.p + 64 + n, data, size);
    batch_seal(&b);
    return b;
}

void batch_sum_behind(struct batch_bytes *b)
{
    struct wire_frame f;
    struct wire_publish p;
    memcpy(&f, b->p, sizeof(f));
    memcpy(&p, b->p + sizeof(f), sizeof(p));
    struct wire_sum sum = {.payload_crc = p.payload_crc};
    b->p = realloc(b->p, b->n + sizeof(sum));
    assert_non_null(b->p);
    memcpy(b->p + b->n, &sum, sizeof(sum));
    b->n += sizeof(sum);
    f.flags |= WIRE_F_SUM;
    f.length = le32_of((uint32_t)(b->n - sizeof(f)));
    p.payload_crc = le32_of(0);
    memcpy(b->p, &f, sizeof(f));
    memcpy(b->p + sizeof(f), &p, sizeof(p));
    batch_seal(b);
}

void publish(int fd, uint16_t channel, uint64_t sequence, uint32_t epoch, const void *data,
             uint32_t size, const uint32_t *lengths, uint32_t count)
{
    struct batch_bytes b = batch_make(channel, sequence, epoch, data, size, lengths, count);
    send_bytes(fd, b.p, b.n);
    free(b.p);
}

struct wire_ack await_ack(int fd, uint16_t channel, uint64_t sequence)
{
    struct wire_ack a = {0};
    while (le64_get(a.sequence) < sequence) {
        struct got g;
        if (!receive(fd, &g))
            fail_msg("the connection ended; an ACK was expected");
        if (g.f.type == WIRE_ERROR)
            show_error(&g);
        assert_int_equal(g.f.type, WIRE_ACK);
        assert_int_equal(le16_get(g.f.channel), channel);
        assert_int_equal(g.length, sizeof(a));
        struct wire_ack b;
        take(&b, &g, sizeof(b));
        assert_true(le64_get(b.sequence) >= le64_get(a.sequence));
        a = b;
        got_free(&g);
    }
    return a;
}

size_t subscribe_bytes(uint8_t *out, const char *path, uint16_t channel, uint8_t from,
                       uint64_t value, uint64_t limit, uint8_t follow)
{
    struct wire_subscribe s = {.value = le64_of(value),
                               .limit = le64_of(limit),
                               .from = from,
                               .follow = follow,
                               .path = le16_of((uint16_t)strlen(path))};
    size_t n = frame_bytes(out, WIRE_SUBSCRIBE, channel, 9, sizeof(s) + strlen(path));
    memcpy(out + n, &s, sizeof(s));
    put_text(out + n + sizeof(s), path, strlen(path));
    return n + sizeof(s) + strlen(path);
}

struct wire_subscribed subscribe(int fd, const char *path, uint16_t channel, uint8_t from,
                                 uint64_t value, uint64_t limit, uint8_t follow)
{
    uint8_t b[2048];
    struct got g;
    struct wire_subscribed s;
    send_bytes(fd, b, subscribe_bytes(b, path, channel, from, value, limit, follow));
    expect(fd, WIRE_SUBSCRIBE, &g);
    assert_int_equal(g.length, sizeof(s));
    take(&s, &g, sizeof(s));
    got_free(&g);
    return s;
}

void stream_add(struct stream *s, const struct got *g)
{
    struct wire_data d;
    assert_int_equal(g->f.type, WIRE_DATA);
    take(&d, g, sizeof(d));
    assert_int_equal(wire_data_check(&g->f, &d, MEDIA_MAX_BATCH, MEDIA_MAX_MESSAGES), 0);
    uint32_t count = le32_get(d.count), size = le32_get(d.payload);
    bool equal = g->f.flags & WIRE_F_EQUAL;
    const uint8_t *lengths = g->body + sizeof(d);
    const uint8_t *data = lengths + (equal ? 0 : 4 * count);
    assert_int_equal(le64_get(d.offset), s->offset);
    assert_int_equal(le64_get(d.message), s->message);
    if (d.whole)
        assert_int_equal(le32_get(d.crc), crc32c(0, data, size));
    uint64_t sum = 0;
    for (uint32_t i = 0; !equal && i < count; i++) {
        le32 v;
        memcpy(&v, lengths + 4 * i, 4);
        sum += le32_get(v);
    }
    assert_true(equal || sum == size);
    s->buf = realloc(s->buf, s->size + size + 1);
    assert_non_null(s->buf);
    memcpy(s->buf + s->size, data, size);
    s->size += size;
    s->offset += size;
    s->message += count;
}

struct stream read_topic(const struct rig *r, const char *path)
{
    struct stream s = {0};
    struct got g;
    int fd = peer(r, true);
    struct wire_subscribed a = subscribe(fd, path, 1, WIRE_FROM_EARLIEST, 0, 0, 0);
    s.offset = le64_get(a.offset);
    s.message = le64_get(a.message);
    for (;;) {
        assert_true(receive(fd, &g));
        if (g.f.type == WIRE_END)
            break;
        stream_add(&s, &g);
        got_free(&g);
    }
    struct wire_end e;
    take(&e, &g, sizeof(e));
    assert_int_equal(le64_get(e.offset), s.offset);
    assert_int_equal(le64_get(e.message), s.message);
    got_free(&g);
    close(fd);
    return s;
}

int admin(int fd, uint8_t verb, const char *path, const char *second, uint8_t from, uint64_t value,
          uint16_t flags, uint64_t *ok, char **text)
{
    uint8_t b[4096];
    size_t n = strlen(path), k = second ? strlen(second) : 0;
    struct wire_admin a = {.verb = verb,
                           .from = from,
                           .order = WIRE_ANY,
                           .ack = WIRE_ANY,
                           .flags = le16_of(flags),
                           .path = le16_of((uint16_t)n),
                           .second = le16_of((uint16_t)k),
                           .value = le64_of(value)};
    memcpy(b, &a, sizeof(a));
    put_text(b + sizeof(a), path, n);
    if (k)
        put_text(b + sizeof(a) + n, second, k);
    send_frame(fd, WIRE_ADMIN, 0, 11, b, sizeof(a) + n + k);
    struct got g;
    do
        assert_true(receive(fd, &g));
    while (g.f.type == WIRE_ACK && (got_free(&g), true));
    assert_int_equal(le64_get(g.f.ref), 11);
    if (g.f.type == WIRE_ERROR)
        return error_code(&g);
    if (g.f.type == WIRE_TEXT) {
        assert_non_null(text);
        *text = (char *)g.body;
        if (ok)
            *ok = g.f.flags & WIRE_F_MORE;
        return 0;
    }
    assert_int_equal(g.f.type, WIRE_OK);
    struct wire_ok o;
    take(&o, &g, sizeof(o));
    if (ok)
        *ok = le64_get(o.value);
    got_free(&g);
    return 0;
}

void fill(uint8_t *p, size_t n, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = (uint8_t)(x >> 32);
    }
}

bool nobody_is_there(void *rig)
{
    struct server_stat st;
    server_stat(((const struct rig *)rig)->server, &st);
    return st.connections == 0;
}

void until(bool (*f)(void *arg), void *arg)
{
    struct timespec nap = {.tv_nsec = 2000000};
    time_t end = time(NULL) + 120;
    do {
        if (f(arg))
            return;
        nanosleep(&nap, NULL);
    } while (time(NULL) < end);
    fail_msg("what was waited for did not come within 120 seconds");
}

struct staged {
    const struct rig *rig;
    uint64_t bytes, waiting;
};

static bool is_staged(void *arg)
{
    const struct staged *w = arg;
    struct server_stat st;
    server_stat(w->rig->server, &st);
    return st.staged == w->bytes && st.waiting == w->waiting;
}

void until_staged(const struct rig *r, uint64_t bytes, uint64_t waiting)
{
    until(is_staged, &(struct staged){r, bytes, waiting});
}
