/* The survey that moves go by: what stands in each extent (beside step 3).
 *
 * Design notes
 *   Parts     With many runs it takes long, so it is done in parts, each with the sequencer's role, and
 *             epochs run in between. It goes through the topics as names has them, oldest first; what
 *             is made meanwhile comes behind, and a topic that is removed takes the survey on to the
 *             next (survey_forget). In a topic it goes by the numbers of the runs, which trims and new
 *             batches do not change.
 *   Stale     What it says of an extent was so when it looked. Whoever moves looks again: where the
 *             references to an extent are not those of the runs that were found, it is left alone. A
 *             run that came as another went is not moved, so that its block comes free later.
 *   Not seen  What is not found (what is being received or came behind the survey, a removed topic's
 *             that somebody has open) is left alone by who moves.
 *
 * Must never change what it looks at.
 */
#include "core/log_state.h"

/* Runs and topics that are looked at before others get the role, some 50 ns each. */
#define PART 1024u

static void note(struct log *log, struct extent *e, uint32_t owner)
{
    if (e->survey == log->survey.number)
        return;
    e->survey = log->survey.number;
    e->owner = owner;
    e->runs = 0;
    e->live = 0;
    e->rewritten = false;
}

/* What a checkpoint writes anew elsewhere when it is asked to, or gives up by itself. */
static void note_rewritten(struct log *log, struct extent *e, uint32_t owner)
{
    note(log, e, owner);
    e->rewritten = true;
    e->live = owner == SURVEY_GIVEN_UP ? 0 : e->size;
}

static void note_run(struct log *log, struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    struct extent *e =
        r->flags & MEDIA_RUN_LOST ? NULL : extent_find(log->extents, r->payload, r->order);
    if (!e)
        return;
    if (t == log->control) {
        note_rewritten(log, e, SURVEY_GIVEN_UP);
        return;
    }
    note(log, e, t->id);
    e->last = t->run_dropped + i;
    if (e->runs++ == 0)
        e->first = e->last;
    e->live += topic_run_end(t, i) - r->offset;
    e->stuck = e->stuck || run_is_damaged(r);
}

/* What a topic has beside its runs. */
static void note_topic(struct log *log, struct topic *t)
{
    pthread_mutex_lock(&t->fill_lock);
    struct extent *fill = t->fill;
    if (fill && t == log->control)
        note_rewritten(log, fill, SURVEY_GIVEN_UP);
    else if (fill && !names_is_dir(t))
        note(log, fill, t->id);
    pthread_mutex_unlock(&t->fill_lock);
    for (size_t i = 0; i < t->table.count; i++)
        note_rewritten(log, t->table.piece[i].extent, t->id);
}

/* False: there is more of the topic. */
static bool topic_some(struct log *log, unsigned *left)
{
    struct survey *s = &log->survey;
    struct topic *t = s->at;
    if (!s->begun) {
        note_topic(log, t);
        s->begun = true;
        s->run = 0;
        --*left;
    }
    size_t i = s->run > t->run_dropped ? (size_t)(s->run - t->run_dropped) : 0;
    for (; *left > 0 && i < t->run_count; i++, --*left)
        note_run(log, t, i);
    s->run = t->run_dropped + i;
    return i >= t->run_count;
}

/* Topic 0, which is in no namespace, comes last. */
static void next_topic(struct log *log)
{
    struct survey *s = &log->survey;
    struct topic *next = s->at == log->control ? NULL : s->at->by_id.next;
    s->at = next || s->at == log->control ? next : log->control;
    s->begun = false;
}

void survey_begin(struct log *log)
{
    struct survey *s = &log->survey;
    const struct manifest *m = &log->manifest;
    s->number++;
    s->at = log->names.by_id;
    s->begun = false;
    for (size_t i = 0; i < m->count; i++)
        note_rewritten(log, m->piece[i].extent, SURVEY_MANIFEST);
    s->retired = 0;
}

bool survey_part(struct log *log)
{
    struct survey *s = &log->survey;
    unsigned left = PART;
    while (left > 0 && s->at)
        if (topic_some(log, &left))
            next_topic(log);
    /* A checkpoint between two parts gives up the first of these: some are passed over then. */
    for (; left > 0 && s->retired < log->retired_count; left--)
        note_rewritten(log, log->retired[s->retired++], SURVEY_GIVEN_UP);
    return s->at || s->retired < log->retired_count;
}

void survey_forget(struct log *log, const struct topic *t)
{
    if (log->survey.at == t)
        next_topic(log);
}
