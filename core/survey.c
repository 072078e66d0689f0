/* The survey that moves go by: what stands in each extent (beside step 3).
 *
 * Role held: nobody adds runs, nor takes any away. What is not found here (what is being received, a
 * removed topic's that somebody has open) is left alone by who moves.
 * Must never change what it looks at.
 */
#include "core/log_state.h"

static void survey_note(struct log *log, struct extent *e, uint32_t owner)
{
    if (e->survey == log->survey)
        return;
    e->survey = log->survey;
    e->owner = owner;
    e->runs = 0;
    e->live = 0;
    e->rewritten = false;
}

/* What a checkpoint writes anew elsewhere when it is asked to, or gives up by itself. */
static void survey_rewritten(struct log *log, struct extent *e, uint32_t owner)
{
    survey_note(log, e, owner);
    e->rewritten = true;
    e->live = owner == SURVEY_GIVEN_UP ? 0 : e->size;
}

static void survey_topic(struct log *log, struct topic *t)
{
    pthread_mutex_lock(&t->fill_lock);
    struct extent *fill = t->fill;
    if (fill && !names_is_dir(t))
        survey_note(log, fill, t->id);
    pthread_mutex_unlock(&t->fill_lock);
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        struct extent *e =
            r->flags & MEDIA_RUN_LOST ? NULL : extent_find(log->extents, r->payload, r->order);
        if (!e)
            continue;
        survey_note(log, e, t->id);
        e->runs++;
        e->live += topic_run_end(t, i) - r->offset;
        e->stuck = e->stuck || run_is_damaged(r);
    }
    for (size_t i = 0; i < t->table.count; i++)
        survey_rewritten(log, t->table.piece[i].extent, t->id);
}

void survey_all(struct log *log)
{
    struct manifest *m = &log->manifest;
    struct topic *control = log->control;
    log->survey++;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next)
        survey_topic(log, t);
    for (size_t i = 0; i < m->count; i++)
        survey_rewritten(log, m->piece[i].extent, SURVEY_MANIFEST);
    for (size_t i = 0; i < log->retired_count; i++)
        survey_rewritten(log, log->retired[i], SURVEY_GIVEN_UP);
    for (size_t i = 0; i < control->run_count; i++) {
        const struct run *r = topic_run(control, i);
        survey_rewritten(log, extent_find(log->extents, r->payload, r->order), SURVEY_GIVEN_UP);
    }
    if (control->fill)
        survey_rewritten(log, control->fill, SURVEY_GIVEN_UP);
}
