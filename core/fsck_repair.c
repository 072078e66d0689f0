/* Writing a repair: a fresh checkpoint of the state that was found (the "root" rule of checkpoint.c).
 *
 * Order: what is about to be written is checked as a load would; what is overwritten is saved; tables and manifest go beside everything that
 * stands and told of what was found, then the root into the area that the state was not loaded from; then the lines of the
 * slots and the superblocks. Killed before the root is whole, the pool is as damaged as it was. Must
 * never write before all slots are locked, nor into a root that the state came from.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/fsck_state.h"

/* ---- Saving --------------------------------------------------------------------------------- */

static int save_directory(struct fsck *f, struct embar_error *err)
{
    const char *in = f->opt->save ? f->opt->save : ".";
    const char *name = f->region->spec ? strrchr(f->region->spec, '/') : NULL;
    name = name ? name + 1 : f->region->spec ? f->region->spec : "pool";
    char when[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    if (mkdir(in, 0700) < 0 && errno != EEXIST)
        return embar_fail(err, -errno, "making the directory %s for what a repair drops", in);
    for (unsigned i = 0; i < 1000; i++) {
        char *path;
        if (asprintf(&path, i ? "%s/%s-fsck-%s-%u" : "%s/%s-fsck-%s", in, name, when, i) < 0)
            return embar_fail(err, -ENOMEM, NULL);
        if (mkdir(path, 0700) == 0) {
            f->report->saved = path;
            return 0;
        }
        int rc = -errno;
        if (rc != -EEXIST) {
            rc = embar_fail(err, rc, "making the directory %s for what a repair drops", path);
            free(path);
            return rc;
        }
        free(path);
    }
    return embar_fail(err, -EEXIST, "making a directory in %s", in);
}

static int save_file(const char *path, int flags, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0)
        return -errno;
    const char *at = data;
    int rc = 0;
    while (rc == 0 && size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno != EINTR)
            rc = -errno;
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    return rc;
}

/* All that was saved is on the disk: only then may anything be overwritten. */
static int save_settle(struct fsck *f, struct embar_error *err)
{
    if (!f->report->saved)
        return 0;
    int fd = open(f->report->saved, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || syncfs(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        (void)close(fd);
    return rc ? embar_fail(err, rc, "saving what a repair drops in %s", f->report->saved) : 0;
}

/* Copy pool bytes aside before they are overwritten. */
static int save_bytes(struct fsck *f, const char *what, uint64_t at, uint64_t size,
                      struct embar_error *err)
{
    if (at > f->region->size || size > f->region->size - at || size == 0)
        return 0;
    int rc = f->report->saved ? 0 : save_directory(f, err);
    if (rc)
        return rc;
    char *file = NULL, *index = NULL, *line = NULL;
    int n = asprintf(&file, "%s/%012" PRIx64 "-%s", f->report->saved, at, what);
    if (n >= 0)
        n = asprintf(&index, "%s/index.txt", f->report->saved);
    if (n >= 0)
        n = asprintf(&line, "%012" PRIx64 "-%s: %" PRIu64 " bytes from pool offset %" PRIu64 "\n",
                     at, what, size, at);
    rc = n < 0 ? -ENOMEM : save_file(file, O_TRUNC, f->region->base + at, size);
    if (rc == 0)
        rc = save_file(index, O_APPEND, line, strlen(line));
    if (rc)
        rc = embar_fail(err, rc, "saving what a repair drops in %s", f->report->saved);
    else
        f->report->saved_bytes += size;
    free(file);
    free(index);
    free(line);
    return rc;
}

/* As a JSON string. malloc'd. */
static char *quoted(const char *text)
{
    char *out = malloc(2 * strlen(text) + 3), *to = out;
    if (!out)
        return NULL;
    *to++ = '"';
    for (; *text; text++) { /* names hold no control characters */
        if (*text == '"' || *text == '\\')
            *to++ = '\\';
        *to++ = *text;
    }
    *to++ = '"';
    *to = 0;
    return out;
}

/* A batch that is to go, at `offset` of its topic when that is known. */
struct going {
    const char *topic; /* path, or NULL */
    uint64_t at;       /* its record */
    struct side s;
    uint64_t offset; /* UINT64_MAX: not known */
};

/* Its line: malloc'd, or NULL. */
static char *batch_line(const struct going *b)
{
    const struct side *s = &b->s;
    char second[64] = "", offset[24] = "null", lengths[32], *line = NULL;
    char *topic = b->topic ? quoted(b->topic) : NULL;
    if (s->run1)
        snprintf(second, sizeof second, ", \"%012" PRIx64 "-batch-2\"", s->run1);
    if (b->offset != UINT64_MAX)
        snprintf(offset, sizeof offset, "%" PRIu64, b->offset);
    snprintf(lengths, sizeof lengths, "%" PRIu32, s->length / s->count);
    if (s->lengths)
        snprintf(lengths, sizeof lengths, "\"%012" PRIx64 "-lengths\"",
                 b->at - side_size(s->count, false) + MEDIA_LINE);
    int n = asprintf(&line,
                     "{\"topic\": %s, \"id\": %" PRIu32 ", \"offset\": %s, \"session\": %" PRIu64
                     ", \"sequence\": %" PRIu64 ", \"time\": %" PRIu64 ", \"messages\": %" PRIu32
                     ", \"bytes\": %" PRIu32 ", \"lengths\": %s, \"files\": [\"%012" PRIx64
                     "-batch\"%s]}\n",
                     topic ? topic : "null", s->topic, offset, s->session, s->sequence, s->time,
                     s->count, s->length, lengths, s->run0, second);
    free(topic);
    return n < 0 ? NULL : line;
}

/* Its payload, and a line that says what it is. */
static int save_batch(struct fsck *f, const struct going *b, struct embar_error *err)
{
    const struct side *s = &b->s;
    int rc = save_bytes(f, "batch", s->run0, s->run0_length, err);
    if (rc == 0 && s->run1)
        rc = save_bytes(f, "batch-2", s->run1, s->length - s->run0_length, err);
    if (rc == 0 && s->lengths) /* le32 a message */
        rc = save_bytes(f, "lengths", b->at - side_size(s->count, false) + MEDIA_LINE,
                        (uint64_t)s->count * sizeof(le32), err);
    if (rc)
        return rc;
    char *line = batch_line(b), *path = NULL;
    int n = asprintf(&path, "%s/batches.jsonl", f->report->saved);
    rc = !line || n < 0 ? -ENOMEM : save_file(path, O_APPEND, line, strlen(line));
    if (rc)
        rc = embar_fail(err, rc, "saving what a repair drops in %s", f->report->saved);
    free(line);
    free(n < 0 ? NULL : path);
    return rc;
}

/* Those that found no place. */
static int save_unplaced(struct fsck *f, struct embar_error *err)
{
    char path[MEDIA_MAX_PATH + 1];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->unplaced_count; i++) {
        const struct unplaced *x = &f->unplaced[i];
        bool named = log_path(f->log, x->id, path, sizeof path) == 0;
        struct going b = {.topic = named ? path : NULL, .at = x->at, .offset = UINT64_MAX};
        if (side_read(&f->pool, b.at, &b.s) == 0)
            rc = save_batch(f, &b, err);
    }
    return rc;
}

/* What fsck_room.c dropped. */
static int save_let_go(struct fsck *f, struct embar_error *err)
{
    char path[MEDIA_MAX_PATH + 1];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->let_go_count; i++) {
        const struct let_go *x = &f->let_go[i];
        bool named = log_path(f->log, x->id, path, sizeof path) == 0;
        struct going b = {
            .topic = named ? path : NULL, .at = x->at, .s = x->s, .offset = x->offset};
        rc = x->at ? save_batch(f, &b, err) : save_bytes(f, "damaged", x->s.run0, x->bytes, err);
    }
    return rc;
}

static uint64_t offset_of(const struct fsck *f, const void *at)
{
    return (uint64_t)((const char *)at - f->region->base);
}

/* What findings say is given up, and every slot's lines and roots, which are about to change. */
static int save_all(struct fsck *f, struct embar_error *err)
{
    int rc = 0;
    if (f->super_damaged[0])
        rc = save_bytes(f, "superblock", MEDIA_SUPER_AT, MEDIA_PAGE, err);
    if (rc == 0 && f->super_damaged[1])
        rc = save_bytes(f, "superblock-copy", MEDIA_SUPER_ALT, MEDIA_PAGE, err);
    for (unsigned slot = 0; rc == 0 && slot < f->pool.geo.slots; slot++) {
        bool changes = (f->state_damaged && slot == f->log->slot) || f->lines_damaged >> slot & 1;
        if (changes)
            rc = save_bytes(f, "slot", offset_of(f, pool_claim(&f->pool, slot)), 3 * MEDIA_PAGE,
                            err);
        if (rc == 0 && changes)
            rc = save_bytes(f, "slot-copies", offset_of(f, pool_root_copy(&f->pool, slot, 0)),
                            3 * MEDIA_PAGE, err);
    }
    if (rc == 0 && f->written_short)
        rc = embar_fail(err, -ENOMEM, "noting what a repair overwrites");
    for (size_t i = 0; rc == 0 && i < f->written_count; i++) {
        const struct overwritten *x = &f->written[i];
        rc =
            save_bytes(f, fsck_kind_name(x->kind), x->place.from, x->place.to - x->place.from, err);
    }
    if (rc == 0)
        rc = save_unplaced(f, err);
    if (rc == 0)
        rc = save_let_go(f, err);
    return rc ? rc : save_settle(f, err);
}

/* ---- Writing -------------------------------------------------------------------------------- */

/* The newest area that the state did not come from, or an invalid one. */
static struct media_root *spare_root(const struct fsck *f)
{
    struct media_root *a = pool_root(&f->pool, f->log->slot, 0);
    struct media_root *b = pool_root(&f->pool, f->log->slot, 1);
    if (f->base == a)
        return b;
    return f->base == b ? a : NULL;
}

/* Who finds such a line behind the end takes the ring for overwritten, and one that is of another place for the
 * damaged end of the index. Not before the root: until then nothing else says that something may be lost there. */
static int lines_clear(struct fsck *f)
{
    int rc = 0;
    for (unsigned slot = 0; slot < f->pool.geo.slots; slot++)
        for (uint64_t i = 0; rc == 0 && i < f->pool.geo.index_entries; i++) {
            const struct media_entry *line = pool_entry(&f->pool, slot, i);
            uint64_t number = le64_get(line->number);
            if (number > f->highest || (number != 0 && number % f->pool.geo.index_entries != i))
                rc = region_zero(f->region, offset_of(f, line), MEDIA_LINE);
        }
    return rc;
}

/* By the rules of every load, while nothing is written yet. */
static int state_check(struct fsck *f, struct embar_error *err)
{
    char name[FSCK_NAME];
    for (const struct topic *t = f->log->names.by_id; t; t = t->by_id.next)
        if (!fsck_loads(f->log, t))
            return embar_fail(err, -EMBAR_ECORRUPT,
                              "what was found of %s makes no sense, and a checkpoint that says so "
                              "would not be loaded; nothing was written",
                              fsck_name(f->log, t->id, name));
    return 0;
}

static int state_write(struct fsck *f, struct embar_error *err)
{
    struct log *log = f->log;
    log->readonly = false;
    if (f->highest >= (uint64_t)INT64_MAX || log->term == UINT32_MAX)
        return embar_fail(err, -EMBAR_ECORRUPT, "the pool's numbers are used up");
    /* Beyond every number that any line speaks of, so that none is taken for what comes next. */
    log->seq.next = f->highest + 1;
    atomic_store(&log->committed, f->highest);
    atomic_store(&log->durable, f->highest);
    log->root_spare = spare_root(f);
    log->manifest.whole = true;
    fold_need(log);
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next)
        t->ordered_end = topic_end(t);
    uint64_t generation = log->root_generation;
    int rc = fsck_hold(f);
    if (rc == 0)
        rc = checkpoint_write(log);
    if (fsck_release(f) && rc == -EMBAR_EFULL)
        rc = checkpoint_write(log); /* nothing was written yet */
    if (rc == 0)
        rc = lines_clear(f);
    /* Once more, over the root that the state came from: what it names may be damaged. */
    log->root_spare = NULL;
    log->manifest.whole = true;
    if (rc == 0)
        rc = checkpoint_write(log);
    if (rc == -EMBAR_EFULL && log->root_generation > generation)
        rc = 0; /* the first one stands */
    if (rc)
        return embar_fail(err, rc, "writing a fresh checkpoint");
    f->number = f->highest;
    return 0;
}

static int lines_write(struct fsck *f)
{
    int rc = 0;
    struct log *log = f->log;
    const struct mark mark = {f->number, log->seq.chain, log->term};
    for (unsigned slot = 0; rc == 0 && slot < f->pool.geo.slots; slot++) {
        if (!(f->lines_damaged >> slot & 1) && !(f->state_damaged && slot == log->slot))
            continue;
        char *lines = (char *)pool_claim(&f->pool, slot);
        bool mine = slot == log->slot;
        unsigned marks = 0, syncs = 0;
        uint64_t at = offset_of(f, lines), second = offset_of(f, pool_watermark(&f->pool, slot, 1));
        rc = region_zero(f->region, at + (mine ? MEDIA_LINE : 0), (mine ? 1 : 4) * MEDIA_LINE);
        if (rc == 0 && !mine)
            rc = region_zero(f->region, second, 2 * MEDIA_LINE);
        if (rc == 0 && mine)
            rc = index_watermark(&log->pool, slot, &marks, &mark);
        if (rc == 0 && mine)
            rc = index_synced(&log->pool, slot, &syncs, &mark);
        if (rc == 0 && mine)
            rc = log_claim(log, 0);
    }
    return rc;
}

/* In slots that nobody here writes checkpoints for: what the copy says, or nothing. */
static int roots_write(struct fsck *f)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < 2 * f->pool.geo.slots; i++) {
        unsigned slot = i / 2;
        struct media_root *r = pool_root(&f->pool, slot, i % 2);
        const struct media_root copy = *pool_root_copy(&f->pool, slot, i % 2);
        if (slot == f->log->slot || !(f->roots_damaged >> slot & 1))
            continue;
        if (checkpoint_root_valid(&copy)) {
            flush_copy(&f->region->flush, r, &copy, sizeof copy);
            flush_writeback(&f->region->flush, r, sizeof *r);
            flush_drain(&f->region->flush);
        } else if (!checkpoint_root_valid(r)) {
            rc = region_zero(f->region, offset_of(f, r), sizeof *r);
        }
    }
    return rc;
}

static int supers_write(struct fsck *f)
{
    char *base = f->region->base;
    static const uint64_t at[2] = {MEDIA_SUPER_AT, MEDIA_SUPER_ALT};
    for (unsigned i = 0; i < 2; i++) {
        if (!f->super_damaged[i] || f->super_damaged[1 - i])
            continue;
        memcpy(base + at[i], base + at[1 - i], sizeof(struct media_super));
        flush_writeback(&f->region->flush, base + at[i], sizeof(struct media_super));
        flush_drain(&f->region->flush);
    }
    return region_sync(f->region);
}

int fsck_repair(struct fsck *f, struct embar_error *err)
{
    int rc = f->state_damaged ? state_check(f, err) : 0;
    if (rc == 0)
        rc = save_all(f, err);
    if (rc == 0 && f->state_damaged)
        rc = state_write(f, err);
    if (rc)
        return rc;
    rc = lines_write(f);
    if (rc == 0)
        rc = roots_write(f);
    if (rc == 0)
        rc = region_sync(f->region);
    if (rc == 0)
        rc = supers_write(f);
    if (rc)
        return embar_fail(err, rc, "writing the repair");
    f->report->repaired = true;
    for (size_t i = 0; i < f->report->count; i++)
        f->report->finding[i].repaired = f->report->finding[i].action != FSCK_NONE;
    return 0;
}
