/* Weeks of churn in a small pool: topics of all settings are filled, read, trimmed by hand, by age, by
 * bytes and by a full pool, renamed, removed and made anew, while the log checkpoints, closes and
 * dies; at the end all is removed, and the pool must be as empty as before.
 *
 *   churn [OPERATIONS [TOPICS [MIB [SEED [REOPEN [TRIMMABLE]]]]]]     tests/churn.sh says how it is run
 *
 * Single-threaded and on a clock of its own: the same arguments do the same. Exit status 1 and a
 * sentence when anything is not as it must be.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/churn/churn.h"

#define WEEKS 3 /* that the campaign takes by its own clock */

uint64_t churn_draw(struct churn *c)
{
    c->random += 0x9e3779b97f4a7c15u;
    uint64_t x = c->random;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void report(const struct churn *c)
{
    const struct churn_counts *n = &c->counts;
    printf("operations %" PRIu64 " batches %" PRIu64 " bytes %" PRIu64 " read %" PRIu64
           " trims %" PRIu64 " trimmed %" PRIu64 " retained %" PRIu64 " removed %" PRIu64
           " renamed %" PRIu64 " attributes %" PRIu64 " sessions %" PRIu64 " large %" PRIu64
           " full %" PRIu64 " scattered %" PRIu64 " unpinned %" PRIu64 " moves %" PRIu64
           " moved %" PRIu64 " blocked %" PRIu64 " least_kept %" PRIu64 " tries %" PRIu64
           " most_tries %" PRIu64 " reopened %" PRIu64 " killed %" PRIu64 " verified %" PRIu64 "\n",
           n->operations, n->batches, n->bytes, n->read, n->trims, n->trimmed, n->retained,
           n->removed, n->renamed, n->attributes, n->sessions, n->large, n->full, n->scattered,
           n->unpinned, n->moves, n->moved, n->blocked, c->least_kept, n->tries, c->most_tries,
           n->reopened, n->killed, n->verified);
}

void churn_fail(const struct churn *c, const char *fmt, ...)
{
    va_list args;
    report(c);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    exit(1);
}

static uint64_t settled(struct churn *c)
{
    struct log_stat st;
    for (int i = 0; i < 3; i++)
        if (log_checkpoint(c->log))
            churn_fail(c, "no checkpoint of an empty pool");
    log_stat_all(c->log, &st);
    return st.used;
}

static void directories(struct churn *c, bool make)
{
    for (unsigned i = 0; i < DIRECTORIES; i++) {
        struct control act = {.kind = MEDIA_C_REMOVE, .id = c->directory[i]};
        struct commit commit;
        if (make)
            act = (struct control){.kind = MEDIA_C_MKDIR, .parent = LOG_ROOT_ID, .mode = 0755};
        if (make)
            snprintf(act.name, sizeof act.name, "d%u", i);
        int rc = churn_control(c, act, &commit);
        if (rc)
            churn_fail(c, "directory %u: %d", i, rc);
        c->directory[i] = commit.id;
    }
}

static void progress(const struct churn *c)
{
    struct log_stat st;
    log_stat_all(c->log, &st);
    fprintf(stderr,
            "%" PRIu64 " operations, %" PRIu64 " MiB kept in %" PRIu64 " of %" PRIu64
            " MiB, full %" PRIu64 ", blocked %" PRIu64 "\n",
            c->counts.operations, c->live >> 20, st.used >> 20, st.data >> 20, c->counts.full,
            c->counts.blocked);
}

static uint64_t argument(int argc, char **argv, int i, uint64_t otherwise)
{
    return i < argc ? strtoull(argv[i], NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
    static struct churn c;
    uint64_t operations = argument(argc, argv, 1, 1000000);
    c.topics = (unsigned)argument(argc, argv, 2, 10000);
    c.size = argument(argc, argv, 3, 2048) << 20;
    c.random = argument(argc, argv, 4, 1);
    uint64_t reopen = argument(argc, argv, 5, 2000000);
    c.trimmable = (unsigned)argument(argc, argv, 6, 45);
    c.least_kept = 1000;
    c.clock = 1000000000 * SECOND;
    c.step = operations ? WEEKS * 7 * 86400 * SECOND / operations : 1;
    c.options.manual = true;
    c.topic = calloc(c.topics, sizeof *c.topic);
    if (!c.topic || operations == 0 || c.topics == 0 || reopen == 0) {
        fprintf(stderr, "usage: churn [OPERATIONS [TOPICS [MIB [SEED [REOPEN [TRIMMABLE]]]]]]\n");
        return 2;
    }
    churn_open(&c);
    uint64_t empty = settled(&c);
    directories(&c, true);
    for (unsigned i = 0; i < c.topics; i++)
        churn_make(&c, &c.topic[i]);
    for (uint64_t i = 1; i <= operations; i++) {
        churn_step(&c);
        if (i % reopen == 0) {
            churn_reopen(&c, churn_below(&c, 2));
            progress(&c);
        }
    }
    churn_commit(&c);
    churn_verify(&c);
    for (unsigned i = 0; i < c.topics; i++)
        if (c.topic[i].t)
            churn_drop(&c, &c.topic[i]);
    for (unsigned i = 0; i < PINS; i++)
        churn_unpin(&c, &c.pin[i]);
    directories(&c, false);
    uint64_t left = settled(&c);
    if (left != empty)
        churn_fail(&c, "%" PRIu64 " bytes are used when all is removed, %" PRIu64 " before", left,
                   empty);
    churn_close(&c);
    report(&c);
    free(c.topic);
    return 0;
}
