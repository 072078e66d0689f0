/* The ways of waiting and receiving (loops.h). Each does with a piece what the broker does: CRC32C and
 * write-back. A receive into provided buffers needs a copy to the piece's place besides, for the kernel
 * chooses the buffer when data comes. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/crc.h"
#include "tests/bench/loops.h"

#define BUFFERS 64u
#define PLACES  4u

static bool small(const struct loops_load *load)
{
    return load->kind == LOOPS_SMALLS;
}

static uint32_t room(const struct loops_load *load, const struct loops_one *o)
{
    if (small(load))
        return LOOPS_SMALL - o->part;
    return LOOPS_SLICE - o->at < LOOPS_PIECE ? (uint32_t)(LOOPS_SLICE - o->at) : LOOPS_PIECE;
}

/* True: a small message is whole. */
static bool advance(const struct loops_load *load, struct loops_one *o, uint32_t n)
{
    o->at += n;
    o->part += n;
    bool whole = small(load) && o->part == LOOPS_SMALL;
    if (whole)
        o->part = 0;
    if (o->at + LOOPS_SMALL > LOOPS_SLICE || (!small(load) && o->at == LOOPS_SLICE))
        o->at = 0;
    return whole;
}

static bool landed(const struct loops_load *load, struct loops_one *o, uint32_t n)
{
    o->crc = crc32c(o->crc, o->base + o->at, n);
    flush_writeback(&load->region->flush, o->base + o->at, n);
    return advance(load, o, n);
}

/* The same for bytes that are in a buffer. */
static bool landed_apart(const struct loops_load *load, struct loops_one *o, const char *p,
                         uint32_t n)
{
    bool whole = false;
    while (n > 0) {
        uint32_t k = LOOPS_SLICE - o->at < n ? (uint32_t)(LOOPS_SLICE - o->at) : n;
        o->crc = crc32c(o->crc, p, k);
        flush_copy(&load->region->flush, o->base + o->at, p, k);
        whole = advance(load, o, k);
        p += k;
        n -= k;
    }
    return whole;
}

static void prefetch(const char *at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 64)
        __builtin_prefetch(at + i, 1, 2);
}

/* Receives up to n bytes into `at` as PLACES parts. One of a recvmmsg may be short though more bytes follow,
 * which came meanwhile and are then in the next one's place: the gap is closed. */
static ssize_t recv_places(int fd, char *at, uint32_t n, bool many)
{
    struct iovec iov[PLACES];
    struct mmsghdr m[PLACES] = {0};
    for (unsigned i = 0; i < PLACES; i++) {
        iov[i] = (struct iovec){at + (size_t)n * i / PLACES, 0};
        iov[i].iov_len = (size_t)n * (i + 1) / PLACES - (size_t)n * i / PLACES;
        m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    }
    if (!many) {
        m[0].msg_hdr.msg_iovlen = PLACES;
        return recvmsg(fd, &m[0].msg_hdr, MSG_DONTWAIT);
    }
    int k = recvmmsg(fd, m, PLACES, MSG_DONTWAIT, NULL);
    size_t got = 0;
    for (int i = 0; i < k; i++) {
        if (at + got != iov[i].iov_base && m[i].msg_len > 0)
            memmove(at + got, iov[i].iov_base, m[i].msg_len);
        got += m[i].msg_len;
    }
    return k < 0 ? -1 : (ssize_t)got;
}

static int receive(const struct loops_load *load, struct loops_server *s, struct loops_one *o)
{
    uint32_t n = room(load, o);
    char *at = o->base + o->at;
    ssize_t got = load->way == RECV_PLACES || load->way == RECV_MMSG
                      ? recv_places(o->fd, at, n, load->way == RECV_MMSG)
                      : recv(o->fd, at, n, MSG_DONTWAIT);
    if (got <= 0)
        return got == 0 ? 0 : -errno;
    if (landed(load, o, (uint32_t)got) &&
        send(o->fd, s->reply, LOOPS_REPLY, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)LOOPS_REPLY)
        return -EPIPE;
    if (load->way == RECV_PREFETCH)
        prefetch(o->base + o->at, room(load, o));
    return 1;
}

static void put_recv(const struct loops_load *load, struct loops_server *s, struct uring *u,
                     unsigned i)
{
    struct loops_one *o = &s->one[i];
    if (load->way == RECV_URING) {
        (void)uring_put(u, IORING_OP_RECV, o->fd, o->base + o->at, room(load, o), 0, i);
        return;
    }
    struct io_uring_sqe *sqe = uring_put(u, IORING_OP_RECV, o->fd, NULL, 0, 0, i);
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->ioprio = load->way == RECV_BUNDLE ? IORING_RECV_MULTISHOT | IORING_RECVSEND_BUNDLE
                                           : IORING_RECV_MULTISHOT;
}

/* Buffers come round in turn, since each is given back before the next completion is looked at. */
static bool take_buffers(const struct loops_load *load, struct loops_one *o,
                         struct uring_buffers *b, const struct io_uring_cqe *cqe)
{
    unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    bool whole = false;
    for (uint32_t left = (uint32_t)cqe->res; left > 0;) {
        uint32_t n = left < b->size ? left : b->size;
        whole = landed_apart(load, o, b->memory + (size_t)id * b->size, n);
        uring_give(b, id);
        id = (id + 1) & (b->count - 1);
        left -= n;
    }
    return whole;
}

static int completed(const struct loops_load *load, struct loops_server *s, struct uring *u,
                     const struct io_uring_cqe *cqe)
{
    struct uring_buffers *b = s->buffers;
    unsigned i = (unsigned)cqe->user_data;
    if (i >= LOOPS_MOST) /* a reply went out */
        return cqe->res == (int)LOOPS_REPLY ? 0 : -EPIPE;
    if (cqe->res < 0 && cqe->res != -ENOBUFS)
        return cqe->res;
    if (cqe->res == 0) {
        s->open--;
        return 0;
    }
    bool more = cqe->flags & IORING_CQE_F_MORE;
    if (cqe->res > 0 &&
        (b ? take_buffers(load, &s->one[i], b, cqe) : landed(load, &s->one[i], (uint32_t)cqe->res)))
        (void)uring_put(u, IORING_OP_SEND, s->one[i].fd, s->reply, LOOPS_REPLY, MSG_NOSIGNAL,
                        LOOPS_MOST + i);
    if (!more)
        put_recv(load, s, u, i);
    return 0;
}

static int serve_uring(const struct loops_load *load, struct loops_server *s)
{
    struct uring u;
    struct uring_buffers buffers;
    int rc = uring_open(&u, 4 * LOOPS_MOST);
    if (rc)
        return rc;
    if (load->way != RECV_URING) {
        uint32_t size = small(load) ? LOOPS_SMALL : LOOPS_PIECE;
        rc = uring_buffers_open(&u, &buffers, BUFFERS, load->way == RECV_BUNDLE ? size / 4 : size);
        s->buffers = rc ? NULL : &buffers;
    }
    for (unsigned i = 0; i < load->connections && rc == 0; i++)
        put_recv(load, s, &u, i);
    if (rc == 0)
        rc = loops_complete(load, s, &u, completed);
    uring_close(&u);
    if (s->buffers)
        uring_buffers_close(s->buffers);
    return rc;
}

int loops_receive(const struct loops_load *load, struct loops_server *s)
{
    return load->way < RECV_URING ? loops_poll(load, s, EPOLLIN, receive) : serve_uring(load, s);
}
