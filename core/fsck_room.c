/* Space for what a repair writes (recovery). Where trims are lost with their records, what they had
 * given up seems to be there again, and may leave too few blocks free in a pool that was full.
 *
 * Of a topic one of whose places was given to newer batches, all before that place had been given up
 * too: trims take from the begin. Where there is too little space otherwise, that goes again. Changes
 * the state found; never writes to the pool.
 */
#include <errno.h>
#include <inttypes.h>

#include "core/fsck_state.h"

#define U64 "%" PRIu64

static void let_go(struct fsck *f, struct topic *t)
{
    uint64_t from = topic_base(t), to = t->ordered_end;
    size_t i = topic_run_find(t, to - 1) + 1;
    if (i < t->run_count && topic_run(t, i)->offset != to)
        return;
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
        "they had been trimmed by an action that is damaged. The pool is too full to keep what "
        "is left of them.",
        from, to);
    topic_trim(t, to, message);
    table_rewrite(f->log, t);
    manifest_touch(f->log, t);
}

int fsck_room(struct fsck *f)
{
    struct log *log = f->log;
    log->manifest.whole = true;
    int rc = checkpoint_fits(log);
    for (struct topic *t = log->names.by_id; rc == -EMBAR_EFULL && t; t = t->by_id.next) {
        if (names_is_dir(t) || t->ordered_end <= topic_base(t))
            continue;
        let_go(f, t);
        rc = checkpoint_fits(log);
    }
    return rc == -EMBAR_EFULL ? 0 : rc; /* a repair says so */
}
