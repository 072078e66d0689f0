/* Recovery: from the newest checkpoint along the chain to its first break (DESIGN section 5).
 *
 * A break above the durable watermark is the cut: what stood there was never acked. A break below
 * it is corruption and is reported, never cut.
 *
 * An entry that stands says that payload and side record stand: they were drained before it. Only
 * the page cache of an ordinary file keeps no such order over a machine's crash: then, above the
 * synced watermark, each batch that is still live at the end of the chain is read and checked, and
 * recovery is run again up to the first that fails. Live at the end, because the place of one that
 * was trimmed since may have been given away.
 *
 * What an entry says is enough to fold it: its line is in the chain, its bounds were checked. Records
 * are read only where they are needed: control actions (whole, or the pool is damaged), and the last
 * batch of each topic and session, for its time.
 *
 * Reads only; what must be written (claim, hardening of the tail, the term entry) is log_open's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/log_state.h"

#define CACHED  4096u /* a power of two */
#define NOWHERE 1u    /* no record stands there */

struct replay {
    struct log *log;
    struct slots slots; /* those that were ever served */
    struct cached {
        uint64_t id;
        void *at;
    } topic[CACHED], session[CACHED]; /* by id % CACHED; what is gone is forgotten at once */
    uint64_t trusted;                 /* all up to this number was durable when it was acked */
    uint32_t chain;
    uint64_t number; /* last entry folded */
    uint32_t term;   /* of the last entry */
    bool has_part;   /* `first` waits for its second half */
    struct entry first;
    uint32_t first_chain;
    bool verify; /* the pool is a file and the machine has booted since it was served */
    struct suspect {
        struct entry head, part;
        bool split;
    } * suspect; /* batches above `trusted`, in order; owned */
    size_t suspects, suspect_capacity;
};

/* The largest number that some slot's watermark vouches for. *booted: for a file pool, whether the
 * machine has booted since it was served. */
uint64_t recover_trusted(const struct log *log, bool *booted)
{
    struct mark marks[INDEX_MARKS];
    uint64_t trusted = 0;
    for (unsigned n = index_marks(&log->pool, marks, booted); n > 0; n--)
        trusted = marks[n - 1].number > trusted ? marks[n - 1].number : trusted;
    return trusted;
}

static bool is_zero(const void *p, size_t n)
{
    const char *at = p;
    size_t i = 0;
    while (i < n && at[i] == 0)
        i++;
    return i == n;
}

/* Whoever serves a slot says so durably before it writes an entry: one whose lines and roots are as the
 * format left them has none, and need not be looked at for each entry. Roots and watermarks were fetched
 * just before, and one of them tells of whatever was acked. */
static int slots_look(void *arg)
{
    struct replay *r = arg;
    const struct pool *pool = &r->log->pool;
    for (unsigned slot = 0; slot < pool->geo.slots; slot++) {
        if (!is_zero(pool_claim(pool, slot), 4 * (size_t)MEDIA_LINE) ||
            !is_zero(pool_root(pool, slot, 0), sizeof(struct media_root)) ||
            !is_zero(pool_root(pool, slot, 1), sizeof(struct media_root)) ||
            !is_zero(pool_entry(pool, slot, r->number + 1), sizeof(struct media_entry)))
            r->slots.slot[r->slots.count++] = slot;
    }
    return 0;
}

struct search {
    const struct log *log;
    const struct slots *slots;
    uint32_t term, chain;
    uint64_t number;
    struct entry *e;
    uint32_t *next;
};

static int search_rings(void *arg)
{
    const struct search *s = arg;
    const struct pool *pool = &s->log->pool;
    int found = 0;
    for (unsigned i = 0; i < s->slots->count; i++) {
        const struct media_entry *line = pool_entry(pool, s->slots->slot[i], s->number);
        struct entry here;
        uint32_t behind;
        flush_invalidate(pool->flush, line, sizeof *line);
        if (index_decode(line, s->number, s->chain, &here, &behind) && here.term >= s->term &&
            (!found || here.term > s->e->term)) {
            *s->e = here;
            *s->next = behind;
            found = 1;
        }
    }
    return found;
}

bool recover_next(const struct log *log, const struct slots *slots, uint32_t term, uint64_t number,
                  uint32_t chain, struct entry *e, uint32_t *next)
{
    struct search s = {.log = log,
                       .slots = slots,
                       .term = term,
                       .chain = chain,
                       .number = number,
                       .e = e,
                       .next = next};
    return guard_run(log->region, search_rings, &s) == 1;
}

/* Is the batch really there? Its place may hold another that was whole, of a history that was lost:
 * the entry knows its own record by the CRC. */
bool recover_whole(const struct log *log, const struct entry *e, const struct entry *part)
{
    struct side s;
    if (side_read(&log->pool, e->side, &s))
        return false;
    if (e->session ? (uint16_t)s.crc != e->check : s.crc != e->check)
        return false;
    return s.topic == e->topic && s.sequence == e->sequence && s.run0 == e->payload &&
           s.run0_length == e->length && s.run1 == (part ? part->payload : 0) &&
           s.session == e->session && side_payload_whole(&log->pool, &s);
}

/* ---- Times --------------------------------------------------------------------------------- */

/* Only the last batch of a topic or session (that is not late) says when that was last changed, so that not each one's side
 * record has to be read. A trim may have given its place away since: then nothing is known. */
static uint64_t when_read(const struct log *log, struct when *w)
{
    struct side s;
    bool stands = w->side != 0 && side_read(&log->pool, w->side, &s) == 0 && s.topic == w->topic &&
                  w->check == (w->session ? (uint16_t)s.crc : s.crc);
    w->side = 0;
    return stands ? s.time : 0;
}

static void when_note(struct when *w, const struct entry *e)
{
    *w = (struct when){
        .side = e->side, .topic = e->topic, .check = e->check, .session = e->session != 0};
}

/* Before an action that sets the time, and at the end. */
static void topic_settle(struct topic *t)
{
    if (t->when.side == 0)
        return;
    uint64_t time = when_read(t->log, &t->when);
    if (time == 0)
        time = topic_time_scan(t);
    if (time > t->time)
        t->time = time;
    if (time > t->modified)
        t->modified = time;
}

static void times_settle(struct log *log)
{
    for (struct topic *t = TAILQ_LAST(&log->manifest.nodes, node_list);
         t && t->changed > log->root_generation; t = TAILQ_PREV(t, node_list, changed_link))
        topic_settle(t);
    for (struct session *s = TAILQ_LAST(&log->manifest.sessions, session_list);
         s && s->changed > log->root_generation; s = TAILQ_PREV(s, session_list, changed_link)) {
        bool known = s->when.side == 0;
        uint64_t time = when_read(log, &s->when);
        const struct topic *t = known || time > 0 ? NULL : names_id(&log->names, s->topic);
        if (t) /* trimmed or moved since: no later than this */
            time = t->time;
        if (time > s->time)
            s->time = time;
    }
}

/* ---- Folding ------------------------------------------------------------------------------- */

static struct topic *topic_find(struct replay *r, uint32_t id)
{
    struct cached *c = &r->topic[id % CACHED];
    if (!c->at || c->id != id)
        *c = (struct cached){id, names_id(&r->log->names, id)};
    return c->at;
}

static struct session *session_cached(struct replay *r, uint64_t id)
{
    struct cached *c = &r->session[id % CACHED];
    if (!c->at || c->id != id)
        *c = (struct cached){id, session_find(r->log, id)};
    return c->at;
}

/* An action may remove topics with all their sessions, or a session. */
static void cache_forget(struct replay *r, const struct control *c)
{
    if (c->kind == MEDIA_C_CLOSE) {
        r->session[c->value % CACHED].at = NULL;
    } else if (c->kind == MEDIA_C_REMOVE || c->kind == MEDIA_C_RENAME) {
        r->topic[c->id % CACHED].at = NULL;
        r->topic[c->value % CACHED].at = NULL;
        memset(r->session, 0, sizeof r->session);
    }
}

/* Topic 0's records may not be given away before the next checkpoint: this one must be whole. */
static int replay_control(struct replay *r, const struct entry *e)
{
    struct log *log = r->log;
    struct control c;
    struct commit unused = {0};
    char record[sizeof(struct media_control) + MEDIA_MAX_NAME];
    if (e->length > sizeof record)
        return -EMBAR_ECORRUPT;
    /* Copied and then checked: while we look, another process may give the place away. */
    int rc = guard_fetch(log->region, record, pool_at(&log->pool, e->payload), e->length);
    if (rc == 0 && !recover_whole(log, e, NULL))
        rc = -EMBAR_ECORRUPT;
    if (rc == 0)
        rc = control_decode(record, e->length, &c);
    if (rc)
        return rc;
    cache_forget(r, &c);
    struct topic *t = c.kind == MEDIA_C_ATTR ? names_id(&log->names, c.id) : NULL;
    if (t)
        topic_settle(t);
    return fold_control(log, &c, e->number, &unused);
}

/* A committed batch of a session was its next one at order 5, and one it had not had at the others. */
static int replay_session(struct log *log, const struct topic *t, struct session *s,
                          const struct entry *e)
{
    bool fifo = atomic_load_explicit(&t->topic_order, memory_order_relaxed) == 5;
    if (session_taken(s, e->sequence) || session_is_far(s, e->sequence) ||
        (fifo && e->sequence != s->ordered + 1))
        return -EMBAR_ECORRUPT;
    return session_take(log, s, e->sequence, e->count);
}

static int replay_batch(struct replay *r, struct topic *t, const struct entry *e,
                        const struct entry *part)
{
    struct log *log = r->log;
    struct session *s = e->session ? session_cached(r, e->session) : NULL;
    int rc = 0;
    if (!t || names_is_dir(t) || (e->session && !s) || topic_end(t) != e->offset)
        return -EMBAR_ECORRUPT;
    if (s && (rc = replay_session(log, t, s, e)) != 0)
        return rc;
    struct placed p = {.offset = e->offset,
                       .run0 = e->payload,
                       .side = e->side,
                       .run0_length = e->length,
                       .length = e->length,
                       .count = e->count,
                       .equal = e->flags & MEDIA_F_EQUAL,
                       .late = e->flags & MEDIA_F_LATE,
                       .order0 = e->order};
    if (part) {
        p.run1 = part->payload;
        p.length += part->length;
        p.order1 = part->order;
    }
    rc = fold_batch(log, t, s, &p);
    if (rc)
        return rc;
    if (!p.late)
        when_note(&t->when, e);
    if (s)
        when_note(&s->when, e);
    return 0;
}

/* Its place, and the record that told its time, may be another's by now. */
static int replay_move(struct replay *r, const struct entry *e)
{
    int rc = fold_move(r->log, e);
    struct topic *t = rc ? NULL : topic_find(r, e->topic);
    if (t && t->when.side != 0)
        t->when.side = NOWHERE;
    return rc;
}

static int replay_fold(struct replay *r, const struct entry *e, const struct entry *part)
{
    switch (e->kind) {
    case MEDIA_TERM: return 0;
    case MEDIA_GRANT: return fold_grant(r->log, (uint32_t)e->session, e->offset, e->sequence);
    case MEDIA_MOVE: return replay_move(r, e);
    case MEDIA_CONTROL: {
        int rc = replay_batch(r, r->log->control, e, part);
        return rc ? rc : replay_control(r, e);
    }
    default: return replay_batch(r, topic_find(r, e->topic), e, part);
    }
}

static int suspect_add(struct replay *r, const struct entry *head, const struct entry *part)
{
    if (r->suspects == r->suspect_capacity) {
        size_t capacity = r->suspect_capacity ? r->suspect_capacity * 2 : 256;
        struct suspect *grown = realloc(r->suspect, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        r->suspect = grown;
        r->suspect_capacity = capacity;
    }
    struct suspect *s = &r->suspect[r->suspects++];
    s->head = *head;
    s->split = part != NULL;
    if (part)
        s->part = *part;
    return 0;
}

int recover_doubt(struct replay *r, const struct entry *head, const struct entry *part)
{
    /* A control record's place is not given away before the next checkpoint. */
    if (head->kind == MEDIA_CONTROL)
        return recover_whole(r->log, head, NULL);
    int rc = head->kind == MEDIA_BATCH ? suspect_add(r, head, part) : 0;
    return rc ? rc : 1;
}

/* Is the batch live, or trimmed from a run that still is? A run is walked from its first record. */
static bool walked(const struct topic *t, uint64_t end)
{
    uint64_t base = t->run_count > 0 ? topic_run(t, 0)->offset : topic_base(t);
    return end > base;
}

/* Still where its entry says? What was moved was made durable before the move was. */
static bool unmoved(const struct topic *t, const struct suspect *s)
{
    size_t i = topic_run_find(t, s->head.offset);
    const struct run *r = topic_run(t, i);
    if (s->head.offset < r->offset || r->payload + (s->head.offset - r->offset) != s->head.payload)
        return false;
    return !s->split || (i + 1 < t->run_count && topic_run(t, i + 1)->payload == s->part.payload);
}

uint64_t recover_limit(const struct replay *r)
{
    for (size_t i = 0; i < r->suspects; i++) {
        const struct suspect *s = &r->suspect[i];
        const struct topic *t = names_id(&r->log->names, s->head.topic);
        uint64_t end = s->head.offset + s->head.length + (s->split ? s->part.length : 0);
        bool here = t && walked(t, end) && unmoved(t, s);
        if (here && !recover_whole(r->log, &s->head, s->split ? &s->part : NULL))
            return s->head.number - 1;
    }
    return UINT64_MAX;
}

/* One entry behind the chain. 1: folded (or first half noted); 0: the cut; or an error. */
static int replay_one(struct replay *r, uint64_t number)
{
    struct log *log = r->log;
    struct entry e;
    uint32_t chain = r->has_part ? r->first_chain : r->chain, next = 0;
    if (!recover_next(log, &r->slots, r->term, number, chain, &e, &next))
        return 0;
    int rc = index_check(&log->pool, &e);
    if (rc)
        return rc;
    if (r->has_part != (e.kind == MEDIA_PART))
        return r->has_part ? 0 : -EMBAR_ECORRUPT;
    if (e.flags & MEDIA_F_SPLIT) {
        r->first = e;
        r->first_chain = next;
        r->has_part = true;
        return 1;
    }
    const struct entry *head = r->has_part ? &r->first : &e;
    const struct entry *part = r->has_part ? &e : NULL;
    if (r->verify && number > r->trusted && (rc = recover_doubt(r, head, part)) != 1)
        return rc;
    rc = replay_fold(r, head, part);
    if (rc)
        return rc;
    r->has_part = false;
    r->chain = next;
    r->number = number;
    r->term = e.term;
    return 1;
}

/* The term that a slot was last claimed under, and the claim when asked for; 0 when the line does not hold. */
uint32_t recover_claim_term(const struct pool *pool, unsigned slot, struct media_claim *claim)
{
    struct media_claim c;
    if (guard_fetch(pool->region, &c, pool_claim(pool, slot), sizeof c) != 0)
        return 0;
    uint32_t crc = le32_get(c.crc);
    c.crc = le32_of(0);
    if (claim)
        *claim = c;
    return le32_get(c.magic) == MEDIA_CLAIM_MAGIC && crc32c(0, &c, sizeof c) == crc
               ? le32_get(c.term)
               : 0;
}

/* Is it an entry of a later lap, and not a damaged line that seems to be one? Its chain goes on from the
 * one before it, which was stored after `number` was overwritten too. */
static bool is_later(const struct log *log, const struct media_entry *line, uint64_t number)
{
    uint64_t later = le64_get(line->number), entries = log->pool.geo.index_entries;
    bool follows = false;
    if (later <= number || later % entries != number % entries)
        return false;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++) {
        struct media_entry before;
        follows = follows ||
                  guard_copy(log->region, &before, pool_entry(&log->pool, slot, later - 1),
                             sizeof before) ||
                  (le64_get(before.number) == later - 1 &&
                   le32_get(before.crc) == index_chain_before(line));
    }
    return follows;
}

/* The chain ends because its next line was given to a later entry, not because nobody wrote it: a newer
 * checkpoint was there, and is damaged, or was written while we look. Then the line may be half of each. */
static bool ring_went_round(struct log *log, uint64_t number)
{
    bool taken = false;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++) {
        struct media_entry line;
        if (guard_copy(log->region, &line, pool_entry(&log->pool, slot, number), sizeof line) != 0)
            return true;
        if (is_later(log, &line, number))
            return true;
        taken = taken || le64_get(line.number) >= number;
    }
    return taken && log->readonly && checkpoint_moved(log);
}

static int replay(struct replay *r, struct embar_error *err)
{
    struct log *log = r->log;
    uint64_t begun = now_monotonic();
    struct media_root copy;
    const struct media_root *root = checkpoint_newest(log, &copy);
    r->chain = index_seed(&log->pool);
    r->trusted = recover_trusted(log, &r->verify);
    if (root) {
        int rc = checkpoint_load(log, root, err);
        if (rc)
            return rc;
        r->number = le64_get(root->number);
        r->chain = le32_get(root->chain);
        r->term = le32_get(root->term);
    }
    int rc = guard_run(log->region, slots_look, r);
    if (rc)
        return embar_fail(err, rc, "looking for what was written last");
    uint64_t start = r->number;
    rc = 1;
    while (rc == 1 && r->number < log->limit)
        rc = replay_one(r, r->number + (r->has_part ? 2 : 1));
    uint64_t limit = rc < 0 ? UINT64_MAX : recover_limit(r);
    if (limit != UINT64_MAX) {
        log->limit = limit;
        return -EAGAIN;
    }
    if (rc < 0)
        return embar_fail(err, rc, "entry %llu of the index is valid but makes no sense",
                          (unsigned long long)r->number + 1);
    if (r->number < r->trusted)
        return embar_fail(err, -EMBAR_ECORRUPT,
                          "entry %llu of the index is damaged although entries up to %llu were "
                          "durable; nothing was changed",
                          (unsigned long long)r->number + 1, (unsigned long long)r->trusted);
    if (ring_went_round(log, r->number + 1))
        return embar_fail(err, -EMBAR_ECORRUPT,
                          "entry %llu of the index was overwritten and no checkpoint covers it; "
                          "nothing was changed",
                          (unsigned long long)r->number + 1);
    uint32_t last_term = r->term; /* of the last entry */
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++) {
        uint32_t term = recover_claim_term(&log->pool, slot, NULL);
        r->term = term > r->term ? term : r->term;
    }
    if (r->term == UINT32_MAX) /* the next would be 0, below all that stand in the ring */
        return embar_fail(err, -EMBAR_ECORRUPT, "the pool's terms are used up");
    log->term = r->term;
    log->seq.next = r->number + 1;
    log->seq.chain = r->chain;
    if (log->readonly)
        settle_begin(log, r->number, r->chain, last_term);
    atomic_init(&log->committed, r->number);
    atomic_init(&log->durable, r->trusted);
    atomic_init(&log->synced, r->trusted);
    atomic_init(&log->checkpoint, start);
    times_settle(log);
    log->recovered = r->number - start;
    log->recovery_ns = now_monotonic() - begun;
    return 0;
}

int recover(struct log *log, struct embar_error *err)
{
    struct replay *r = calloc(1, sizeof *r);
    if (!r)
        return embar_fail(err, -ENOMEM, "no memory to recover with");
    r->log = log;
    int rc = replay(r, err);
    free(r->suspect);
    free(r);
    return rc;
}

/* ---- In parts ------------------------------------------------------------------------------ */

struct replay *recover_begin(struct log *log)
{
    struct replay *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->log = log;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++)
        r->slots.slot[r->slots.count++] = slot;
    return r;
}

void recover_end(struct replay *r)
{
    if (r) {
        times_settle(r->log);
        free(r->suspect);
    }
    free(r);
}

bool recover_entry(struct replay *r, uint32_t term, uint64_t number, uint32_t chain,
                   struct entry *e, uint32_t *next)
{
    return recover_next(r->log, &r->slots, term, number, chain, e, next);
}

int recover_fold(struct replay *r, const struct entry *e, const struct entry *part)
{
    int rc = replay_fold(r, e, part);
    if (rc == 0 && e->kind == MEDIA_BATCH)
        topic_settle(topic_find(r, e->topic));
    return rc;
}

void recover_forget(struct replay *r)
{
    memset(r->session, 0, sizeof r->session);
}
