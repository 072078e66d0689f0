/* What a repair is about to write, by the rules of every load (recovery): a checkpoint that is refused
 * would leave a pool that does not open, whatever the mistake was that led to it. What no load takes is
 * given up here, as little as possible, and saved aside. Changes the state found; never writes to the pool.
 */
#include <inttypes.h>
#include <string.h>

#include "core/fsck_state.h"
#include "core/sane.h"

#define U64 "%" PRIu64

bool fsck_loads(const struct log *log, const struct topic *t)
{
    struct media_node m;
    manifest_node(t, &m);
    return manifest_node_sane(&m, t->key.name) && (names_is_dir(t) || table_check(log, t) == 0);
}

static void totals_mend(struct fsck *f, struct topic *t)
{
    if (t->first_message <= t->last_message_end)
        return;
    fsck_say(f,
             &(struct finding){.kind = FSCK_TOTALS,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .id = t->id,
                               .offsets = {topic_base(t), topic_base(t)}},
             "The oldest retained message is said to be number " U64 ", and only " U64
             " were published.",
             t->first_message, t->last_message_end);
    t->first_message = t->last_message_end;
}

static void lost_say(struct fsck *f, const struct topic *t, uint64_t from, uint64_t to)
{
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_LOST,
                          .severity = FSCK_ERROR,
                          .action = FSCK_MARK,
                          .id = t->id,
                          .offsets = {from, to}},
        "Bytes " U64 " up to " U64
        " cannot stand where they are said to. Reading them answers an input/output error; what "
        "is left of them is saved aside.",
        from, to);
}

void fsck_run_lose(struct topic *t, struct run *r)
{
    struct extents *x = t->log->extents;
    struct extent *e = r->flags & MEDIA_RUN_LOST ? NULL : extent_find(x, r->payload, r->order);
    if (e)
        extent_put(x, e);
    *r = (struct run){.offset = r->offset,
                      .message = r->message,
                      .batches = r->batches ? r->batches : 1,
                      .flags = MEDIA_RUN_LOST};
}

/* Run i is no run: the one before it goes on to the next. */
static void run_remove(struct topic *t, size_t i)
{
    fsck_run_lose(t, topic_run(t, i));
    memmove(topic_run(t, i), topic_run(t, i) + 1, (t->run_count - i - 1) * sizeof(struct run));
    t->run_count--;
    atomic_fetch_sub_explicit(&t->log->runs, 1, memory_order_relaxed);
}

/* One in front of all others, which begin behind the base. */
static int run_before(struct fsck *f, struct topic *t)
{
    uint64_t base = topic_base(t), to = t->run_count > 0 ? topic_run(t, 0)->offset : topic_end(t);
    int rc = topic_runs_grow(t, 1);
    if (rc)
        return rc;
    memmove(topic_run(t, 1), topic_run(t, 0), t->run_count * sizeof(struct run));
    t->run_count++;
    atomic_fetch_add_explicit(&t->log->runs, 1, memory_order_relaxed);
    *topic_run(t, 0) = (struct run){
        .offset = base, .message = t->first_message, .batches = 1, .flags = MEDIA_RUN_LOST};
    lost_say(f, t, base, to);
    return 0;
}

static int runs_mend(struct fsck *f, struct topic *t)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->run_count; i++) {
        struct run *r = topic_run(t, i);
        bool headless = i == 0 && r->batches == 0;
        if (table_run_fits(f->log, t, i) && !headless)
            continue;
        if (topic_run_end(t, i) <= r->offset) {
            run_remove(t, i--);
            continue;
        }
        lost_say(f, t, r->offset, topic_run_end(t, i));
        rc = fsck_note_run(f, t, i);
        fsck_run_lose(t, r);
    }
    if (rc == 0 && topic_base(t) < topic_end(t) &&
        (t->run_count == 0 || topic_run(t, 0)->offset > topic_base(t)))
        rc = run_before(f, t);
    return rc;
}

int fsck_sane(struct fsck *f)
{
    int rc = 0;
    for (struct topic *t = f->log->names.by_id; rc == 0 && t; t = t->by_id.next) {
        if (names_is_dir(t) || fsck_loads(f->log, t))
            continue;
        totals_mend(f, t);
        rc = table_check(f->log, t) ? runs_mend(f, t) : 0;
        table_rewrite(f->log, t);
        f->state_damaged = true;
    }
    return rc;
}
