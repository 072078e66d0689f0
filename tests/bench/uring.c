/* io_uring (uring.h). The kernel writes cq_tail and reads sq_tail and a buffer ring's tail: each is read or
 * written with acquire and release here, and all else is this thread's own. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/bench/uring.h"

int uring_open(struct uring *u, unsigned entries)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    memset(u, 0, sizeof(*u));
    u->fd = (int)syscall(SYS_io_uring_setup, entries, &p);
    if (u->fd < 0)
        return -errno;
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    u->ring_size = sq > cq ? sq : cq;
    char *ring = mmap(NULL, u->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd,
                      (off_t)IORING_OFF_SQ_RING);
    u->entries = p.sq_entries;
    u->features = p.features;
    u->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, u->fd, (off_t)IORING_OFF_SQES);
    if (ring == MAP_FAILED || u->sqes == MAP_FAILED) {
        (void)close(u->fd);
        return -ENOMEM;
    }
    u->ring = ring;
    u->sq_tail = (unsigned *)(void *)(ring + p.sq_off.tail);
    u->sq_array = (unsigned *)(void *)(ring + p.sq_off.array);
    u->sq_mask = *(unsigned *)(void *)(ring + p.sq_off.ring_mask);
    u->cq_head = (unsigned *)(void *)(ring + p.cq_off.head);
    u->cq_tail = (unsigned *)(void *)(ring + p.cq_off.tail);
    u->cq_mask = *(unsigned *)(void *)(ring + p.cq_off.ring_mask);
    u->cqes = (struct io_uring_cqe *)(void *)(ring + p.cq_off.cqes);
    return 0;
}

void uring_close(struct uring *u)
{
    (void)munmap(u->ring, u->ring_size);
    (void)munmap(u->sqes, u->entries * sizeof(struct io_uring_sqe));
    (void)close(u->fd);
}

struct io_uring_sqe *uring_put(struct uring *u, uint8_t op, int fd, const void *at, uint32_t n,
                               int flags, uint64_t tag)
{
    unsigned tail = *u->sq_tail;
    struct io_uring_sqe *sqe = &u->sqes[tail & u->sq_mask];
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = op;
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)at;
    sqe->len = n;
    sqe->msg_flags = (uint32_t)flags;
    sqe->user_data = tag;
    u->sq_array[tail & u->sq_mask] = tail & u->sq_mask;
    __atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);
    u->queued++;
    return sqe;
}

static int enter(struct uring *u, unsigned completions)
{
    unsigned flags = completions > 0 ? IORING_ENTER_GETEVENTS : 0;
    long n = syscall(SYS_io_uring_enter, u->fd, u->queued, completions, flags, NULL, 0);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    u->queued -= (unsigned)n;
    return 0;
}

int uring_submit(struct uring *u)
{
    return enter(u, 0);
}

int uring_wait(struct uring *u)
{
    return enter(u, 1);
}

bool uring_ready(const struct uring *u)
{
    return *u->cq_head != __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE);
}

const struct io_uring_cqe *uring_next(struct uring *u)
{
    unsigned head = *u->cq_head;
    if (head == __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE))
        return NULL;
    static _Thread_local struct io_uring_cqe out;
    out = u->cqes[head & u->cq_mask];
    __atomic_store_n(u->cq_head, head + 1, __ATOMIC_RELEASE);
    return &out;
}

int uring_buffers_open(struct uring *u, struct uring_buffers *b, unsigned count, uint32_t size)
{
    size_t ring = count * sizeof(struct io_uring_buf), all = ring + (size_t)count * size;
    char *memory =
        mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    *b = (struct uring_buffers){.ring = (struct io_uring_buf_ring *)(void *)memory,
                                .memory = memory + ring,
                                .count = count,
                                .size = size};
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)memory, .ring_entries = count};
    if (syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_PBUF_RING, &reg, 1) < 0) {
        int rc = -errno;
        uring_buffers_close(b);
        return rc;
    }
    for (unsigned i = 0; i < count; i++)
        uring_give(b, i);
    return 0;
}

void uring_buffers_close(struct uring_buffers *b)
{
    (void)munmap(b->ring, b->count * (sizeof(struct io_uring_buf) + (size_t)b->size));
}

void uring_give(struct uring_buffers *b, unsigned id)
{
    /* The tail lies over the first entry's last field, which is why an entry is not written whole. */
    struct io_uring_buf *buf = (struct io_uring_buf *)b->ring + (b->tail & (b->count - 1));
    buf->addr = (uint64_t)(uintptr_t)(b->memory + (size_t)id * b->size);
    buf->len = b->size;
    buf->bid = (uint16_t)id;
    __atomic_store_n(&b->ring->tail, ++b->tail, __ATOMIC_RELEASE);
}
