/* As much of io_uring as `embar bench loops` needs, on the bare system calls: one thread, one ring,
 * operations on one socket at a time, submitted in batches; provided buffers. */
#ifndef BENCH_URING_H
#define BENCH_URING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Since Linux 6.10; newer than Debian 12's headers. */
#ifndef IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE (1u << 4)
#endif
#ifndef IORING_FEAT_RECVSEND_BUNDLE
#define IORING_FEAT_RECVSEND_BUNDLE (1u << 14)
#endif

struct uring {
    int fd;
    unsigned entries, queued; /* queued: not yet submitted */
    unsigned features;        /* IORING_FEAT_ */
    void *ring;               /* both rings in one mapping */
    size_t ring_size;
    struct io_uring_sqe *sqes;
    unsigned *sq_tail, *sq_array, *cq_head, *cq_tail; /* shared with the kernel */
    unsigned sq_mask, cq_mask;
    struct io_uring_cqe *cqes;
};

/* 0 or -errno: -EPERM or -ENOSYS where it is not allowed or not there. */
int uring_open(struct uring *u, unsigned entries) __attribute__((warn_unused_result));
void uring_close(struct uring *u);
/* Queue an operation on a socket; at most `entries` between two calls of uring_wait. Until then the caller
 * may change the entry. */
struct io_uring_sqe *uring_put(struct uring *u, uint8_t op, int fd, const void *at, uint32_t n,
                               int flags, uint64_t tag);
int uring_submit(struct uring *u) __attribute__((warn_unused_result));
/* Submit what is queued and wait for a completion. */
int uring_wait(struct uring *u) __attribute__((warn_unused_result));
/* Is a completion there already? */
bool uring_ready(const struct uring *u);
/* The next completion; NULL: none. It stays until the next call. */
const struct io_uring_cqe *uring_next(struct uring *u);

/* Buffers that the kernel takes for receives in the order in which they were given, group 0. */
struct uring_buffers {
    struct io_uring_buf_ring *ring;
    char *memory;
    unsigned count; /* a power of two */
    uint32_t size;  /* of one */
    uint16_t tail;
};

int uring_buffers_open(struct uring *u, struct uring_buffers *b, unsigned count, uint32_t size)
    __attribute__((warn_unused_result));
void uring_buffers_close(struct uring_buffers *b);
void uring_give(struct uring_buffers *b, unsigned id);

#endif
