/* The limit that memory sets: copying into a pool of the same kind, and writing back. */
#ifndef BENCH_COPY_H
#define BENCH_COPY_H

#include <stdint.h>

#include "core/flush.h"
#include "tests/bench/load.h"

#define COPY_PIECE ((size_t)256 << 10) /* copied, then written back while hot, as the broker does */

struct copy_load {
    const char *spec; /* a file's path: it must not exist, and is removed again */
    uint64_t size;    /* of the region */
    uint64_t bytes;   /* of a worker */
    enum flush_mode mode;
    bool overwrite; /* a device may lose what it holds */
};
/* Workers of one process: the region is private to it. */
extern const struct load_ops copy_ops;

#endif
