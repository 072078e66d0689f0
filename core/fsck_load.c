/* Finding the state of a pool: strictly, as every opening does, else from the checkpoint that loses
 * least (recovery). Reads only.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/fsck_state.h"

#define ROOTS (2 * MEDIA_MAX_SLOTS)

static int log_make(struct fsck *f, struct log **log, struct embar_error *err)
{
    struct log_options o = {
        .region = f->region, .readonly = true, .manual = true, .boot_id = f->opt->boot_id};
    int rc = log_create(log, &o);
    if (rc)
        return embar_fail(err, rc, "no memory for the log");
    (*log)->limit = UINT64_MAX;
    (*log)->by_copy = true;
    rc = log_attach(*log, &o, err);
    if (rc) {
        log_free(*log);
        *log = NULL;
        return rc;
    }
    /* Whatever is loaded, what is changed from here on is newer than all that stands. */
    struct fsck_root root[ROOTS];
    for (unsigned n = fsck_roots(f, root, ROOTS); n > 0; n--)
        if (le64_get(root[n - 1].root.generation) > (*log)->root_generation)
            (*log)->root_generation = le64_get(root[n - 1].root.generation);
    return 0;
}

/* As every opening loads it. */
static int load_strictly(struct fsck *f, struct embar_error *err)
{
    uint64_t limit = UINT64_MAX;
    int rc;
    do {
        rc = log_make(f, &f->log, err);
        if (rc)
            return rc;
        f->log->limit = limit;
        rc = recover(f->log, err);
        limit = f->log->limit;
        if (rc) {
            log_free(f->log);
            f->log = NULL;
        }
    } while (rc == -EAGAIN);
    if (rc)
        return rc;
    f->number = f->log->seq.next - 1;
    bool booted;
    f->trusted = recover_trusted(f->log, &booted);
    return fsck_known(f, f->log);
}

/* Nothing tells what was granted: all to the one broker that a pool of this layout has. */
static int grants_assume(struct log *log)
{
    if (log->grant_count > 0)
        return 0;
    return fold_grant(log, log->slot, 0, log->pool.geo.regions / log->pool.geo.brokers);
}

/* Entries up to *limit; -EAGAIN: fewer, up to what it says then. */
static int load_upto(struct fsck *f, const struct fsck_root *base, bool lenient, uint64_t *limit,
                     struct embar_error *err)
{
    int rc = log_make(f, &f->log, err);
    if (rc)
        return rc;
    f->log->limit = *limit;
    if (base) {
        f->log->lenient = lenient;
        rc = checkpoint_load(f->log, &base->root, err);
        atomic_init(&f->log->checkpoint, le64_get(base->root.number));
    }
    if (rc == 0)
        rc = fsck_known(f, f->log);
    if (rc == 0 && !base && le64_get(pool_entry(&f->pool, 0, 1)->number) != 1)
        rc = grants_assume(f->log);
    if (rc == 0)
        rc = fsck_replay(f, f->log, base);
    if (rc == 0 && lenient)
        rc = fsck_tables(f, f->log);
    *limit = f->log->limit;
    if (rc) {
        log_free(f->log);
        f->log = NULL;
    }
    fsck_orphans_drop(f);
    return rc;
}

/* From one root, around what is damaged behind it; NULL: from nothing. */
static int load_from(struct fsck *f, const struct fsck_root *base, bool lenient,
                     struct embar_error *err)
{
    uint64_t limit = UINT64_MAX;
    const struct fsck_said said = fsck_said(f);
    int rc;
    while ((rc = load_upto(f, base, lenient, &limit, err)) == -EAGAIN)
        fsck_unsay(f, &said);
    f->base = base ? base->at : NULL;
    return rc;
}

static void load_drop(struct fsck *f, const struct fsck_said *said)
{
    if (f->log)
        log_free(f->log);
    f->log = NULL;
    fsck_unsay(f, said);
}

static void say_unusable(struct fsck *f, const struct fsck_root *r, bool newest)
{
    uint64_t at = (uint64_t)((const char *)r->at - f->region->base);
    fsck_say(f,
             &(struct finding){.kind = FSCK_CHECKPOINT,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .place = {at, at + sizeof r->root}},
             "The %s, as of index entry %" PRIu64 ", cannot be loaded: what it names is damaged or "
             "was given away.",
             newest ? "newest checkpoint" : "checkpoint before it", le64_get(r->root.number));
}

/* Runs that do not stand where they are said to: who begins with an old checkpoint may find that
 * others have their places, and nothing that tells. */
static size_t misplaced(const struct log *log)
{
    size_t n = 0;
    for (const struct topic *t = log->names.by_id; t; t = t->by_id.next)
        for (size_t i = 0; i < t->run_count; i++) {
            const struct run *r = topic_run(t, i);
            struct side s;
            if (r->batches == 0 || run_is_damaged(r))
                continue;
            n +=
                side_read(&log->pool, r->side, &s) != 0 || s.topic != t->id || s.run0 != r->payload;
        }
    return n;
}

/* The root whose way loses least; the newest of equals. One that the index has gone past comes last. */
static int load_best(struct fsck *f, struct embar_error *err)
{
    struct fsck_root root[ROOTS];
    unsigned n = fsck_roots(f, root, ROOTS);
    const struct fsck_said said = fsck_said(f);
    size_t least = SIZE_MAX;
    unsigned best = n;
    int rc = -EMBAR_ECORRUPT;
    bool lenient = false;
    /* With every table whole, if that goes; else around those that are damaged. */
    for (unsigned i = 0; i < 2 * n && least > 0; i++) {
        bool loads = load_from(f, &root[i % n], i >= n, err) == 0;
        size_t errors = f->report->errors - said.errors + (loads ? misplaced(f->log) : 0);
        load_drop(f, &said);
        /* Entries that it cannot know of are worse than any number of batches that find no place. */
        if (loads && f->outrun)
            errors = errors < SIZE_MAX / 2 ? errors + SIZE_MAX / 2 : SIZE_MAX - 1;
        if (loads && errors < least) {
            least = errors;
            best = i % n;
            lenient = i >= n;
        }
    }
    for (unsigned i = 0; i < best && i < n; i++)
        say_unusable(f, &root[i], i == 0);
    f->state_damaged = true;
    if (n == 0 && !f->root_damaged)
        return load_from(f, NULL, false, err); /* there never was one */
    if (best < n)
        return load_from(f, &root[best], lenient, err);
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_CHECKPOINT, .severity = FSCK_ERROR, .action = FSCK_REBUILD},
        "No checkpoint can be loaded: the topics are put together from the index alone.");
    rc = load_from(f, NULL, false, err);
    return rc;
}

static void highest_note(struct fsck *f)
{
    struct fsck_root root[ROOTS];
    unsigned n = fsck_roots(f, root, ROOTS);
    f->highest = f->number > f->trusted ? f->number : f->trusted;
    for (unsigned i = 0; i < n; i++) {
        uint64_t number = le64_get(root[i].root.number);
        if (number <= INT64_MAX && number > f->highest)
            f->highest = number;
    }
    /* Lines of a later lap, too: who finds one behind the end takes the ring for overwritten. */
    uint64_t entries = f->pool.geo.index_entries, most = f->highest + entries;
    for (unsigned slot = 0; slot < f->pool.geo.slots; slot++) {
        for (uint64_t i = 0; i < entries; i++) {
            uint64_t number = le64_get(pool_entry(&f->pool, slot, i)->number);
            if (number % entries == i && number <= most && number > f->highest)
                f->highest = number;
        }
        uint32_t term = recover_claim_term(&f->pool, slot, NULL);
        f->log->term = term > f->log->term ? term : f->log->term;
    }
}

static void beyond_say(struct fsck *f, unsigned slot, uint64_t from, uint64_t to)
{
    const struct pool *p = &f->pool;
    uint64_t at = (uint64_t)((const char *)pool_entry(p, slot, from) - p->base);
    uint64_t number = le64_get(pool_entry(p, slot, from)->number), lines = to - from;
    f->state_damaged = true;
    fsck_say(f,
             &(struct finding){.kind = FSCK_ENTRY,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .place = {at, at + lines * MEDIA_LINE}},
             lines > 1 ? "The first of %" PRIu64 " lines of the index, none of which can be, "
                         "speaks of entry %" PRIu64 ", which never was: the last is %" PRIu64 "."
                       : "%" PRIu64 " line of the index speaks of entry %" PRIu64
                         ", which never was: the last is %" PRIu64 ".",
             lines, number, f->highest);
}

/* Lines of no entry that ever was: an opening whose end comes before them takes the ring for overwritten. */
static void lines_beyond(struct fsck *f)
{
    const struct pool *p = &f->pool;
    for (unsigned slot = 0; slot < p->geo.slots; slot++) {
        uint64_t from = 0; /* of those side by side */
        for (uint64_t i = 0; i < p->geo.index_entries; i++) {
            if (le64_get(pool_entry(p, slot, i)->number) > f->highest)
                continue;
            if (from < i)
                beyond_say(f, slot, from, i);
            from = i + 1;
        }
        if (from < p->geo.index_entries)
            beyond_say(f, slot, from, p->geo.index_entries);
    }
}

int fsck_state(struct fsck *f, struct embar_error *err)
{
    /* What every opening goes by may not be the newest root, or not say where the index must end. */
    bool astray = f->root_damaged || f->watermark_damaged;
    int rc = astray ? -EMBAR_ECORRUPT : load_strictly(f, err);
    if (rc == 0 && fsck_end_damaged(f)) {
        log_free(f->log);
        f->log = NULL;
        f->watermark_damaged = true; /* or it would say where the end is */
        rc = -EMBAR_ECORRUPT;
    }
    if (rc == -EMBAR_ECORRUPT)
        rc = load_best(f, err);
    if (rc)
        return rc;
    highest_note(f);
    lines_beyond(f);
    fsck_copies(f);
    f->report->entries = f->number;
    struct log_stat st;
    log_stat_all(f->log, &st);
    f->report->topics = st.topics;
    f->report->directories = st.directories;
    f->report->sessions = st.sessions;
    return 0;
}
