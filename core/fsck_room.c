/* Space for what a repair writes (recovery). Where trims are lost with their records, what they had
 * given up seems to be there again, and may leave too few blocks free in a pool that was full.
 *
 * Of a topic one of whose places was given to newer batches, all before that place had been given up
 * too: trims take from the begin. Where there is too little space otherwise, that goes again, of topics whose
 * place was perhaps given up by a move (fsck_given.c) only when that of others is not enough; each batch is
 * noted, so that the repair saves it aside first. Changes the state found; never writes to the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_state.h"

#define U64 "%" PRIu64

static int note(struct fsck *f, const struct let_go *what)
{
    if (f->let_go_count == f->let_go_capacity) {
        size_t capacity = f->let_go_capacity ? f->let_go_capacity * 2 : 64;
        struct let_go *grown = realloc(f->let_go, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        f->let_go = grown;
        f->let_go_capacity = capacity;
    }
    f->let_go[f->let_go_count++] = *what;
    return 0;
}

int fsck_note_run(struct fsck *f, const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    uint64_t offset = r->offset, at = r->side;
    if (r->flags & MEDIA_RUN_LOST)
        return 0;
    if (run_is_damaged(r)) {
        struct let_go what = {.id = t->id, .offset = offset, .bytes = topic_run_end(t, i) - offset};
        what.s.run0 = r->payload;
        return note(f, &what);
    }
    int rc = 0;
    for (unsigned b = 0; rc == 0 && b < r->batches; b++) {
        struct let_go what = {.id = t->id, .offset = offset, .at = at};
        if (side_read(&t->log->pool, at, &what.s) != 0)
            break;
        topic_part_place(t, i, &what.s);
        at -= side_size(what.s.count, what.s.equal);
        offset += what.s.length;
        if (offset > topic_base(t))
            rc = note(f, &what);
    }
    return rc;
}

static int let_go(struct fsck *f, struct topic *t)
{
    uint64_t from = topic_base(t), to = t->ordered_end;
    size_t i = topic_run_find(t, to - 1) + 1;
    int rc = 0;
    if (i < t->run_count && topic_run(t, i)->offset != to)
        return 0;
    for (size_t k = 0; rc == 0 && k < i; k++)
        rc = fsck_note_run(f, t, k);
    if (rc)
        return rc;
    uint64_t message = i < t->run_count ? topic_run(t, i)->message : t->last_message_end;
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_LOST,
                          .severity = FSCK_ERROR,
                          .action = FSCK_FORGET,
                          .id = t->id,
                          .messages = {t->first_message, message},
                          .offsets = {from, to}},
        "Bytes " U64 " up to " U64 " stand before a place that was given to newer batches, so "
        "they had been trimmed by an action that is damaged%s. The pool is too full to keep what "
        "is left of them; a repair saves it aside.",
        from, to, t->doubted ? ", if that was not moved" : "");
    topic_trim(t, to, message);
    table_rewrite(f->log, t);
    manifest_touch(f->log, t);
    return 0;
}

int fsck_room(struct fsck *f)
{
    struct log *log = f->log;
    log->manifest.whole = true;
    int rc = checkpoint_fits(log);
    for (unsigned last = 0; last < 2; last++)
        for (struct topic *t = log->names.by_id; rc == -EMBAR_EFULL && t; t = t->by_id.next) {
            if (names_is_dir(t) || t->ordered_end <= topic_base(t) || t->doubted != last)
                continue;
            rc = let_go(f, t);
            rc = rc ? rc : checkpoint_fits(log);
        }
    return rc == -EMBAR_EFULL ? 0 : rc; /* a repair says so */
}
