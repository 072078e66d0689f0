/* What a topic lost with damaged index entries, put in its place again from the batches themselves
 * (recovery).
 *
 * A batch's record says whose it is and when it was whole, not where in the topic it stood. So it is
 * placed only from something that knows: the topic's last known batch, or what follows the hole, an
 * entry or a trim (whose record says where the topic ended then). What was trimmed since may be
 * overwritten: it is gone anyway, and what is left of the hole is its end. Control actions know their
 * own numbers. Folds into a log that nobody serves; never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_salvage.h"

/* ---- Control actions -------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const struct action *x = a, *y = b;
    return x->c.number < y->c.number ? -1 : x->c.number > y->c.number;
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

int salvage_actions(struct salvage *v)
{
    struct fsck *f = v->f;
    if (v->action)
        return 0;
    int rc = fsck_orphans(f, v->log);
    if (rc)
        return rc;
    v->action = calloc(f->orphans + 1, sizeof *v->action);
    if (!v->action)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++) {
        struct action a = {.o = &f->orphan[i]};
        const struct side *s = &a.o->s;
        if (s->topic == 0 && !s->run1 && a.o->whole &&
            control_decode(pool_at(&v->log->pool, s->run0), s->length, &a.c) == 0 &&
            a.c.number > v->start && a.c.number <= v->trusted && action_stands(v, &a))
            v->action[v->actions++] = a;
    }
    if (v->actions > 1)
        qsort(v->action, v->actions, sizeof *v->action, by_number);
    return 0;
}

uint64_t salvage_base(const struct salvage *v, const struct topic *t, uint64_t *message)
{
    uint64_t base = topic_base(t);
    *message = t->first_message;
    for (size_t i = 0; i < v->actions; i++) {
        const struct control *c = &v->action[i].c;
        if (c->kind == MEDIA_C_TRIM && c->id == t->id && c->value > base) {
            base = c->value;
            *message = c->value2;
        }
    }
    return base;
}

/* ---- Holes ------------------------------------------------------------------------------------ */

/* Does b stand right behind a, payload and record? Then nothing came between them. */
static bool joins(uint64_t payload_end, uint64_t side_end, const struct orphan *b)
{
    return payload_end == b->s.run0 && side_end == b->at + MEDIA_LINE;
}

static bool orphans_join(const struct orphan *a, const struct orphan *b)
{
    return !a->s.run1 && joins(a->s.run0 + a->s.run0_length,
                               a->at + MEDIA_LINE - side_size(a->s.count, a->s.equal), b);
}

/* The topic's last known batch and this one. */
static bool tail_joins(const struct topic *t, const struct orphan *o)
{
    if (t->run_count == 0)
        return topic_end(t) == 0;
    const struct run *r = topic_run(t, t->run_count - 1);
    return !(r->flags & MEDIA_RUN_LOST) && r->batches > 0 &&
           joins(r->payload + (topic_end(t) - r->offset), t->side_tail - t->side_tail_below, o);
}

static bool entry_joins(const struct orphan *o, const struct entry *e)
{
    return e && !o->s.run1 && o->s.run0 + o->s.run0_length == e->payload &&
           o->at + MEDIA_LINE - side_size(o->s.count, o->s.equal) == e->side + MEDIA_LINE;
}

/* May b follow a in the topic? Sequences of one session say so, else the times. */
static bool follows(const struct orphan *a, const struct orphan *b)
{
    if (a->s.session && a->s.session == b->s.session)
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
    } * at;
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
    if (!s->session || (t && t->topic_order != 5))
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
static int fill_close(struct fill *g, const struct topic *t)
{
    const struct side **s = malloc((g->count + 1) * sizeof(struct side *));
    bool *close = calloc(g->count + 1, sizeof *close);
    int rc = s && close ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < g->count; i++)
        s[i] = &g->at[i].o->s;
    if (rc == 0)
        rc = fsck_close(&t->log->pool, s, close, g->count);
    for (size_t i = 0; rc == 0 && i < g->count; i++)
        g->at[i].close = close[i];
    free(s);
    free(close);
    return rc;
}

/* Can it be none of the entries that are missing? */
static bool is_not_missing(const struct salvage *v, const struct orphan *o)
{
    return salvage_is_void(v, o, v->missing_from) ||
           (o->not_there > 0 && o->not_there >= v->missing);
}

static int fill_begin(const struct salvage *v, struct fill *g, const struct topic *t,
                      uint64_t before, uint64_t number)
{
    struct fsck *f = v->f;
    uint64_t after = salvage_newer_than(v, t->id);
    g->at = calloc(f->orphans + 1, sizeof *g->at);
    if (!g->at)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++) {
        struct orphan *o = &f->orphan[i];
        if (!o->taken && o->s.topic == t->id && o->s.time > after && o->s.time < before &&
            o->named < number && o->s.length <= g->bytes && !is_not_missing(v, o))
            g->at[g->count++].o = o;
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
        sure = !g->at[i].close;
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

/* From its end back, until all is there that was not trimmed: `live` bytes. There a message begins,
 * and where it is known, so many messages after that one end here. */
static bool fill_from_end(struct fill *g, uint64_t live, uint64_t messages)
{
    uint64_t counted = 0, index = 0;
    g->right = g->sum = 0;
    while (g->sum < live && g->right < g->count) {
        const struct candidate *c = &g->at[g->count - 1 - g->right];
        if (c->close || c->o->s.length > g->bytes - g->sum ||
            (g->right > 0 && !follows(c->o, c[1].o)))
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

static bool fill_goes_on(const struct orphan *a, const struct orphan *b)
{
    return follows(a, b) && orphans_join(a, b);
}

/* Was it committed, for what follows it in its session was? */
static bool is_before(const struct orphan *o, uint64_t session, uint64_t sequence)
{
    return o->s.session && o->s.session == session && o->s.sequence + 1 == sequence;
}

static bool joins_behind(const struct candidate *c, const struct candidate *next,
                         const struct entry *e)
{
    if (c->close)
        return false;
    if (next)
        return fill_goes_on(c->o, next->o) &&
               (!c->ahead || is_before(c->o, next->o->s.session, next->o->s.sequence));
    return e && entry_joins(c->o, e) && (!c->ahead || is_before(c->o, e->session, e->sequence));
}

/* Some of it is damaged itself: only what joins what is known. */
static void fill_joined(struct fill *g, const struct topic *t, const struct entry *behind)
{
    uint64_t room = g->bytes;
    g->left = g->right = g->sum = 0;
    while (g->left < g->count && !g->at[g->left].ahead && !g->at[g->left].close &&
           g->at[g->left].o->s.length <= room &&
           (g->left ? fill_goes_on(g->at[g->left - 1].o, g->at[g->left].o)
                    : tail_joins(t, g->at[0].o))) {
        room -= g->at[g->left].o->s.length;
        g->left++;
    }
    while (g->left + g->right < g->count) {
        const struct candidate *c = &g->at[g->count - 1 - g->right];
        if (!joins_behind(c, g->right ? c + 1 : NULL, behind) || c->o->s.length > room)
            break;
        room -= c->o->s.length;
        g->sum += c->o->s.length;
        g->right++;
    }
}

/* Which of them stood there. */
static int fill_choose(struct fill *g, const struct topic *t, const struct hole *h, uint64_t live,
                       uint64_t messages)
{
    struct fill sure = *g;
    sure.at = calloc(g->count + 1, sizeof *sure.at);
    if (!sure.at)
        return -ENOMEM;
    sure.count = 0;
    for (size_t i = 0; i < g->count; i++)
        if (!g->at[i].ahead)
            sure.at[sure.count++] = g->at[i];
    int rc = fill_close(&sure, t);
    if (rc == 0 && !fill_is_doubtful(&sure, live) &&
        (fill_exactly(&sure) || fill_from_end(&sure, live, messages))) {
        free(g->at);
        *g = sure;
        return 0;
    }
    free(sure.at);
    if (fill_is_doubtful(g, live))
        g->count = 0;
    rc = rc ? rc : fill_close(g, t);
    if (rc == 0)
        fill_joined(g, t, h->behind);
    return rc;
}

static int fill_fold(struct salvage *v, const struct topic *t, struct orphan *o, uint64_t number)
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
        rc = fill_fold(v, t, g->at[i].o, number);
    if (rc == 0 && topic_end(t) < end - g->sum) {
        rc = salvage_lose(v, t, end - g->sum, number);
        /* What may be in there came before all that follows, however many are missing. */
        for (size_t i = g->left; i < g->count - g->right; i++)
            if (g->at[i].o->s.time > t->ordered_time)
                t->ordered_time = g->at[i].o->s.time;
    }
    for (size_t i = g->count - g->right; rc == 0 && i < g->count; i++)
        rc = fill_fold(v, t, g->at[i].o, number);
    return rc;
}

int salvage_fill(struct salvage *v, struct topic *t, const struct hole *h)
{
    uint64_t from = topic_end(t), message = 0, base = salvage_base(v, t, &message);
    struct fill g = {.bytes = h->end - from};
    uint64_t live = base > from ? (base < h->end ? h->end - base : 0) : g.bytes;
    uint64_t messages =
        h->messages && base > from && h->messages >= message ? h->messages - message : UINT64_MAX;
    size_t placed = v->placed;
    int rc = fsck_orphans(v->f, v->log);
    if (rc == 0)
        rc = fill_begin(v, &g, t, h->before, h->number);
    if (rc == 0)
        rc = fill_choose(&g, t, h, live, messages);
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
    uint64_t behind = 0;
    while (i > 0 && !(topic_run(t, i - 1)->flags & MEDIA_RUN_LOST))
        i--;
    if (i == 0 || messages <= t->last_message_end)
        return;
    behind = messages - t->last_message_end;
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

/* ---- What nothing follows --------------------------------------------------------------------- */

static bool is_left(const struct salvage *v, const struct orphan *o)
{
    struct topic *t = o->s.topic ? names_id(&v->log->names, o->s.topic) : NULL;
    return t && !names_is_dir(t) && !o->taken && o->s.time > salvage_newer_than(v, t->id) &&
           o->s.time < v->missing_before && !is_not_missing(v, o) && !salvage_is_taken(v, &o->s);
}

/* What the topic holds last, by its record. */
static bool tail_read(const struct topic *t, struct side *s)
{
    if (t->run_count == 0)
        return false;
    const struct run *r = topic_run(t, t->run_count - 1);
    return !(r->flags & MEDIA_RUN_LOST) && r->batches > 0 &&
           side_read(&t->log->pool, t->side_tail, s) == 0 && s->topic == t->id;
}

/* Who published in a topic, by what stands of it. */
struct source {
    uint32_t topic;
    bool several;
    uint64_t session;
    UT_hash_handle hh;
};

static int source_note(struct source **all, uint32_t topic, uint64_t session)
{
    struct source *s;
    HASH_FIND(hh, *all, &topic, sizeof topic, s);
    if (s) {
        s->several = s->several || s->session != session;
        return 0;
    }
    s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->topic = topic;
    s->session = session;
    HASH_ADD(hh, *all, topic, sizeof s->topic, s);
    if (is_hashed(s, hh))
        return 0;
    free(s);
    return -ENOMEM;
}

static int sources_find(struct salvage *v)
{
    int rc = 0;
    for (const struct session *s = v->log->sessions.by_id; s && rc == 0; s = s->hh.next)
        rc = source_note(&v->source, s->topic, s->id);
    for (size_t i = 0; i < v->f->orphans && rc == 0; i++)
        rc = source_note(&v->source, v->f->orphan[i].s.topic, v->f->orphan[i].s.session);
    return rc;
}

static void sources_free(struct salvage *v)
{
    for (struct source *s = v->source, *next; s; s = next) {
        next = s->hh.next;
        HASH_DELETE(hh, v->source, s);
        free(s);
    }
}

/* Its session's number before it says what came before it in the topic. */
static bool is_only_source(const struct salvage *v, const struct orphan *o)
{
    const struct source *s;
    HASH_FIND(hh, v->source, &o->s.topic, sizeof o->s.topic, s);
    return o->s.session && s && !s->several;
}

/* Batches of its session that are missing before it: 0 when it is the next one, UINT64_MAX when nothing
 * tells. */
static uint64_t session_skips(const struct salvage *v, const struct topic *t,
                              const struct orphan *o)
{
    struct side last;
    const struct session *s = o->s.session ? session_find(v->log, o->s.session) : NULL;
    uint64_t before = UINT64_MAX;
    if (s)
        before = s->ordered;
    else if (o->s.session && tail_read(t, &last) && last.session == o->s.session)
        before = last.sequence;
    return before < o->s.sequence ? o->s.sequence - before - 1 : UINT64_MAX;
}

/* Does it begin its extent? */
static bool is_bottom(const struct topic *t, const struct orphan *o)
{
    uint64_t base = pool_extent_base(&t->log->pool, o->s.run0, o->s.order0);
    return o->s.run0 == base &&
           o->at + MEDIA_LINE == base + (1ull << (o->s.order0 + t->log->pool.geo.block_shift));
}

/* Can nothing have come between the topic's last batch and this one, but what is damaged itself:
 * *lost bytes? They stand side by side, and its session does not gainsay it; or it is the next one of
 * the only session; or between them in one extent is what that misses. */
static bool rest_follows(const struct salvage *v, const struct topic *t, const struct orphan *o,
                         uint64_t *lost)
{
    uint64_t skips = session_skips(v, t, o);
    bool told = skips != UINT64_MAX;
    *lost = 0;
    if (t->run_count == 0)
        return topic_end(t) == 0 && (told ? skips == 0 : o->s.sequence == 1) &&
               is_only_source(v, o) && is_bottom(t, o);
    const struct run *r = topic_run(t, t->run_count - 1);
    uint64_t end = r->payload + (topic_end(t) - r->offset), low = t->side_tail - t->side_tail_below;
    if (r->flags & MEDIA_RUN_LOST)
        return false;
    /* The record of one that was moved stands elsewhere. */
    if (tail_joins(t, o) || (r->batches == 0 && end == o->s.run0))
        return o->s.session == 0 || (told ? skips == 0 : o->s.sequence == 1);
    if (!is_only_source(v, o))
        return false;
    if (skips == 0)
        return true;
    if (!told || r->batches == 0 || r->order != o->s.order0 ||
        pool_extent_base(&t->log->pool, r->payload, r->order) !=
            pool_extent_base(&t->log->pool, o->s.run0, o->s.order0))
        return false;
    *lost = o->s.run0 - end;
    return o->s.run0 > end && o->at + MEDIA_LINE < low;
}

static int rest_fold(struct salvage *v, struct orphan *o, bool counted)
{
    struct topic *t = names_id(&v->log->names, o->s.topic);
    uint64_t lost;
    int rc = 0;
    if (o->close || (!rest_follows(v, t, o, &lost) && !counted)) {
        t->ordered_time = UINT64_MAX; /* nor is the place known of what follows */
        return 0;
    }
    if (lost && !counted)
        rc = salvage_lose(v, t, topic_end(t) + lost, v->number);
    return rc ? rc : fill_fold(v, t, o, v->number);
}

/* Made behind the checkpoint and not removed, but by an action that is lost? */
static bool is_nameless(const struct salvage *v, const struct orphan *o)
{
    bool removed = false;
    for (size_t i = 0; i < v->actions; i++) {
        const struct control *c = &v->action[i].c;
        removed = removed || (c->kind == MEDIA_C_REMOVE && c->id == o->s.topic) ||
                  (c->kind == MEDIA_C_RENAME && c->value == o->s.topic);
    }
    return !o->taken && o->whole && o->s.topic > LOG_ROOT_ID && o->s.topic >= v->next_id &&
           o->s.topic < UINT32_MAX && o->s.time > v->time && !removed &&
           !names_id(&v->log->names, o->s.topic);
}

static int nameless_adopt(struct salvage *v)
{
    struct fsck *f = v->f;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->orphans; i++) {
        struct topic *t;
        if (!is_nameless(v, &f->orphan[i]))
            continue;
        rc = fsck_adopt(f, v->log, f->orphan[i].s.topic, 0, &t);
        if (rc == 0)
            fsck_say(
                f,
                &(struct finding){
                    .kind = FSCK_NODE, .severity = FSCK_ERROR, .action = FSCK_ADOPT, .id = t->id},
                "The record that made the topic with number %u is damaged, and with it its name "
                "and attributes; it is called %s now, and belongs to the owner of the pool's "
                "root directory.",
                t->id, t->key.name);
    }
    return rc;
}

/* By session, of each in the order of their times, in which they stand. */
static int by_session(const void *a, const void *b)
{
    const struct orphan *x = *(struct orphan *const *)a, *y = *(struct orphan *const *)b;
    if (x->s.session != y->s.session)
        return x->s.session < y->s.session ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Is each of `n` that are left the next of its session? For what was held no entry is missing. False as well
 * without memory. */
static bool none_is_ahead(const struct salvage *v, uint64_t n)
{
    struct orphan **left = malloc((n + 1) * sizeof(struct orphan *));
    size_t count = 0;
    for (size_t i = 0; left && i < v->f->orphans && count < n; i++)
        if (is_left(v, &v->f->orphan[i]))
            left[count++] = &v->f->orphan[i];
    if (left && count > 1)
        qsort(left, count, sizeof *left, by_session);
    bool all = left;
    for (size_t i = 0; all && i < count; i++) {
        const struct side *o = &left[i]->s, *before = i > 0 ? &left[i - 1]->s : NULL;
        bool same = before && before->session == o->session;
        const struct topic *t = names_id(&v->log->names, o->topic);
        all = salvage_is_next(v->log, t, o, same ? before->sequence : 0);
    }
    free(left);
    return all;
}

int salvage_rest(struct salvage *v)
{
    struct fsck *f = v->f;
    uint64_t left = 0;
    if (v->missing == 0)
        return 0;
    int rc = fsck_orphans(f, v->log);
    if (rc == 0)
        rc = nameless_adopt(v);
    if (rc == 0)
        rc = sources_find(v);
    if (rc == 0)
        rc = salvage_close(v);
    for (size_t i = 0; rc == 0 && i < f->orphans; i++)
        left += is_left(v, &f->orphan[i]) ? (f->orphan[i].s.run1 ? 2u : 1u) : 0;
    /* Just as many as are missing: none is damaged itself. */
    bool counted = rc == 0 && left == v->missing && none_is_ahead(v, left);
    size_t placed = v->placed;
    /* More than were lost: some were not committed, and nothing tells which. */
    bool many = !f->watermark_damaged && left > v->missing;
    for (size_t i = 0; rc == 0 && !many && i < f->orphans; i++)
        if (is_left(v, &f->orphan[i]))
            rc = rest_fold(v, &f->orphan[i], counted);
    sources_free(v);
    if (rc || v->placed == placed)
        return rc;
    f->state_damaged = true;
    fsck_say(
        f, &(struct finding){.kind = FSCK_ENTRY, .severity = FSCK_WARNING, .action = FSCK_REBUILD},
        "%zu whole batches stand behind all that the index tells of their topics; they are what "
        "came last.%s",
        v->placed - placed,
        f->watermark_damaged ? " The watermark that would tell whether they were acknowledged "
                               "is damaged, so they are kept."
                             : "");
    return 0;
}
