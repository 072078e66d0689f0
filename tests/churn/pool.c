/* The campaign's pool: memory that can be turned private while a log closes, so that what stands in it
 * is what a killed process would have left. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/churn/churn.h"

/* Time is the campaign's, so that weeks pass: linked with --wrap. */
static uint64_t *clock_now;
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    (void)clock;
    uint64_t now = clock_now ? *clock_now : SECOND;
    *ts = (struct timespec){.tv_sec = (time_t)(now / SECOND), .tv_nsec = (long)(now % SECOND)};
    return 0;
}

static void map(struct churn *c, int how)
{
    int fixed = c->at ? MAP_FIXED : 0;
    void *p = mmap(c->at, c->size, PROT_READ | PROT_WRITE, how | fixed, c->memory, 0);
    if (p == MAP_FAILED)
        churn_fail(c, "mmap: %d", errno);
    c->at = p;
}

static void open_log(struct churn *c)
{
    struct embar_error err = {0};
    region_wrap(&c->region, c->at, c->size, NULL);
    c->options.region = &c->region;
    if (log_open(&c->log, &c->options, &err))
        churn_fail(c, "opening: %s", err.text);
}

void churn_open(struct churn *c)
{
    clock_now = &c->clock;
    c->memory = memfd_create("churn", MFD_CLOEXEC);
    if (c->memory < 0 || ftruncate(c->memory, (off_t)c->size) != 0)
        churn_fail(c, "no memory for the pool: %d", errno);
    map(c, MAP_SHARED);
    open_log(c);
}

static void close_log(struct churn *c)
{
    struct log_stat st;
    log_stat_all(c->log, &st);
    c->counts.moves += st.moves;
    c->counts.moved += st.moved;
    log_close(c->log);
    region_close(&c->region);
    c->log = NULL;
}

void churn_reopen(struct churn *c, bool kill)
{
    churn_commit(c);
    for (unsigned i = 0; i < PINS; i++)
        churn_unpin(c, &c->pin[i]);
    for (unsigned i = 0; i < c->topics; i++)
        if (c->topic[i].t)
            topic_put(c->topic[i].t);
    /* What closing writes is then seen by nobody. */
    if (kill)
        map(c, MAP_PRIVATE);
    close_log(c);
    if (kill)
        map(c, MAP_SHARED);
    open_log(c);
    for (unsigned i = 0; i < c->topics; i++) {
        struct churn_topic *k = &c->topic[i];
        if (k->t && !(k->t = log_topic(c->log, k->id)))
            churn_fail(c, "topic %u is gone after opening", k->id);
    }
    c->counts.reopened++;
    c->counts.killed += kill;
    churn_verify(c);
}

void churn_close(struct churn *c)
{
    close_log(c);
    munmap(c->at, c->size);
    close(c->memory);
}
