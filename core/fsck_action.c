/* Control actions that stand although their entries may not, by their numbers, and by what they were done to
 * (recovery). Reads only.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_salvage.h"

static int by_number(const void *a, const void *b)
{
    const struct action *x = a, *y = b;
    return x->c.number < y->c.number ? -1 : x->c.number > y->c.number;
}

/* What it trims or removes; 0: it does neither. */
static uint32_t subject_of(const struct control *c)
{
    if (c->kind == MEDIA_C_RENAME)
        return c->value <= UINT32_MAX ? (uint32_t)c->value : 0;
    return c->kind == MEDIA_C_TRIM || c->kind == MEDIA_C_REMOVE ? c->id : 0;
}

/* Of one subject the trims first, and the furthest of those. */
static int by_subject(const void *a, const void *b)
{
    const struct action *m = *(struct action *const *)a, *n = *(struct action *const *)b;
    const struct control *x = &m->c, *y = &n->c;
    uint32_t of_x = subject_of(x), of_y = subject_of(y);
    bool trims = x->kind == MEDIA_C_TRIM;
    if (of_x != of_y)
        return of_x < of_y ? -1 : 1;
    if (trims != (y->kind == MEDIA_C_TRIM))
        return trims ? -1 : 1;
    if (trims && x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return m < n ? -1 : m > n;
}

/* Did the entry of this number say so? What stands of another one gainsays. */
static bool action_stands(const struct salvage *v, const struct action *a)
{
    const struct media_entry *line = salvage_line(v, a->c.number);
    struct entry e;
    uint32_t next;
    if (!line || !index_decode(line, a->c.number, index_chain_before(line), &e, &next))
        return true;
    return e.kind == MEDIA_CONTROL ? e.side == a->o->at : !recover_whole(v->log, &e, NULL);
}

static int subjects_make(struct salvage *v)
{
    v->subject = calloc(v->actions + 1, sizeof(struct action *));
    if (!v->subject)
        return -ENOMEM;
    for (size_t i = 0; i < v->actions; i++)
        if (subject_of(&v->action[i].c))
            v->subject[v->subjects++] = &v->action[i];
    if (v->subjects > 1)
        qsort(v->subject, v->subjects, sizeof(struct action *), by_subject);
    return 0;
}

int salvage_actions(struct salvage *v)
{
    struct fsck *f = v->f;
    if (v->action)
        return 0;
    int rc = fsck_orphans(f, v->log);
    if (rc)
        return rc;
    struct orphans own = fsck_orphans_of(f, 0);
    v->action = calloc(own.count + 1, sizeof *v->action);
    if (!v->action)
        return -ENOMEM;
    for (size_t i = 0; i < own.count; i++) {
        struct action a = {.o = own.at[i]};
        const struct side *s = &a.o->s;
        if (!s->run1 && a.o->whole &&
            control_decode(pool_at(&v->log->pool, s->run0), s->length, &a.c) == 0 &&
            a.c.number > v->start && a.c.number <= v->trusted && action_stands(v, &a))
            v->action[v->actions++] = a;
    }
    if (v->actions > 1)
        qsort(v->action, v->actions, sizeof *v->action, by_number);
    return subjects_make(v);
}

void salvage_actions_drop(struct salvage *v)
{
    free(v->action);
    free(v->subject);
    v->action = NULL;
    v->subject = NULL;
    v->actions = v->subjects = 0;
}

size_t salvage_action_find(const struct salvage *v, uint64_t number)
{
    size_t low = 0, high = v->actions;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (v->action[mid].c.number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Of what was done to topics, the first that was not done to one before this. */
static size_t subject_find(const struct salvage *v, uint64_t topic)
{
    size_t low = 0, high = v->subjects;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (subject_of(&v->subject[mid]->c) < topic)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint64_t salvage_base(const struct salvage *v, const struct topic *t, uint64_t *message)
{
    size_t i = subject_find(v, t->id);
    const struct control *c = i < v->subjects ? &v->subject[i]->c : NULL;
    bool trimmed = c && c->kind == MEDIA_C_TRIM && c->id == t->id && c->value > topic_base(t);
    *message = trimmed ? c->value2 : t->first_message;
    return trimmed ? c->value : topic_base(t);
}

bool salvage_is_removed(const struct salvage *v, uint32_t topic)
{
    size_t i = subject_find(v, (uint64_t)topic + 1);
    const struct control *c = i > 0 ? &v->subject[i - 1]->c : NULL;
    return c && c->kind != MEDIA_C_TRIM && subject_of(c) == topic;
}
