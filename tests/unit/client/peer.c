/* The misbehaving broker of the client's tests: one thread a connection, one lock. */
#include "peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc.h"
#include "embar/error.h"
#include "net/wire.h"

static bool get(int fd, void *buf, size_t n)
{
    return n == 0 || recv(fd, buf, n, MSG_WAITALL) == (ssize_t)n;
}

static bool put(int fd, const void *buf, size_t n)
{
    const char *p = buf;
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
        if (done <= 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

static bool answer(int fd, enum wire_type type, uint16_t channel, uint64_t ref, const void *body,
                   size_t n)
{
    struct wire_frame f = wire_frame_of(type, 0, channel, ref, (uint32_t)n);
    unsigned char both[256];
    memcpy(both, &f, sizeof(f));
    memcpy(both + sizeof(f), body, n);
    return put(fd, both, sizeof(f) + n);
}

static void refuse(struct peer *p, int fd, uint16_t channel, uint64_t ref, uint32_t code)
{
    static const char text[] = "said the peer";
    struct {
        struct wire_error e;
        char text[sizeof(text) - 1];
    } body = {.e = {.code = le32_of(code),
                    .epoch = le32_of(p->epoch),
                    .sequence = le64_of(p->committed),
                    .messages = le64_of(p->loose ? p->prefix : p->messages),
                    .text = le16_of(sizeof(text) - 1)}};
    memcpy(body.text, text, sizeof(text) - 1);
    answer(fd, WIRE_ERROR, channel, ref, &body, sizeof(body.e) + sizeof(text) - 1);
}

static bool hello(struct peer *p, int fd, uint64_t ref)
{
    pthread_mutex_lock(&p->lock);
    while (p->silent && !p->stop)
        pthread_cond_wait(&p->moved, &p->lock);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (p->hellos < PEER_HELD)
        p->hello_ns[p->hellos] = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    bool refused = p->hellos++ >= 2 && p->hello_refusals > 0;
    if (refused)
        p->hello_refusals--;
    struct wire_welcome w = {
        .magic = le32_of(WIRE_MAGIC),
        .version = le16_of((uint16_t)(WIRE_VERSION - p->older)),
        .max_batch = le32_of(1u << 20),
        .max_messages = le32_of(65536),
        .window = le32_of(PEER_WINDOW),
        .incarnation = le64_of(p->incarnation),
    };
    pthread_mutex_unlock(&p->lock);
    if (refused)
        refuse(p, fd, 0, 0, EMBAR_ESHUTDOWN);
    else
        answer(fd, WIRE_HELLO, 0, ref, &w, sizeof(w));
    return !refused;
}

static bool is_brief(struct peer *p)
{
    pthread_mutex_lock(&p->lock);
    bool brief = p->brief;
    pthread_mutex_unlock(&p->lock);
    return brief;
}

static void open_channel(struct peer *p, int fd, const struct wire_frame *f,
                         const struct wire_open *o)
{
    pthread_mutex_lock(&p->lock);
    uint32_t code = 0;
    if (o->mode == WIRE_S_NEW) {
        p->session = ++p->next_session;
        p->epoch = 1;
        p->committed = p->messages = 0;
    } else if (o->mode == WIRE_S_RESUME && le64_get(o->session) != p->session) {
        code = EMBAR_ESESSION;
    } else if (o->mode == WIRE_S_RESUME && le32_get(o->epoch) && le32_get(o->epoch) != p->epoch) {
        code = EMBAR_EFENCED;
    }
    struct wire_opened d = {
        .session = le64_of(o->mode == WIRE_S_NONE ? 0 : p->session),
        .sequence = le64_of(p->committed),
        .messages = le64_of(p->loose ? p->prefix : p->messages),
        .end = le64_of(p->end),
        .epoch = le32_of(p->epoch),
        .order = p->loose ? 2 : 5,
        .ack = o->ack,
    };
    p->heard = p->committed;
    if (code)
        refuse(p, fd, le16_get(f->channel), le64_get(f->ref), code);
    else
        answer(fd, WIRE_OPEN, le16_get(f->channel), le64_get(f->ref), &d, sizeof(d));
    pthread_mutex_unlock(&p->lock);
}

/* Under the lock. */
static void commit(struct peer *p, struct peer_batch *b)
{
    b->offset = p->end;
    b->message = p->messages;
    p->end += b->length;
    p->messages += b->count;
    p->committed++;
    p->log = realloc(p->log, (p->batches + 1) * sizeof(*p->log));
    assert_non_null(p->log);
    p->log[p->batches++] = *b;
    pthread_cond_broadcast(&p->moved);
}

static void drop(struct peer_batch *b)
{
    free(b->lengths);
    free(b->data);
}

static void drop_held(struct peer *p)
{
    for (unsigned i = 0; i < PEER_HELD; i++) {
        drop(&p->held[i]);
        p->held[i] = (struct peer_batch){.data = NULL};
    }
}

/* Several connections of a session: what comes early waits for its turn, once. */
static bool hold(struct peer *p, uint64_t sequence, const struct peer_batch *b)
{
    struct peer_batch *at = &p->held[sequence % PEER_HELD];
    assert_true(sequence <= p->committed + PEER_HELD);
    if (at->data)
        return false;
    *at = *b;
    return true;
}

static void commit_held(struct peer *p)
{
    struct peer_batch *at;
    while ((at = &p->held[(p->committed + 1) % PEER_HELD])->data) {
        commit(p, at);
        *at = (struct peer_batch){.data = NULL};
    }
}

static bool read_batch(int fd, const struct wire_frame *f, struct wire_publish *h,
                       struct peer_batch *b)
{
    const char *why;
    struct wire_sum sum;
    if (!get(fd, h, sizeof(*h)))
        return false;
    assert_int_equal(wire_publish_check(f, h, 1u << 20, 65536, &why), 0);
    *b = (struct peer_batch){.length = le32_get(h->payload),
                             .count = le32_get(h->count),
                             .crc = le32_get(h->payload_crc),
                             .behind = f->flags & WIRE_F_SUM};
    b->data = malloc(b->length);
    if (!(f->flags & WIRE_F_EQUAL))
        b->lengths = malloc(b->count * sizeof(uint32_t));
    bool whole = (!b->lengths || get(fd, b->lengths, b->count * sizeof(uint32_t))) &&
                 get(fd, b->data, b->length) && (!b->behind || get(fd, &sum, sizeof(sum)));
    if (!whole) {
        drop(b);
        return false;
    }
    if (b->behind)
        b->crc = le32_get(sum.payload_crc);
    if (b->lengths)
        assert_int_equal(crc32c(0, b->lengths, b->count * sizeof(uint32_t)),
                         le32_get(h->lengths_crc));
    return true;
}

/* One accepted connection: its thread's. */
struct line {
    struct peer *p;
    int fd;
    bool session, broken;
    uint8_t ack;
    uint64_t own;          /* without a session: batches so far */
    uint64_t heard;        /* of them acked */
    bool mine[PEER_LOOSE]; /* loose: committed, and came here */
};

/* Under the lock. */
static void loose_ack(struct line *l, uint16_t channel, uint64_t sequence)
{
    struct peer *p = l->p;
    struct {
        struct wire_ack a;
        le64 words[2];
    } body = {.a = {.sequence = le64_of(p->committed),
                    .messages = le64_of(p->prefix),
                    .offset = le64_of(p->end),
                    .epoch = le32_of(p->epoch)}};
    uint64_t bits = 0;
    for (unsigned i = 0; i < 64; i++)
        bits |= (uint64_t)l->mine[p->committed + 1 + i] << i;
    unsigned words = bits != 0;
    size_t length = sizeof(body.a) + words * sizeof(le64);
    if (p->lie == LIE_OTHERS && p->lost_at > p->committed && p->lost_fd != l->fd) {
        bits |= 1ull << (p->lost_at - p->committed - 1);
        words = 1;
        length = sizeof(body.a) + 8;
    } else if (p->lie > LIE_OTHERS && p->lie_at == sequence) {
        bits = p->lie == LIE_UNSENT ? 1ull << 63 : 1;
        words = p->lie == LIE_WORDS ? WIRE_AHEAD + 1 : 1;
        length = sizeof(body.a) + (p->lie == LIE_LENGTH ? 4u : 8u);
    }
    body.a.words = le32_of(words);
    body.words[0] = le64_of(bits);
    if (!answer(l->fd, WIRE_ACK, channel, 0, &body, length))
        return;
    for (uint64_t s = 1; s <= p->committed + 64; s++)
        p->told[s] |= s <= p->committed || l->mine[s];
}

/* The connection that lost a batch breaks: nothing that is on its way there is taken any more. */
static void cut_lost(struct peer *p)
{
    p->cut[p->lost_fd] = true;
    p->lost_at = 0;
    shutdown(p->lost_fd, SHUT_RDWR);
}

/* A batch of a loose session: lost, a duplicate, or committed where it comes. Under the lock. True
 * when it was stored. */
static bool loose_take(struct line *l, uint16_t channel, uint64_t sequence, struct peer_batch *b)
{
    struct peer *p = l->p;
    assert_true(sequence + 64 < PEER_LOOSE);
    if (p->told[sequence])
        p->resent++;
    if (sequence < 64 && p->missing >> sequence & 1)
        return false;
    if (p->lose_every && sequence % p->lose_every == 0 && sequence < p->lose_below &&
        !p->lost[sequence] && p->lost_at == 0) {
        p->lost[sequence] = true;
        p->lost_at = sequence;
        p->lost_fd = l->fd;
        p->lost_frames = p->frames;
        unsigned ahead = 0;
        for (uint64_t s = sequence; s < sequence + 16; s++)
            ahead += p->counts[s] != 0;
        if (ahead > 6)
            cut_lost(p); /* the window is about to close, and nothing more would come */
        return false;
    }
    bool fresh = sequence > p->committed && p->counts[sequence] == 0;
    if (fresh) {
        uint64_t mark = p->committed;
        p->counts[sequence] = b->count;
        commit(p, b);
        for (p->committed = mark; p->counts[p->committed + 1]; p->committed++)
            p->prefix += p->counts[p->committed + 1];
    }
    l->mine[sequence] = true;
    loose_ack(l, channel, sequence);
    if (p->lost_at && p->frames > p->lost_frames + 5)
        cut_lost(p);
    return fresh;
}

/* One PUBLISH. False: this connection is to be closed. */
static bool publish(struct line *l, const struct wire_frame *f)
{
    struct peer *p = l->p;
    int fd = l->fd;
    bool session = l->session, *broken = &l->broken;
    uint64_t *own = &l->own;
    struct wire_publish h;
    struct peer_batch b;
    if (!read_batch(fd, f, &h, &b))
        return false;
    uint64_t sequence = le64_get(h.sequence);
    uint16_t channel = le16_get(f->channel);
    bool keep = true, stored = false;
    pthread_mutex_lock(&p->lock);
    p->frames++;
    if (b.length > PEER_LARGE)
        b.behind ? p->behind++ : p->before++;
    bool breaks = p->break_every && p->frames % p->break_every == 0;
    if (breaks)
        p->breaks++;
    if (crc32c(0, b.data, b.length) != b.crc) {
        p->mismatches++;
        refuse(p, fd, 0, 0, EMBAR_ECRC);
        keep = false;
    } else if (*broken || p->cut[fd]) {
        /* What was on its way on a broken channel is dropped without a word. */
    } else if (p->damage > 0) {
        p->damage--;
        if (p->damaged)
            p->damaged(p->arg);
        refuse(p, fd, 0, 0, EMBAR_ECRC);
        keep = false;
    } else if (p->refuse_at == sequence) {
        refuse(p, fd, channel, le64_get(f->ref), p->refuse_code);
        *broken = true;
    } else if (session && le32_get(h.epoch) != p->epoch) {
        refuse(p, fd, channel, le64_get(f->ref), EMBAR_EFENCED);
        *broken = true;
    } else if (session && p->fence_at == sequence && !p->fenced) {
        p->fenced = true;
        p->epoch++;
        drop_held(p);
        for (uint64_t s = 1; s < 64; s++)
            p->counts[s] += (uint32_t)(p->late >> s & 1);
        for (uint64_t s = p->committed + 1; p->loose && p->counts[s]; s++)
            p->prefix += p->counts[s];
        for (uint64_t s = p->committed; p->loose && s < PEER_LOOSE; s++)
            p->committed = p->counts[s] ? s : p->committed; /* over the gaps */
        refuse(p, fd, channel, le64_get(f->ref), EMBAR_EFENCED);
        *broken = true;
    } else if (breaks && p->breaks % 2 == 0) {
        keep = false; /* lost before it was committed */
    } else if (p->loose && session) {
        stored = loose_take(l, channel, sequence, &b);
        keep = !breaks && !p->stop;
    } else {
        p->beyond += sequence > (session ? p->heard : l->heard) + PEER_WINDOW;
        if (!session) {
            assert_int_equal(sequence, *own + 1);
            *own = sequence;
            commit(p, &b);
            stored = true;
        } else if (sequence > p->committed) {
            stored = hold(p, sequence, &b);
            commit_held(p);
        }
        keep = !breaks && !p->stop;
        if (keep && !*broken && l->ack > 0 && !p->mute) {
            struct wire_ack a = {.sequence = le64_of(session ? p->committed : *own),
                                 .messages = le64_of(p->messages),
                                 .offset = le64_of(p->end),
                                 .epoch = le32_of(p->epoch)};
            p->heard = p->committed; /* of other connections perhaps later: that is no excuse */
            l->heard = *own;
            answer(fd, WIRE_ACK, channel, 0, &a, sizeof(a));
        }
    }
    pthread_mutex_unlock(&p->lock);
    if (!stored)
        drop(&b);
    return keep;
}

static void subscribe(struct peer *p, int fd, const struct wire_frame *f,
                      const struct wire_subscribe *s)
{
    uint16_t channel = le16_get(f->channel);
    uint64_t ref = le64_get(f->ref), offset = s->from == WIRE_FROM_OFFSET ? le64_get(s->value) : 0;
    pthread_mutex_lock(&p->lock);
    size_t i = 0;
    while (i < p->batches && p->log[i].offset < offset)
        i++;
    struct wire_subscribed d = {
        .offset = le64_of(offset),
        .message = le64_of(i < p->batches ? p->log[i].message : p->messages),
        .end = le64_of(p->end),
        .incarnation = le64_of(p->incarnation),
    };
    answer(fd, WIRE_SUBSCRIBE, channel, ref, &d, sizeof(d));
    for (; i < p->batches; i++) {
        struct peer_batch *b = &p->log[i];
        size_t lengths = b->lengths ? b->count * sizeof(uint32_t) : 0;
        struct {
            struct wire_frame f;
            struct wire_data d;
        } head = {wire_frame_of(WIRE_DATA, (uint8_t)(b->lengths ? 0 : WIRE_F_EQUAL), channel, ref,
                                (uint32_t)(sizeof(head.d) + lengths + b->length)),
                  {.offset = le64_of(b->offset),
                   .message = le64_of(b->message),
                   .time = le64_of(1),
                   .count = le32_of(b->count),
                   .payload = le32_of(b->length),
                   .crc = le32_of(b->crc),
                   .whole = 1}};
        bool cut = p->cut_data && ++p->frames % p->cut_data == 0;
        put(fd, &head, sizeof(head));
        put(fd, b->lengths, lengths);
        put(fd, b->data, cut ? b->length / 2 : b->length);
        if (cut) {
            shutdown(fd, SHUT_RDWR);
            pthread_mutex_unlock(&p->lock);
            return;
        }
    }
    struct wire_end e = {.offset = le64_of(p->end), .message = le64_of(p->messages)};
    if (!s->follow)
        answer(fd, WIRE_END, channel, ref, &e, sizeof(e));
    pthread_mutex_unlock(&p->lock);
}

static void *serve(void *arg)
{
    struct line *l = arg;
    struct peer *p = l->p;
    struct wire_frame f;
    unsigned char body[WIRE_MAX_ASK] = {0};
    bool go = true;
    while (go && get(l->fd, &f, sizeof(f))) {
        if (f.type == WIRE_PUBLISH) {
            go = publish(l, &f);
            continue;
        }
        assert_true(le32_get(f.length) <= sizeof(body));
        if (!get(l->fd, body, le32_get(f.length)))
            break;
        if (f.type == WIRE_HELLO) {
            go = hello(p, l->fd, le64_get(f.ref));
        } else if (f.type == WIRE_OPEN) {
            struct wire_open o;
            memcpy(&o, body, sizeof(o));
            if (o.ack == WIRE_ANY)
                o.ack = p->topic_ack ? p->topic_ack - 1 : 1;
            if (o.mode == WIRE_S_AUTO)
                o.mode = o.ack ? WIRE_S_NEW : WIRE_S_NONE;
            l->session = o.mode != WIRE_S_NONE;
            l->ack = o.ack;
            open_channel(p, l->fd, &f, &o);
            go = !is_brief(p);
        } else if (f.type == WIRE_SUBSCRIBE) {
            struct wire_subscribe o;
            memcpy(&o, body, sizeof(o));
            subscribe(p, l->fd, &f, &o);
            go = !is_brief(p);
        } else if (f.type == WIRE_CLOSE) {
            struct wire_ok ok = {.value = le64_of(0)};
            pthread_mutex_lock(&p->lock);
            p->forgotten = body[0] == 1;
            pthread_mutex_unlock(&p->lock);
            answer(l->fd, WIRE_OK, le16_get(f.channel), le64_get(f.ref), &ok, sizeof(ok));
        }
    }
    shutdown(l->fd, SHUT_RDWR);
    free(l);
    return NULL;
}

static void *accept_all(void *arg)
{
    struct peer *p = arg;
    for (;;) {
        int fd = accept(p->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        struct line *l = calloc(1, sizeof(*l));
        assert_non_null(l);
        assert_true(fd < PEER_FDS);
        l->p = p;
        l->fd = fd;
        l->ack = 1;
        pthread_mutex_lock(&p->lock);
        assert_true(p->count < sizeof(p->fds) / sizeof(p->fds[0]));
        p->fds[p->count] = fd;
        assert_int_equal(pthread_create(&p->threads[p->count], NULL, serve, l), 0);
        p->count++;
        pthread_mutex_unlock(&p->lock);
    }
}

static void listen_tcp(struct peer *p)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t n = sizeof(in);
    const char *at = p->at ? p->at : "127.0.0.1";
    assert_int_equal(inet_pton(AF_INET, at, &in.sin_addr), 1);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&in, n), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&in, &n), 0);
    snprintf(p->path, sizeof(p->path), "%s:%u", at, ntohs(in.sin_port));
}

static void listen_unix(struct peer *p)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(p->path, sizeof(p->path), "%.60s/embar-peer.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(p->path));
    size_t n = strlen(p->path);
    snprintf(p->path + n, sizeof(p->path) - n, "/s");
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, p->path, sizeof(p->path));
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&un, sizeof(un)), 0);
}

void peer_start(struct peer *p)
{
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->moved, NULL);
    p->tcp ? listen_tcp(p) : listen_unix(p);
    assert_int_equal(listen(p->listener, 64), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, accept_all, p), 0);
}

void peer_stop(struct peer *p)
{
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->moved);
    for (unsigned i = 0; i < p->count; i++)
        shutdown(p->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->count; i++) {
        pthread_join(p->threads[i], NULL);
        close(p->fds[i]);
    }
    assert_true(p->mismatches == 0 || p->damaged);
    drop_held(p);
    for (size_t i = 0; i < p->batches; i++)
        drop(&p->log[i]);
    free(p->log);
    if (p->tcp)
        return;
    unlink(p->path);
    *strrchr(p->path, '/') = '\0';
    rmdir(p->path);
}

unsigned char *peer_bytes(struct peer *p, size_t *n)
{
    pthread_mutex_lock(&p->lock);
    unsigned char *out = malloc(p->end + 1);
    assert_non_null(out);
    for (size_t i = 0; i < p->batches; i++)
        memcpy(out + p->log[i].offset, p->log[i].data, p->log[i].length);
    *n = p->end;
    pthread_mutex_unlock(&p->lock);
    return out;
}
