/* As much of io_uring as `embar bench loops` needs, on the bare system calls: one thread, one ring, receive
 * and send of one socket at a time, submitted in batches. */
#ifndef BENCH_URING_H
#define BENCH_URING_H

#include <linux/io_uring.h>
#include <stddef.h>
#include <stdint.h>

struct uring {
    int fd;
    unsigned entries, queued; /* queued: not yet submitted */
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
/* Queue an operation on a socket; at most `entries` between two calls of uring_wait. */
void uring_put(struct uring *u, uint8_t op, int fd, void *at, uint32_t n, int flags, uint64_t tag);
/* Submit what is queued and wait for a completion. */
int uring_wait(struct uring *u) __attribute__((warn_unused_result));
/* The next completion; NULL: none. It stays until the next call. */
const struct io_uring_cqe *uring_next(struct uring *u);

#endif
