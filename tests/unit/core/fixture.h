/* A small log on memory that outlives it, so that tests can close, kill and reopen it. */
#ifndef TESTS_UNIT_CORE_FIXTURE_H
#define TESTS_UNIT_CORE_FIXTURE_H

#include "core/log.h"

struct fixture {
    struct region region;
    struct flush flush;
    void *memory;
    uint64_t size;
    struct log *log;
    struct log_options options;
    bool needs_sync;   /* as an ordinary file: checkpoints aside, frees after the sync */
    bool machine;      /* and every epoch synced before it is told */
    bool past_removal; /* of all batches that are sent */
    /* A crash in the middle of something (fixture_arm). Single-threaded, manual logs only. */
    uint64_t countdown; /* flush operations until the memory is copied; 0: never */
    void *crashed;      /* the copy */
};

/* 4 MiB pool with an index ring of `entries` and pending rings of `descriptors`; 0: defaults. */
void fixture_open(struct fixture *f, uint64_t entries, unsigned descriptors);
/* Any options; `region` is filled in. size 0: 4 MiB. */
void fixture_open_as(struct fixture *f, uint64_t size, const struct log_options *options);
/* The same, on what calls itself an ordinary file, with durability process or machine. */
void fixture_open_file(struct fixture *f, uint64_t size, const struct log_options *options,
                       bool machine);
/* Clean close and reopen on the same memory. */
void fixture_reopen(struct fixture *f);
/* As a killed process would leave it: the memory as it stands, opened anew. The old log is dropped
 * without closing. */
void fixture_kill(struct fixture *f);
void fixture_close(struct fixture *f);

/* The memory is copied at the n-th write-back, drain or copy from now, as a process killed there
 * would leave it. */
void fixture_arm(struct fixture *f, uint64_t n);
/* Go on from that copy, if it was made: true. Disarms. */
bool fixture_crash(struct fixture *f);

/* Bytes of the extents that the manifest stands in. */
uint64_t fixture_manifest(const struct fixture *f);

/* A private copy of the pool's bytes as they stand now; munmap it. */
void *fixture_copy(struct fixture *f);

/* A control action that must succeed; returns the id (or the session for OPEN). */
uint64_t fixture_control(struct fixture *f, struct control c);
uint32_t fixture_topic(struct fixture *f, const char *name); /* order 5, acks 1 */
/* In the root, with what c says of order, retention and the like. */
uint32_t fixture_topic_as(struct fixture *f, const char *name, struct control c);
uint64_t fixture_session(struct fixture *f, uint32_t topic, uint32_t principal);
int fixture_try(struct fixture *f, struct control c, struct commit *commit);

/* Publish one batch of `count` messages and wait: the commit. lengths NULL: equal. */
struct commit fixture_publish(struct fixture *f, struct topic *t, uint64_t session, uint32_t epoch,
                              uint64_t sequence, const void *data, uint32_t length,
                              const uint32_t *lengths, uint32_t count);

/* A batch on its way, with what became of it. */
struct sent {
    struct completion completion;
    struct batch batch;
    struct commit commit;
    _Atomic(bool) done;
};
/* Its completion, for batches that a test announces itself. */
void fixture_told(struct completion *self, const struct commit *commit);
/* Reserve, store and announce from producer `producer`; nothing commits yet. The code of what
 * refused it, else 0 and `s` must stay in place until s->done. */
int fixture_send(struct fixture *f, unsigned producer, struct sent *s, struct topic *t,
                 uint64_t session, uint32_t epoch, uint64_t sequence, const void *data,
                 uint32_t length, const uint32_t *lengths, uint32_t count);

/* The whole topic: malloc'd, *size bytes from the base. */
char *fixture_read(struct topic *t, size_t *size);
/* That is this text. */
void fixture_expect(struct topic *t, const char *text);
/* Bytes of extents that hold something. */
uint64_t fixture_used(struct fixture *f);

#endif
