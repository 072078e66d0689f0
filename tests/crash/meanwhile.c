/* What others do meanwhile: publishers and administrators who have their turns at the flushes of whoever is
 * at work, readers whose replies are on their way, and the background thread's checkpoints and syncs,
 * which others go on beside. So what is freed or left open too early is taken at once. Must never do
 * what the log's contract forbids: with the sequencer's role held, others reserve, store and announce.
 */
#include <errno.h>
#include <inttypes.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/crash/publish.h"

/* ---- Turns -------------------------------------------------------------------------------- */

/* Their own ring, which nobody empties now, must not be full. */
static void publish(struct trial *r)
{
    struct flight *f = publish_reserve(r);
    if (f && publish_room(r, f))
        publish_announce(r, f);
}

/* What is in flight already, its own caller will settle. */
static void turn(struct trial *r, bool much)
{
    bool role = atomic_load(&r->log->seq.running);
    uint32_t dice = below(&r->random, 8);
    if (role || dice < (much ? 2 : 5))
        publish(r);
    else if (dice < (much ? 5 : 6) || r->controlling)
        publish_commit(r);
    else
        workload_control(r);
}

/* While the background thread waits for a sync there is time for much. */
void meanwhile_turn(void *arg)
{
    struct trial *r = arg;
    bool much = r->aside && r->log && !atomic_load(&r->log->seq.running);
    if (r->between || r->packing || !r->log || r->death || r->failed ||
        !chance(&r->random, r->moving ? (much ? 30 : 4)
                            : much    ? 2
                            : r->brim ? 8
                                      : 60))
        return;
    r->between = true;
    r->busy = team_self();
    r->counts->moments++;
    if (much)
        workload_trims(r);
    for (unsigned n = 1 + below(&r->random, much ? 16 : 4); n > 0 && !r->death && !r->failed; n--)
        turn(r, much);
    r->busy = TEAM_SIZE;
    r->between = false;
}

/* ---- Replies ------------------------------------------------------------------------------ */

static uint32_t view_crc(const struct read_view *v)
{
    uint32_t crc = 0;
    for (int i = 0; i < v->pieces; i++)
        crc = crc32c(crc, v->iov[i].iov_base, v->iov[i].iov_len);
    return crc;
}

/* Of the bytes that were promised. */
static uint32_t ledger_crc(const struct ledger *l, const struct node *n, uint64_t from, uint64_t to)
{
    static char bytes[1 << 16];
    uint32_t crc = 0;
    for (size_t i = ledger_find(l, n, from); from < to; i++) {
        const struct entry_batch *b = ledger_batch(l, n->id, i);
        uint64_t end = b->offset + b->length < to ? b->offset + b->length : to;
        payload_fill(b->serial, (uint32_t)(from - b->offset), bytes, end - from);
        crc = crc32c(crc, bytes, end - from);
        from = end;
    }
    return crc;
}

static void pin_end(struct trial *r, struct pin *p, bool look)
{
    if (look && view_crc(&p->view) != p->crc)
        trial_fail(r, "topic %u: a reply changed on its way", p->topic);
    read_release(&p->view);
    p->held = false;
}

void meanwhile_unpin(struct trial *r, bool look)
{
    for (unsigned i = 0; i < PINS; i++)
        if (r->pins[i].held)
            pin_end(r, &r->pins[i], look);
}

void meanwhile_pin(struct trial *r)
{
    struct pin *p = &r->pins[below(&r->random, PINS)];
    const struct node *n = some_node(r, false);
    if (p->held) {
        pin_end(r, p, true);
        return;
    }
    if (!n || n->base == n->end)
        return;
    uint64_t from = n->base + draw(&r->random) % (n->end - n->base);
    uint64_t most = 1 + below(&r->random, 60000);
    int rc = topic_read(trial_topic(r, n->id), from, most < n->end - from ? most : n->end - from,
                        &p->view);
    if (rc || p->view.bytes == 0) {
        trial_fail(r, "topic %u: reading at %" PRIu64 ": %d", n->id, from, rc);
        return;
    }
    r->counts->pins++;
    p->held = true;
    p->topic = n->id;
    p->crc = ledger_crc(&r->now, n, from, from + p->view.bytes);
    if (view_crc(&p->view) != p->crc)
        trial_fail(r, "topic %u: wrong bytes read at %" PRIu64, n->id, from);
}

/* ---- The background thread ---------------------------------------------------------------- */

static void job_checkpoint(void *arg)
{
    struct job *j = arg;
    j->rc = checkpoint_write_aside(j->run->log);
}

static void job_sync(void *arg)
{
    struct job *j = arg;
    j->rc = background_sync(j->run->log);
}

/* As retain (background.c). */
static void job_retention(void *arg)
{
    struct job *j = arg;
    struct log *log = j->run->log;
    uint64_t now = now_realtime(), moved = atomic_load(&log->moved);
    for (enum retain_next next = RETAIN_MORE; j->rc == 0 && next != RETAIN_DONE;) {
        seq_take_wait(log);
        next = retain_run(log, now);
        (void)seq_epoch(log);
        seq_give(log);
        if (next == RETAIN_SYNC)
            j->rc = background_sync(log);
        if (next == RETAIN_MOVE)
            retain_move(log, true);
    }
    j->run->counts->moved += atomic_load(&log->moved) - moved;
}

void meanwhile_aside(struct trial *r, enum aside what)
{
    static void (*const jobs[])(void *arg) = {job_checkpoint, job_sync, job_retention};
    struct job j = {.run = r};
    r->now.old = chance_now() + 1000000; /* as job_tick */
    r->aside = true;
    team_call(r->team, TEAM_SIZE - 1, jobs[what], &j);
    r->aside = false;
    if (!r->death && j.rc && j.rc != -EMBAR_EFULL)
        trial_fail(r, "the background thread's job %d: %d", (int)what, j.rc);
    workload_trims(r);
    trial_tidy(r);
}
