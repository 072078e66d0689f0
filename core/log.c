/* The log as a whole: open, close, facts, waiting control actions.
 *
 * Opening: lock the slot, format a blank region, check the superblock, recover, claim the slot under
 * a new term, harden the tail that recovery accepted, write the term entry. Nothing is written
 * before recovery has succeeded, so a pool that cannot be opened is left as it was.
 */
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/log_state.h"

#define LOOKS 50u /* at a pool that another process changes */

static void freed(void *arg)
{
    struct log *log = arg;
    if (extents_waiting(log->extents)) {
        if (atomic_load_explicit(&log->starved, memory_order_relaxed))
            background_wake(log);
        else
            background_arm_sync(log); /* a last close frees without a commit that would */
    }
    log_starved(log);
}

void log_fault(struct log *log, int status)
{
    int none = 0;
    bool first = atomic_compare_exchange_strong_explicit(
        &log->cause, &none, status, memory_order_seq_cst, memory_order_seq_cst);
    /* Found by a system call: where is not known, but that readers must look is. */
    uint_fast64_t nowhere = 0;
    if (status == -EMBAR_EFAULTED)
        atomic_compare_exchange_strong_explicit(&log->region->fault, &nowhere,
                                                REGION_FAULT_SOMEWHERE, memory_order_relaxed,
                                                memory_order_relaxed);
    atomic_store_explicit(&log->faulted, true, memory_order_seq_cst);
    if (!first)
        return;
    watch_fire(&log->space); /* who waits for space would wait for ever */
    if (log->on_fault) {
        char text[LOG_CAUSE_SIZE];
        log->on_fault(log->on_fault_arg, log_cause(log, text, sizeof text));
    }
}

const char *log_cause(const struct log *log, char *buf, size_t size)
{
    int cause = atomic_load_explicit(&log->cause, memory_order_seq_cst);
    const char *pool = log->region->spec ? log->region->spec : "memory";
    uint64_t at = atomic_load_explicit(&log->region->fault, memory_order_relaxed);
    char where[64] = "";
    if (at && at != REGION_FAULT_SOMEWHERE)
        snprintf(where, sizeof where, " at byte %llu", (unsigned long long)(at - 1));
    if (cause == 0)
        return NULL;
    if (cause == -EMBAR_EFAULTED)
        snprintf(buf, size,
                 "the memory of the pool %s is gone%s: its file was truncated, or its device "
                 "failed or was taken away. Nothing more is accepted; what is still there can be "
                 "read. Mend the cause, then mount it again.",
                 pool, where);
    else if (cause == -ENOMEM)
        snprintf(buf, size,
                 "there was no memory to go on with what the pool %s had just committed. Nothing "
                 "more is accepted and nothing is lost: free some memory, then mount it again.",
                 pool);
    else
        snprintf(buf, size,
                 "the pool %s could not be synced to its disk (%s). Nothing more is accepted or "
                 "acknowledged; what is there can be read. Check the disk and the system log, then "
                 "mount it again.",
                 pool, strerrordesc_np(-cause) ? strerrordesc_np(-cause) : "unknown error");
    return buf;
}

static int claim_put(void *arg)
{
    return pool_put(arg);
}

/* Ordering rule "claim": the line is durable before anything of the new term is written. What is announced from
 * then on is no older, should the clock step back: so it is told from what was before, which is void. */
int log_claim(struct log *log, uint32_t pid)
{
    uint64_t now = now_realtime(), clock = atomic_load_explicit(&log->clock, memory_order_relaxed);
    now = now > clock ? now : clock;
    if (pid)
        atomic_store_explicit(&log->clock, now, memory_order_relaxed);
    struct media_claim *at = pool_claim(&log->pool, log->slot);
    struct media_claim c = {.magic = le32_of(MEDIA_CLAIM_MAGIC),
                            .term = le32_of(log->term),
                            .pid = le32_of(pid),
                            .start = le64_of(log->seq.next),
                            .time = le64_of(now)};
    host_machine_id(c.host);
    memcpy(c.boot_id, log->pool.boot_id, sizeof c.boot_id);
    c.crc = le32_of(crc32c(0, &c, sizeof c));
    struct pool_record r = {&log->pool, at, &c, sizeof c};
    int rc = guard_run(log->region, claim_put, &r);
    flush_drain(log->pool.flush);
    return rc;
}

static int producers_create(struct log *log)
{
    struct seq *q = &log->seq;
    q->producers = log->pool.geo.producers;
    q->producer = aligned_alloc(64, q->producers * sizeof *q->producer);
    if (!q->producer)
        return -ENOMEM;
    memset(q->producer, 0, q->producers * sizeof *q->producer);
    for (unsigned i = 0; i < q->producers; i++) {
        struct producer *p = &q->producer[i];
        p->log = log;
        p->index = i;
        p->limit = log->pool.geo.descriptors;
        p->batch = calloc(p->limit, sizeof(struct batch *));
        if (!p->batch)
            return -ENOMEM;
    }
    return 0;
}

void log_free(struct log *log)
{
    background_stop(log);
    names_destroy(log);
    retain_destroy(log);
    if (log->control)
        topic_destroy(log->control);
    sessions_destroy(log);
    manifest_destroy(log);
    for (size_t i = 0; i < log->retired_count; i++)
        extent_put(log->extents, log->retired[i]);
    free(log->retired);
    free(log->grant);
    free(log->copying);
    if (log->seq.producer)
        for (unsigned i = 0; i < log->seq.producers; i++)
            free(log->seq.producer[i].batch);
    free(log->seq.producer);
    extents_destroy(log->extents);
    pthread_mutex_destroy(&log->space.lock);
    pthread_mutex_destroy(&log->idle.lock);
    free(log);
}

int log_create(struct log **out, const struct log_options *opt)
{
    struct log *log = aligned_alloc(64, (sizeof *log + 63) / 64 * 64);
    if (!log)
        return -ENOMEM;
    memset(log, 0, sizeof *log);
    log->region = opt->region;
    log->readonly = opt->readonly;
    log->manual = opt->manual;
    log->on_fault = opt->fault;
    log->on_fault_arg = opt->fault_arg;
    log->hold_ns = (uint64_t)(opt->hold_ms ? opt->hold_ms : 2000) * 1000000;
    log->sessions.limit = opt->sessions ? opt->sessions : 65536;
    log->sessions.each = log->sessions.limit > 256 ? log->sessions.limit / 4 : log->sessions.limit;
    log->sessions.lifetime_ns =
        (uint64_t)(opt->session_lifetime_s ? opt->session_lifetime_s : 24 * 3600) * 1000000000;
    TAILQ_INIT(&log->sessions.by_age);
    TAILQ_INIT(&log->seq.gaps);
    log->names.limit = opt->topics ? opt->topics : 100000;
    log->wake_fd = -1;
    log->seq.told_last = &log->seq.told;
    atomic_init(&log->retain.date, UINT64_MAX);
    pthread_mutex_init(&log->sessions.lock, NULL);
    watch_init(&log->space);
    places_init(log);
    idle_init(&log->idle);
    manifest_init(&log->manifest);
    int rc = names_init(log);
    if (rc) {
        pthread_mutex_destroy(&log->sessions.lock);
        free(log);
        return rc;
    }
    *out = log;
    return 0;
}

static int lost(const struct log *log, struct embar_error *err)
{
    return embar_fail(
        err, -EMBAR_EFAULTED, "%s cannot be read at byte %llu",
        log->region->spec ? log->region->spec : "the pool",
        (unsigned long long)atomic_load_explicit(&log->region->fault, memory_order_relaxed) - 1);
}

int log_attach(struct log *log, const struct log_options *opt, struct embar_error *err)
{
    int rc = pool_attach(&log->pool, log->region, err);
    if (rc)
        return rc;
    if (opt->boot_id)
        memcpy(log->pool.boot_id, opt->boot_id, sizeof log->pool.boot_id);
    rc = extents_create(&log->extents, &log->pool, freed, log);
    if (rc == 0)
        rc = topic_create(log, 0, &log->control);
    if (rc == 0)
        rc = producers_create(log);
    return rc ? embar_fail(err, rc, "no memory for the log's tables") : 0;
}

static int log_load(struct log *log, const struct log_options *opt, struct embar_error *err)
{
    int rc = 0;
    if (!log->readonly) {
        rc = region_lock_slot(log->region, log->slot, err);
        if (rc)
            return rc;
        if (pool_is_blank(log->region)) {
            rc = pool_format(log->region, &opt->geo, err);
            if (rc)
                return rc;
        }
    }
    rc = log_attach(log, opt, err);
    if (rc)
        return rc;
    rc = recover(log, err);
    /* What could not be read looks like damage, or like the end of the log: neither is known. */
    return region_faulted(log->region) ? lost(log, err) : rc;
}

/* Every topic goes on where its committed bytes end. */
static int topics_resume(struct log *log)
{
    int rc = 0;
    fold_need(log);
    for (struct topic *t = log->names.by_id; rc == 0 && t; t = t->by_id.next) {
        t->ordered_end = topic_end(t);
        t->ordered_time = t->time;
        if (t->time > atomic_load_explicit(&log->clock, memory_order_relaxed))
            atomic_init(&log->clock, t->time);
        topic_runs_fit(t);
        rc = topic_refill(t);
    }
    log->control->ordered_end = topic_end(log->control);
    return rc ? rc : topic_refill(log->control);
}

/* From recovered to serving: everything that opening writes. */
static int log_serve(struct log *log, struct embar_error *err)
{
    uint64_t tail = atomic_load_explicit(&log->durable, memory_order_relaxed) + 1;
    log->term++;
    /* What recovery accepted was stored but perhaps never drained: the root (with the claim's drain)
     * and the entries above the watermark. Both are about to be built upon. */
    int rc = checkpoint_harden(log);
    if (rc == 0)
        rc = log_claim(log, (uint32_t)getpid());
    uint64_t first = log->checkpoint + 1 > tail ? log->checkpoint + 1 : tail;
    if (rc == 0 && first < log->seq.next)
        rc = index_harden(&log->pool, log->slot, first, log->seq.next - first);
    if (rc == 0)
        rc = region_sync(log->region);
    if (rc == 0)
        rc = topics_resume(log);
    if (rc == 0)
        rc = seq_term(log);
    bool granted = false;
    for (size_t i = 0; i < log->grant_count; i++)
        granted = granted || le32_get(log->grant[i].slot) == log->slot;
    if (rc == 0 && !granted)
        rc = seq_grant(log, log->slot, 0, log->pool.geo.regions / log->pool.geo.brokers);
    if (region_faulted(log->region))
        return lost(log, err);
    if (rc)
        return embar_fail(err, rc, "the pool cannot be opened for writing");
    retain_resume(log);
    atomic_init(&log->trims, 0); /* by the replay */
    atomic_init(&log->trimmed, 0);
    /* Where an epoch is synced before it is folded, what the fold frees is free. */
    if (log->region->needs_sync && !background_only(log))
        extents_defer(log->extents);
    return 0;
}

/* Looking while another process serves: it may have moved on while we read, which looks like damage.
 * Look again, some times. No lock tells of a server on another host, but its checkpoints do. */
static bool look_again(struct log *log, int rc, unsigned *looks)
{
    return log->readonly && rc == -EMBAR_ECORRUPT && ++*looks < LOOKS &&
           ((log->pool.base && checkpoint_moved(log)) || region_slot_held(log->region, log->slot));
}

int log_open(struct log **out, const struct log_options *opt, struct embar_error *err)
{
    struct log *log;
    uint64_t limit = UINT64_MAX;
    unsigned looks = 0;
    int rc;
    for (;;) {
        rc = log_create(&log, opt);
        if (rc)
            return embar_fail(err, rc, "no memory for the log");
        log->limit = limit;
        rc = log_load(log, opt, err);
        bool again = look_again(log, rc, &looks);
        if (rc != -EAGAIN && !again)
            break;
        limit = again ? UINT64_MAX : log->limit;
        log_free(log);
    }
    if (rc == 0 && !log->readonly)
        rc = log_serve(log, err);
    if (rc == 0 && !log->readonly && !log->manual) {
        rc = background_start(log);
        if (rc)
            (void)embar_fail(err, rc, "the log's background thread cannot be started");
    }
    if (rc) {
        log_free(log);
        return rc;
    }
    *out = log;
    return 0;
}

/* The last lines of a term; a pool that failed gets none, so that the next open looks for itself. */
static void log_sign_off(struct log *log)
{
    log->marks = log->syncs = 0;
    const struct mark m = {log->seq.next - 1, log->seq.chain, log->term};
    int rc = index_watermark(&log->pool, log->slot, &log->marks, &m);
    if (rc == 0)
        rc = index_synced(&log->pool, log->slot, &log->syncs, &m);
    if (rc == 0)
        rc = log_claim(log, 0);
    if (rc == 0 && log->region->needs_sync)
        rc = region_sync(log->region);
    if (rc)
        log_fault(log, rc);
}

void log_close(struct log *log)
{
    if (!log)
        return;
    if (!log->readonly) {
        background_stop(log);
        seq_take_wait(log);
        while (seq_epoch(log) > 0)
            ;
        for (struct session *s = log->sessions.by_id; s; s = s->hh.next)
            order_release(log, s, -EMBAR_ESHUTDOWN);
        seq_tell(log);
        bool clean = checkpoint_write(log) == 0;
        if (!clean && log->region->needs_sync)
            (void)!background_sync(log); /* what there is, as far as it goes */
        if (!log_faulted(log))
            log_sign_off(log);
    }
    log_free(log);
}

struct pool *log_pool(struct log *log)
{
    return &log->pool;
}

unsigned log_producers(const struct log *log)
{
    return log->seq.producers;
}

struct producer *log_producer(struct log *log, unsigned i)
{
    return i < log->seq.producers ? &log->seq.producer[i] : NULL;
}

/* ---- Waiting ------------------------------------------------------------------------------ */

struct waiter {
    struct completion completion;
    pthread_mutex_t lock; /* guards done */
    pthread_cond_t cond;
    bool done;
    struct commit commit;
};

static void waiter_done(struct completion *self, const struct commit *commit)
{
    struct waiter *w = (struct waiter *)self;
    pthread_mutex_lock(&w->lock);
    w->commit = *commit;
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int log_control_wait(struct log *log, struct control *c, struct commit *commit)
{
    struct waiter w = {.completion.done = waiter_done,
                       .lock = PTHREAD_MUTEX_INITIALIZER,
                       .cond = PTHREAD_COND_INITIALIZER};
    c->completion = &w.completion;
    log_control(log, c);
    if (log->manual && background_only(log)) {
        seq_take_wait(log);
        while (seq_epoch(log) > 0)
            ;
        seq_give(log);
    } else {
        log_commit(log);
    }
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    if (commit)
        *commit = w.commit;
    return w.commit.status;
}

/* ---- Facts -------------------------------------------------------------------------------- */

void log_stat_all(struct log *log, struct log_stat *st)
{
    struct extents_stat x;
    extents_stat(log->extents, &x);
    *st = (struct log_stat){
        .size = log->pool.size,
        .data = log->pool.data_size,
        .used = x.used,
        .reserved = atomic_load_explicit(&log->reserved, memory_order_relaxed),
        .free = x.free > x.reserve ? x.free - x.reserve : 0,
        .committed = atomic_load_explicit(&log->committed, memory_order_relaxed),
        .durable = atomic_load_explicit(&log->durable, memory_order_relaxed),
        .synced = atomic_load_explicit(&log->synced, memory_order_relaxed),
        .checkpoint = atomic_load_explicit(&log->checkpoint, memory_order_relaxed),
        .epochs = atomic_load_explicit(&log->epochs, memory_order_relaxed),
        .batches = atomic_load_explicit(&log->batches, memory_order_relaxed),
        .messages = atomic_load_explicit(&log->messages, memory_order_relaxed),
        .bytes = atomic_load_explicit(&log->bytes, memory_order_relaxed),
        .duplicates = atomic_load_explicit(&log->duplicates, memory_order_relaxed),
        .held = atomic_load_explicit(&log->held, memory_order_relaxed),
        .fenced = atomic_load_explicit(&log->fenced, memory_order_relaxed),
        .trims = atomic_load_explicit(&log->trims, memory_order_relaxed),
        .trimmed = atomic_load_explicit(&log->trimmed, memory_order_relaxed),
        .moves = atomic_load_explicit(&log->moves, memory_order_relaxed),
        .moved = atomic_load_explicit(&log->moved, memory_order_relaxed),
        .recovered = log->recovered,
        .recovery_ns = log->recovery_ns,
        .max_sessions = log->sessions.limit,
        .term = log->term,
        .slot = log->slot,
        .incarnation = log->pool.incarnation,
        .faulted = atomic_load_explicit(&log->faulted, memory_order_relaxed),
    };
    pthread_rwlock_rdlock(&log->names.lock);
    st->topics = log->names.topics;
    st->directories = log->names.directories;
    st->max_nodes = log->names.limit;
    pthread_rwlock_unlock(&log->names.lock);
    pthread_mutex_lock(&log->sessions.lock);
    st->sessions = log->sessions.count;
    pthread_mutex_unlock(&log->sessions.lock);
}
