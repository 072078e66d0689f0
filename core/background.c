/* The background thread: what no publisher should wait for (steps 7 and 8).
 *
 * Design notes
 *   Work      epochs handed over by combiners (or all of them where the drain is a file sync),
 *             checkpoints at half an index ring, gaps that lasted too long, trims and moves when
 *             the pool is full (retain.c, move.c), the file sync that
 *             advances the synced watermark.
 *   Sleep     on an eventfd, without a timeout unless a hold or a sync is due: idle costs nothing.
 *             It sets `asleep`, looks at the work once more and then sleeps; a waker stores its work
 *             and then swaps `asleep` to false: both seq_cst, so one of them sees the other.
 *   Stop      background_stop sets `stop`, wakes and joins; nothing is left half done.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/log_state.h"

#define SYNC_INTERVAL_MS 1000
#define CLOCK_LOOK_MS    3600000 /* dates are by the wall clock, which may be set */

bool background_only(const struct log *log)
{
    return log->region->needs_sync && log->region->durability == MEDIA_DURABLE_MACHINE;
}

void background_wake(struct log *log)
{
    if (log->thread_started &&
        atomic_exchange_explicit(&log->asleep, false, memory_order_seq_cst)) {
        uint64_t one = 1;
        while (write(log->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
}

static bool checkpoint_due(const struct log *log)
{
    uint64_t since = atomic_load_explicit(&log->committed, memory_order_relaxed) -
                     atomic_load_explicit(&log->checkpoint, memory_order_relaxed);
    return since >= log->pool.geo.index_entries / 2;
}

static bool sync_due(const struct log *log)
{
    return log->region->needs_sync && !background_only(log) &&
           (atomic_load_explicit(&log->synced, memory_order_relaxed) <
                atomic_load_explicit(&log->committed, memory_order_relaxed) ||
            extents_waiting(log->extents)); /* freed after the sync of what freed it */
}

int background_sync(struct log *log)
{
    uint64_t mark = extents_mark(log->extents);
    uint64_t number = atomic_load_explicit(&log->committed, memory_order_acquire);
    int rc = region_sync(log->region);
    if (rc == 0)
        rc = index_synced(&log->pool, log->slot, &log->syncs,
                          &(struct mark){.number = number, .term = log->term});
    if (rc) {
        log_fault(log, rc);
        return rc;
    }
    atomic_store_explicit(&log->synced, number, memory_order_release);
    extents_settle(log->extents, mark);
    return 0;
}

/* Somebody waits for space that waits for a sync. */
static bool sync_wanted(const struct log *log)
{
    return atomic_load_explicit(&log->starved, memory_order_relaxed) &&
           extents_waiting(log->extents);
}

/* Retention, turn by turn, so that epochs run in between. False: nothing can be done now. */
static void retain(struct log *log)
{
    uint64_t now = now_realtime();
    if (!retain_due(log) && retain_wait(log, now) > 0)
        return;
    enum retain_next next;
    do {
        seq_take_wait(log);
        next = retain_run(log, now);
        (void)seq_epoch(log);
        seq_give(log);
        if (next == RETAIN_SYNC && background_sync(log) != 0)
            return;
        if (next == RETAIN_MOVE)
            retain_move(log, true);
    } while (next != RETAIN_DONE);
}

/* Epochs, holds and checkpoint. */
static void work(struct log *log)
{
    if (seq_take(log)) {
        while (seq_epoch(log) > 0 && !retain_due(log))
            ;
        order_expire(log, now_monotonic());
        /* Without space for it the next half ring tries again; seq_room tries when it must. */
        if (checkpoint_due(log) && !log->region->needs_sync)
            (void)!checkpoint_write(log);
        seq_give(log);
    }
    if (checkpoint_due(log) && log->region->needs_sync)
        (void)!checkpoint_write_aside(log);
    retain(log);
    /* Who announced meanwhile found the role taken. */
    if (seq_pending(log) && !background_only(log))
        log_commit(log);
}

/* How long to sleep. `sync_armed` tells committers that this thread will see what they committed:
 * it is cleared before the look at what is due, and they look at it after they committed. */
static int timeout_ms(struct log *log)
{
    atomic_store_explicit(&log->sync_armed, false, memory_order_seq_cst);
    bool sync = sync_due(log);
    if (sync)
        atomic_store_explicit(&log->sync_armed, true, memory_order_seq_cst);
    uint64_t ms = sync ? SYNC_INTERVAL_MS : UINT64_MAX;
    if (atomic_load_explicit(&log->seq.holds, memory_order_relaxed) > 0)
        ms = log->hold_ns / 4000000 + 1;
    uint64_t retain = retain_wait(log, now_realtime());
    if (retain != UINT64_MAX) {
        uint64_t until = retain / 1000000 + 1;
        until = until < CLOCK_LOOK_MS ? until : CLOCK_LOOK_MS;
        ms = until < ms ? until : ms;
    }
    return ms == UINT64_MAX ? -1 : (int)ms;
}

void background_arm_sync(struct log *log)
{
    if (log->region->needs_sync && !background_only(log) &&
        !atomic_load_explicit(&log->sync_armed, memory_order_seq_cst) &&
        !atomic_exchange_explicit(&log->sync_armed, true, memory_order_seq_cst))
        background_wake(log);
}

static void *background_main(void *arg)
{
    struct log *log = arg;
    uint64_t synced_at = now_monotonic();
    while (!atomic_load_explicit(&log->stop, memory_order_acquire)) {
        work(log);
        uint64_t now = now_monotonic();
        if ((sync_due(log) && now - synced_at >= SYNC_INTERVAL_MS * 1000000ull) ||
            sync_wanted(log)) {
            (void)!background_sync(log);
            synced_at = now_monotonic();
        }
        atomic_store_explicit(&log->asleep, true, memory_order_seq_cst);
        if (atomic_exchange_explicit(&log->seq.handed, false, memory_order_seq_cst) ||
            (seq_pending(log) && (background_only(log) ||
                                  atomic_load_explicit(&log->seq.stalled, memory_order_relaxed))) ||
            atomic_load_explicit(&log->stop, memory_order_seq_cst)) {
            atomic_store_explicit(&log->asleep, false, memory_order_seq_cst);
            continue;
        }
        struct pollfd p = {.fd = log->wake_fd, .events = POLLIN};
        int n = poll(&p, 1, timeout_ms(log));
        uint64_t count;
        if (n > 0 && read(log->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
            break;
        atomic_store_explicit(&log->asleep, false, memory_order_seq_cst);
    }
    return NULL;
}

int background_start(struct log *log)
{
    log->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (log->wake_fd < 0)
        return -errno;
    int rc = pthread_create(&log->thread, NULL, background_main, log);
    if (rc) {
        close(log->wake_fd);
        log->wake_fd = -1;
        return -rc;
    }
    log->thread_started = true;
    return 0;
}

void background_stop(struct log *log)
{
    if (!log->thread_started)
        return;
    atomic_store_explicit(&log->stop, true, memory_order_seq_cst);
    background_wake(log);
    pthread_join(log->thread, NULL);
    log->thread_started = false;
    close(log->wake_fd);
    log->wake_fd = -1;
}

void log_tick(struct log *log, uint64_t now_ns)
{
    if (log->readonly)
        return;
    seq_take_wait(log);
    order_expire(log, now_ns);
    int rc = checkpoint_due(log) ? checkpoint_write(log) : 0;
    (void)rc;
    uint64_t mono = now_monotonic(), now = now_realtime() + (now_ns > mono ? now_ns - mono : 0);
    for (enum retain_next next = RETAIN_MORE; next != RETAIN_DONE;) {
        next = retain_run(log, now);
        if (next == RETAIN_SYNC && background_sync(log) != 0)
            break;
        if (next == RETAIN_MOVE)
            retain_move(log, false);
    }
    if (sync_due(log))
        (void)!background_sync(log);
    seq_give(log);
    if (log->manual)
        log_commit(log);
}
