/* A churn of topics: state of the campaign, shared by its files. One thread, a clock of its own. */
#ifndef TESTS_CHURN_CHURN_H
#define TESTS_CHURN_CHURN_H

#include "core/log_state.h"

#define SECOND      1000000000ull
#define DIRECTORIES 20u
#define PINS        24u
#define GROUP       8u

struct churn_topic {
    struct topic *t; /* NULL: removed */
    uint32_t id;
    uint64_t base, end, first, messages; /* as promised */
    uint64_t keep, age, written;         /* written: time of its last batch */
    uint64_t session, sequence, session_messages;
    uint32_t epoch;
    unsigned directory, name;
    uint8_t policy;
};

struct churn_pin {
    struct read_view view;
    uint32_t id;
    uint64_t at;
    bool held;
};

struct churn_sent {
    struct completion completion;
    struct batch batch;
    struct commit commit;
    struct churn_topic *topic;
    uint64_t offset; /* where it must stand */
    bool done;
};

struct churn_counts {
    uint64_t operations, batches, bytes, read, trims, retained, trimmed, removed, renamed,
        attributes;
    uint64_t sessions, duplicates, full, scattered, unpinned, blocked, tries, reopened, killed,
        verified, large, moves, moved;
};

struct churn {
    uint64_t random, clock; /* clock: ns, moved by every operation */
    uint64_t step;          /* ns an operation */
    int memory;             /* memfd */
    void *at;
    uint64_t size;
    struct region region;
    struct log_options options;
    struct log *log;
    struct churn_topic *topic;
    unsigned topics, directory[DIRECTORIES], names;
    struct churn_pin pin[PINS];
    struct churn_sent sent[GROUP];
    unsigned grouped;
    uint64_t live;      /* payload bytes kept, as of the last look at each */
    unsigned trimmable; /* of 100 topics: may be trimmed when the pool is full */
    uint64_t most_tries;
    uint64_t
        least_kept; /* payload bytes kept when somebody had to wait, in thousandths of the data area */
    struct churn_counts counts;
};

/* Says what is wrong and ends the program. */
void churn_fail(const struct churn *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
uint64_t churn_draw(struct churn *c);
static inline uint32_t churn_below(struct churn *c, uint32_t n)
{
    return (uint32_t)((churn_draw(c) >> 32) * n >> 32);
}

/* pool.c: the pool's memory, opening, dying. */
void churn_open(struct churn *c);
/* Clean, or as a killed process leaves it. */
void churn_reopen(struct churn *c, bool kill);
void churn_close(struct churn *c);

/* check.c: what retention took was lawful; some bytes; everything. */
void churn_follow(struct churn *c, struct churn_topic *k);
void churn_read(struct churn *c, struct churn_topic *k, uint64_t at, uint64_t n);
void churn_pin(struct churn *c, struct churn_pin *p, struct churn_topic *k);
void churn_unpin(struct churn *c, struct churn_pin *p);
void churn_verify(struct churn *c);

/* work.c */
int churn_control(struct churn *c, struct control control, struct commit *commit);
void churn_commit(struct churn *c); /* what is grouped */
void churn_make(struct churn *c, struct churn_topic *k);
void churn_drop(struct churn *c, struct churn_topic *k);
void churn_step(struct churn *c);

#endif
