/* What a topic lost with damaged index entries, put in its place again from the batches themselves
 * (recovery).
 *
 * A batch's record says whose it is and when it was whole, not where in the topic it stood. So it is
 * placed only from something that knows: the topic's last known batch, or what follows the hole, an
 * entry or a trim (whose record says where the topic ended then); and only where what stands is all
 * that was there. Where nothing follows: fsck_rest.c. What was trimmed since may be overwritten: it is
 * gone anyway, and what is left of the hole is its end. Control actions know their own numbers. Folds
 * into a log that nobody serves; never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_salvage.h"

/* ---- Holes ------------------------------------------------------------------------------------ */

/* May b follow a in the topic? Sequences of one session say so at order 5, else the times. */
static bool follows(const struct orphan *a, const struct orphan *b)
{
    if (a->s.session && a->s.session == b->s.session && a->s.fifo && b->s.fifo)
        return b->s.sequence > a->s.sequence;
    return a->s.time < b->s.time;
}

/* What may stand in a hole, in order: its first `left` at its begin, its last `right` at its end. */
struct fill {
    struct candidate {
        struct orphan *o;
        bool out;   /* its session took it before, or it sent two of its sequence */
        bool close; /* nothing tells its order among those of other publishers */
        bool ahead; /* it does not follow what its session had taken, at order 5 */
        bool sure;  /* it was committed, as far as is told */
    } * at;
    const struct topic *topic;
    size_t count, left, right;
    uint64_t bytes; /* of the hole */
    uint64_t sum;   /* of those at its end */
};

static int by_sequence(const void *a, const void *b)
{
    const struct side *x = &(*(struct candidate *const *)a)->o->s;
    const struct side *y = &(*(struct candidate *const *)b)->o->s;
    if (x->session != y->session)
        return x->session < y->session ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

bool salvage_is_next(struct log *log, const struct topic *t, const struct side *s, uint64_t before)
{
    const struct session *x = s->session ? session_find(log, s->session) : NULL;
    if (!s->session || !s->fifo || (t && t->topic_order != 5))
        return true;
    if (before || !x)
        return s->sequence == before + 1;
    return session_taken(x, s->sequence - 1) && !session_taken(x, s->sequence);
}

/* What was held, fenced or refused is whole, too. Not what its session took before, nor either of two that it
 * sent with one sequence; at order 5 nothing that does not follow what was taken, unless what was is lost. */
static int fill_sift(struct fill *g, const struct topic *t)
{
    size_t kept = 0;
    struct candidate **by = malloc((g->count + 1) * sizeof(struct candidate *));
    if (!by)
        return -ENOMEM;
    for (size_t i = 0; i < g->count; i++)
        by[i] = &g->at[i];
    qsort(by, g->count, sizeof *by, by_sequence);
    for (size_t i = 0; i < g->count; i++) {
        const struct side *s = &by[i]->o->s, *last = i > 0 ? &by[i - 1]->o->s : NULL;
        const struct session *x = s->session ? session_find(t->log, s->session) : NULL;
        bool same = s->session && last && last->session == s->session;
        if (same && last->sequence == s->sequence)
            by[i]->out = by[i - 1]->out = true;
        if (!x)
            continue;
        bool behind = same && last->sequence + 1 == s->sequence && !by[i - 1]->ahead;
        by[i]->out = by[i]->out || session_taken(x, s->sequence);
        by[i]->ahead = !salvage_is_next(t->log, t, s, behind ? last->sequence : 0);
    }
    free(by);
    for (size_t i = 0; i < g->count; i++)
        if (!g->at[i].out)
            g->at[kept++] = g->at[i];
    g->count = kept;
    return 0;
}

/* Among those that are left, since what was damaged otherwise is told to stand around them. */
static int fill_close(struct fill *g)
{
    const struct side **s = malloc((g->count + 1) * sizeof(struct side *));
    bool *close = calloc(g->count + 1, sizeof *close);
    int rc = s && close ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < g->count; i++)
        s[i] = &g->at[i].o->s;
    if (rc == 0)
        rc = fsck_close(s, g->count, close);
    for (size_t i = 0; rc == 0 && i < g->count; i++)
        g->at[i].close = close[i];
    free(s);
    free(close);
    return rc;
}

bool salvage_is_not_missing(const struct salvage *v, const struct orphan *o)
{
    return salvage_is_void(v, o, v->missing_from) ||
           (o->not_there > 0 && o->not_there >= v->missing);
}

/* What was never committed, or refused, makes up as many bytes as a batch of which nothing stands. Where the chain
 * says that there is one, only those go by bytes of which is told that they were committed. */
static void sure_tell(const struct salvage *v, const struct topic *t, const struct entry *behind,
                      struct candidate *c)
{
    const struct side *s = &c->o->s;
    const struct session *x = s->session ? session_find(v->log, s->session) : NULL;
    bool strange = v->strange > 0 && t->id != 0; /* an action knows its number */
    bool stale =
        strange && s->session && (!x || x->epoch != 1); /* it began anew: it may have refused it */
    bool taken = behind && behind->session == s->session && behind->sequence > s->sequence &&
                 s->fifo && t->topic_order == 5 && !stale;
    c->sure = !strange || (s->session ? taken : salvage_is_sure(v, c->o));
}

static int fill_begin(const struct salvage *v, struct fill *g, const struct topic *t,
                      const struct hole *h)
{
    uint64_t before = h->before, number = h->number;
    uint64_t after = salvage_newer_than(v, t->id);
    struct orphans own = fsck_orphans_of(v->f, t->id);
    size_t i = after < before ? orphans_find(own, after + 1) : 0;
    size_t end = after < before ? orphans_find(own, before) : 0;
    v->f->report->compared += end - i;
    g->at = calloc(end - i + 1, sizeof *g->at);
    if (!g->at)
        return -ENOMEM;
    for (; i < end; i++) {
        struct orphan *o = own.at[i];
        if (o->taken || o->named >= number || o->s.length > g->bytes ||
            salvage_is_not_missing(v, o))
            continue;
        g->at[g->count].o = o;
        sure_tell(v, t, h->behind, &g->at[g->count++]);
    }
    return fill_sift(g, t);
}

/* Nothing of the hole was trimmed, and more stands than it had room for: not all of it was committed, and nothing
 * tells which was. */
static bool fill_is_doubtful(const struct fill *g, uint64_t live)
{
    uint64_t room = g->bytes;
    for (size_t i = 0; i < g->count; i++) {
        if (g->at[i].o->s.length > room)
            return live == g->bytes;
        room -= g->at[i].o->s.length;
    }
    return false;
}

/* May it have been in the hole, though its time says that it was not? It was held for another of its session, or
 * what stands beside the hole was. */
static bool is_stray(const struct salvage *v, const struct fill *g, const struct orphan *o,
                     uint64_t number)
{
    const struct side *s = &o->s;
    uint64_t after = fsck_after(v->trusted, s);
    if (o->taken || o->named >= number || after < v->start || after + 1 >= number ||
        s->length > g->bytes || salvage_is_not_missing(v, o) || salvage_is_taken(v, s) || o->told)
        return false;
    bool comes = salvage_is_next(v->log, g->topic, s, 0);
    for (size_t i = 0; i < g->count && !comes; i++)
        comes = g->at[i].o->s.session == s->session && g->at[i].o->s.sequence < s->sequence;
    return comes;
}

/* Then those that are left may not be what stood there, nor one behind the other. */
static bool fill_strays(const struct salvage *v, const struct fill *g, const struct hole *h)
{
    uint64_t newer = salvage_newer_than(v, g->topic->id);
    struct orphans own = fsck_orphans_of(v->f, g->topic->id);
    size_t begin = newer < h->before ? orphans_find(own, newer + 1) : own.count;
    size_t end = newer < h->before ? orphans_find(own, h->before) : own.count;
    for (size_t i = begin; i-- > 0 && own.at[i]->s.time > v->time;)
        if (is_stray(v, g, own.at[i], h->number))
            return true;
    for (size_t i = end; i < own.count; i++)
        if (is_stray(v, g, own.at[i], h->number))
            return true;
    return false;
}

/* Those that make up the hole exactly, one behind the other, when no other choice does: `at` is then
 * nothing but these. */
static bool fill_exactly(struct fill *g)
{
    size_t low = 0, first = 0, length = 0, found = 0;
    uint64_t sum = 0;
    for (size_t high = 0; high < g->count; high++) {
        sum += g->at[high].o->s.length;
        while (sum > g->bytes)
            sum -= g->at[low++].o->s.length;
        if (sum != g->bytes)
            continue;
        found++;
        first = low;
        length = high + 1 - low;
    }
    bool sure = found == 1;
    for (size_t i = first; sure && i < first + length; i++)
        sure = !g->at[i].close && g->at[i].sure;
    for (size_t i = first + 1; sure && i < first + length; i++)
        sure = follows(g->at[i - 1].o, g->at[i].o);
    if (!sure)
        return false;
    memmove(g->at, g->at + first, length * sizeof *g->at);
    g->count = g->left = length;
    return true;
}

/* Is there a message's begin `skip` bytes into the batch? Its index. */
static bool boundary(const struct side *s, uint64_t skip, uint64_t *index)
{
    uint64_t at = 0;
    for (*index = 0; *index < s->count && at < skip; ++*index)
        at += s->lengths ? le32_get(s->lengths[*index]) : s->length / s->count;
    return at == skip;
}

static bool comes_before(const struct orphan *o, const struct entry *e)
{
    return e && o->alone && e->session == o->s.session && e->sequence == o->s.sequence + 1;
}

/* Where some was trimmed nothing tells that none is missing but the numbers of a session.
 * From its end back, until all is there that was not trimmed: `live` bytes. There a message begins,
 * and where it is known, so many messages after that one end here. */
static bool fill_from_end(struct fill *g, const struct hole *h, uint64_t live, uint64_t messages)
{
    uint64_t counted = 0, index = 0;
    g->right = g->sum = 0;
    while (g->sum < live && g->right < g->count) {
        const struct candidate *c = &g->at[g->count - 1 - g->right];
        if (c->close || !c->sure || c->o->s.length > g->bytes - g->sum ||
            (g->right > 0 && !follows(c->o, c[1].o)) ||
            (live < g->bytes &&
             !(g->right ? fsck_comes_next(c->o, &c[1].o->s) : comes_before(c->o, h->behind))))
            break;
        g->sum += c->o->s.length;
        counted += c->o->s.count;
        g->right++;
    }
    if (g->sum < live || g->right == 0 ||
        !boundary(&g->at[g->count - g->right].o->s, g->sum - live, &index))
        return g->sum >= live && g->right == 0;
    return messages == UINT64_MAX || counted - index == messages;
}

/* Which of them stood there. */
static int fill_choose(const struct salvage *v, struct fill *g, const struct hole *h, uint64_t live,
                       uint64_t messages)
{
    struct fill sure = *g;
    bool strays = fill_strays(v, g, h);
    sure.at = calloc(g->count + 1, sizeof *sure.at);
    if (!sure.at)
        return -ENOMEM;
    sure.count = 0;
    for (size_t i = 0; i < g->count; i++)
        if (!g->at[i].ahead)
            sure.at[sure.count++] = g->at[i];
    int rc = fill_close(&sure);
    if (rc == 0 && !fill_is_doubtful(&sure, live) && !strays &&
        (fill_exactly(&sure) || fill_from_end(&sure, h, live, messages))) {
        free(g->at);
        *g = sure;
        return 0;
    }
    free(sure.at);
    g->count = g->left = g->right = 0;
    return rc;
}

int salvage_put(struct salvage *v, const struct topic *t, struct orphan *o, uint64_t number)
{
    struct entry e[2];
    unsigned parts = fsck_entry(v->log, o, number, topic_end(t), v->term, e);
    o->taken = true;
    v->missing -= v->missing < parts ? v->missing : parts;
    v->placed++;
    return salvage_fold(v, &e[0], parts > 1 ? &e[1] : NULL);
}

static int fill_place(struct salvage *v, struct topic *t, const struct fill *g, uint64_t end,
                      uint64_t number)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < g->left; i++)
        rc = salvage_put(v, t, g->at[i].o, number);
    if (rc == 0 && topic_end(t) < end - g->sum) {
        rc = salvage_lose(v, t, end - g->sum, number);
        /* What may be in there came before all that follows, however many are missing. */
        for (size_t i = g->left; i < g->count - g->right; i++)
            if (g->at[i].o->s.time > t->ordered_time)
                t->ordered_time = g->at[i].o->s.time;
    }
    for (size_t i = g->count - g->right; rc == 0 && i < g->count; i++)
        rc = salvage_put(v, t, g->at[i].o, number);
    return rc;
}

int salvage_fill(struct salvage *v, struct topic *t, const struct hole *h)
{
    uint64_t from = topic_end(t), message = 0, base = salvage_base(v, t, &message);
    struct fill g = {.topic = t, .bytes = h->end - from};
    uint64_t live = base > from ? (base < h->end ? h->end - base : 0) : g.bytes;
    uint64_t messages =
        h->messages && base > from && h->messages >= message ? h->messages - message : UINT64_MAX;
    size_t placed = v->placed;
    int rc = fsck_orphans(v->f, v->log);
    if (rc == 0)
        rc = fill_begin(v, &g, t, h);
    if (rc == 0)
        rc = fill_choose(v, &g, h, live, messages);
    if (rc == 0)
        rc = fill_place(v, t, &g, h->end, h->number);
    free(g.at);
    if (rc || v->placed == placed || t->id == 0)
        return rc;
    v->f->state_damaged = true;
    fsck_say(v->f,
             &(struct finding){.kind = FSCK_ENTRY,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REBUILD,
                               .id = t->id,
                               .offsets = {from, h->end}},
             "The index entries of bytes " U64 " up to " U64 " are damaged; %zu batches were found "
             "by their own records, and their place by what stands around them.",
             from, h->end, v->placed - placed);
    return 0;
}

/* ---- Trims ------------------------------------------------------------------------------------ */

/* So many messages it had by now: how many were in what is lost follows. */
static void messages_settle(struct topic *t, uint64_t messages)
{
    size_t i = t->run_count;
    if (messages <= t->last_message_end)
        return;
    while (i > 0 && !(topic_run(t, i - 1)->flags & MEDIA_RUN_LOST))
        i--;
    if (i == 0)
        return;
    uint64_t behind = messages - t->last_message_end;
    for (; i < t->run_count; i++)
        topic_run(t, i)->message += behind;
    t->last_message_end = messages;
    table_rewrite(t->log, t);
}

int salvage_trim(struct salvage *v, const struct control *c, uint64_t time, uint64_t number)
{
    struct topic *t = c->kind == MEDIA_C_TRIM ? names_id(&v->log->names, c->id) : NULL;
    if (!t || names_is_dir(t) || c->end < topic_end(t) || c->end < c->value)
        return 0;
    int rc = 0;
    if (c->end > topic_end(t))
        rc = salvage_fill(
            v, t,
            &(struct hole){
                .end = c->end, .messages = c->messages, .before = time + 1, .number = number});
    if (rc == 0 && topic_end(t) == c->end)
        messages_settle(t, c->messages);
    return rc;
}
