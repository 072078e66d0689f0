/* The limit of reading and writing through a mount: a FUSE server that only answers reads, from memory,
 * and writes, which it forgets. */
#ifndef BENCH_NULL_FUSE_H
#define BENCH_NULL_FUSE_H

#include <stdint.h>
#include <sys/types.h>

#include "embar/error.h"

struct null_fuse {
    pid_t pid;
    char mount[128]; /* its private mount point */
    char path[160];  /* the one file, `size` bytes */
};

/* Forks the server; returns when the file is there. */
int null_fuse_start(struct null_fuse *null, uint64_t size, struct embar_error *err)
    __attribute__((warn_unused_result));
void null_fuse_stop(struct null_fuse *null);

#endif
