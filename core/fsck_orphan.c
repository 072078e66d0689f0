/* Batches whose records nothing names any more, and which of them a gap was made of (recovery).
 *
 * Any whole record may be meant that is newer than what its topic is known to hold, wherever it
 * stands: what holds its place by what is known may have been trimmed.
 *
 * A side record proves itself and its payload, and says topic, session, sequence, place and time; not
 * where in the topic it stood. So it is taken for a gap only when it must be it: the batches of
 * that topic, in the order of their times (and places, and sequences, which must agree), fill the
 * gap exactly, and no other choice does. Reads only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_salvage.h"

struct cover { /* payload of a run */
    uint64_t from, to;
    const struct topic *t;
    size_t run;
};

struct covers {
    struct cover *at;
    size_t count, capacity;
};

static int cover_push(struct covers *c, const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? c->capacity * 2 : 256;
        struct cover *grown = realloc(c->at, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        c->at = grown;
        c->capacity = capacity;
    }
    c->at[c->count++] =
        (struct cover){r->payload, r->payload + (topic_run_end(t, i) - r->offset), t, i};
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct cover *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

static int covers_topic(struct covers *c, const struct topic *t)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->run_count; i++) {
        if (!(topic_run(t, i)->flags & MEDIA_RUN_LOST))
            rc = cover_push(c, t, i);
    }
    return rc;
}

static int covers_make(struct covers *c, struct log *log)
{
    int rc = covers_topic(c, log->control);
    for (struct topic *t = log->names.by_id; rc == 0 && t; t = t->by_id.next)
        rc = covers_topic(c, t);
    if (rc == 0 && c->count > 1)
        qsort(c->at, c->count, sizeof *c->at, by_place);
    return rc;
}

/* Is the byte at `at` payload of a whole batch of the run? Then what looks like a record there is
 * what somebody published. */
static bool published(const struct pool *p, const struct topic *t, size_t i, uint64_t at)
{
    bool part = topic_run(t, i)->batches == 0;
    size_t head = part && i > 0 ? i - 1 : i;
    const struct run *r = topic_run(t, head);
    uint64_t side = r->side;
    struct side s;
    for (unsigned b = 0; b < r->batches && side_read(p, side, &s) == 0 && s.topic == t->id; b++) {
        topic_part_place(t, head, &s);
        if ((at >= s.run0 && at - s.run0 < s.run0_length) ||
            (s.run1 && at >= s.run1 && at - s.run1 < s.length - s.run0_length))
            return side_payload_whole(p, &s);
        side -= side_size(s.count, s.equal);
    }
    return false;
}

static bool covered(const struct pool *p, const struct covers *c, uint64_t at)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->at[mid].from <= at)
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 && c->at[low - 1].to > at &&
           published(p, c->at[low - 1].t, c->at[low - 1].run, at);
}

static int orphan_push(struct fsck *f, uint64_t at, const struct side *s, bool whole)
{
    if (f->orphans == f->orphan_capacity) {
        size_t capacity = f->orphan_capacity ? f->orphan_capacity * 2 : 64;
        struct orphan *grown = realloc(f->orphan, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        f->orphan = grown;
        f->orphan_capacity = capacity;
    }
    f->orphan[f->orphans++] = (struct orphan){.at = at, .s = *s, .whole = whole};
    return 0;
}

/* Payload and record in the extents that the record says, the payload below its record. */
static bool placed(const struct pool *p, uint64_t at, const struct side *s)
{
    uint64_t base = pool_extent_base(p, s->run0, s->order0);
    uint64_t size = 1ull << (s->order0 + p->geo.block_shift);
    if (s->run0 + s->run0_length > at || at < base || at - base >= size ||
        !pool_in_data(p, base, size))
        return false;
    if (!s->run1)
        return true;
    base = pool_extent_base(p, s->run1, s->order1);
    size = 1ull << (s->order1 + p->geo.block_shift);
    return pool_in_data(p, base, size) && s->length - s->run0_length <= base + size - s->run1;
}

static int by_time(const void *a, const void *b)
{
    const struct orphan *x = a, *y = b;
    if (x->s.time != y->s.time)
        return x->s.time < y->s.time ? -1 : 1;
    return x->s.run0 < y->s.run0 ? -1 : x->s.run0 > y->s.run0;
}

static int by_side(const void *a, const void *b)
{
    const struct orphan *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* The largest number of a line that continues the one before it. */
static uint64_t lines_newest(const struct pool *p)
{
    uint64_t newest = 0;
    for (unsigned slot = 0; slot < p->geo.slots; slot++)
        for (uint64_t n = 0; n < p->geo.index_entries; n++) {
            const struct media_entry *line = pool_entry(p, slot, n);
            uint64_t number = le64_get(line->number);
            const struct media_entry *before = pool_entry(p, slot, number - 1);
            if (number > newest && le64_get(before->number) == number - 1 &&
                le32_get(before->crc) == index_chain_before(line))
                newest = number;
        }
    return newest;
}

bool fsck_names(const struct entry *e, const struct side *s)
{
    return e->topic == s->topic && (e->session ? (uint16_t)s->crc == e->check : s->crc == e->check);
}

static int by_payload(const void *a, const void *b)
{
    const struct orphan *x = *(struct orphan *const *)a, *y = *(struct orphan *const *)b;
    return x->s.run0 < y->s.run0 ? -1 : x->s.run0 > y->s.run0;
}

/* The one that the line tells of, where its record stands in another's place; else what stands in its own. */
static struct orphan *orphan_of(const struct fsck *f, struct orphan *const *by,
                                const struct media_entry *line)
{
    struct orphan key = {.at = le64_low48(line->side)}, *there;
    const struct orphan *place = &key;
    struct entry e;
    uint32_t next;
    there = bsearch(&key, f->orphan, f->orphans, sizeof key, by_side);
    if (!index_decode(line, le64_get(line->number), index_chain_before(line), &e, &next) ||
        (there && fsck_names(&e, &there->s)))
        return there;
    key.s.run0 = e.payload;
    struct orphan *const *x = bsearch(&place, by, f->orphans, sizeof(struct orphan *), by_payload);
    while (x && x > by && x[-1]->s.run0 == e.payload)
        x--;
    for (; x && x < by + f->orphans && (*x)->s.run0 == e.payload; x++)
        if (fsck_names(&e, &(*x)->s))
            return *x;
    return there;
}

/* What index lines say of them, whether they stand or not. A move says where a batch stands that
 * another line tells of. They stand in the order of their places. */
static int orphans_named(struct fsck *f, const struct pool *p)
{
    uint64_t newest = lines_newest(p);
    struct orphan **by = malloc((f->orphans + 1) * sizeof(struct orphan *));
    if (!by)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++)
        by[i] = &f->orphan[i];
    qsort(by, f->orphans, sizeof *by, by_payload);
    for (unsigned slot = 0; slot < p->geo.slots; slot++)
        for (uint64_t n = 0; n < p->geo.index_entries; n++) {
            const struct media_entry *line = pool_entry(p, slot, n);
            uint64_t number = le64_get(line->number);
            if (number % p->geo.index_entries != n || number > newest + 1 ||
                le64_low48(line->side) == 0 || line->kind == MEDIA_MOVE)
                continue;
            struct orphan *o = orphan_of(f, by, line);
            if (o && o->s.topic == le32_get(line->topic) && number > o->named)
                o->named = number;
        }
    free(by);
    return 0;
}

int fsck_unplaced(struct fsck *f, const struct topic *t, const struct orphan *o, const char *what)
{
    if (f->unplaced_count == f->unplaced_capacity) {
        size_t capacity = f->unplaced_capacity ? f->unplaced_capacity * 2 : 64;
        struct unplaced *grown = realloc(f->unplaced, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        f->unplaced = grown;
        f->unplaced_capacity = capacity;
    }
    f->unplaced[f->unplaced_count++] = (struct unplaced){t->id, o->at};
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_UNPLACED,
                          .severity = FSCK_ERROR,
                          .action = FSCK_FORGET,
                          .id = t->id,
                          .messages = {0, o->s.count},
                          .place = {o->at, o->at + MEDIA_LINE}},
        "A batch of %u messages (%u bytes) is whole, but the %s is damaged, and nothing else tells "
        "where in the topic it stands. It may have been trimmed.",
        o->s.count, o->s.length, what);
    return 0;
}

/* A batch that was moved stands at its old place too, until that is used again: one of them will do,
 * a whole one before one that is named, and the others go behind all. */
static int twins_part(struct fsck *f)
{
    size_t kept = 0, twins = 0;
    struct orphan *twin = malloc((f->orphans + 1) * sizeof *twin);
    if (!twin)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++) {
        struct orphan o = f->orphan[i];
        struct orphan *k = kept > 0 ? &f->orphan[kept - 1] : NULL;
        if (!k || !fsck_same_batch(&k->s, &o.s)) {
            f->orphan[kept++] = o;
            continue;
        }
        uint64_t named = o.named > k->named ? o.named : k->named;
        bool better = o.whole != k->whole ? o.whole : o.named > k->named;
        twin[twins++] = better ? *k : o;
        *k = better ? o : *k;
        k->named = named;
    }
    if (twins > 0)
        memcpy(f->orphan + kept, twin, twins * sizeof *twin);
    free(twin);
    f->orphans = kept;
    f->twins = twins;
    return 0;
}

int fsck_records(struct fsck *f, struct log *log,
                 int (*look)(void *arg, uint64_t at, const struct side *s), void *arg)
{
    struct covers c = {0};
    const struct pool *p = &log->pool;
    int rc = covers_make(&c, log);
    uint64_t end = p->data_base + p->data_size;
    for (uint64_t at = p->data_base; rc == 0 && at < end; at += MEDIA_LINE) {
        if ((at & ((64u << 20) - 1)) == 0)
            fsck_progress(f, "looking for lost batches", at, end);
        if (!side_begins(p, at))
            continue;
        struct side s;
        if (side_read(p, at, &s) == 0 && placed(p, at, &s) && !covered(p, &c, at))
            rc = look(arg, at, &s);
    }
    free(c.at);
    return rc;
}

static int orphan_look(void *arg, uint64_t at, const struct side *s)
{
    struct fsck *f = arg;
    return orphan_push(f, at, s, side_payload_whole(&f->pool, s));
}

/* Where a copy of one stands: its own place, or that which the index line names. */
struct orphan_at {
    uint64_t at;
    size_t orphan;
};

static int by_at(const void *a, const void *b)
{
    const struct orphan_at *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int places_make(struct fsck *f)
{
    f->orphan_at = malloc((2 * f->orphans + 1) * sizeof *f->orphan_at);
    if (!f->orphan_at)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++) {
        f->orphan_at[2 * i] = (struct orphan_at){f->orphan[i].at, i};
        f->orphan_at[2 * i + 1] = (struct orphan_at){fsck_as_named(f, &f->orphan[i])->at, i};
    }
    if (f->orphans > 0)
        qsort(f->orphan_at, 2 * f->orphans, sizeof *f->orphan_at, by_at);
    return 0;
}

struct orphan *fsck_orphan_there(const struct fsck *f, uint64_t side, size_t n)
{
    size_t low = 0, high = f->orphan_at ? 2 * f->orphans : 0, end = high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (f->orphan_at[mid].at < side)
            low = mid + 1;
        else
            high = mid;
    }
    return n < end - low && f->orphan_at[low + n].at == side
               ? &f->orphan[f->orphan_at[low + n].orphan]
               : NULL;
}

void fsck_orphan_take(struct fsck *f, uint64_t side)
{
    struct orphan *o;
    for (size_t i = 0; (o = fsck_orphan_there(f, side, i)); i++)
        o->taken = true;
}

const struct media_entry *fsck_line(const struct pool *p, uint64_t number)
{
    for (unsigned slot = 0; slot < p->geo.slots; slot++) {
        const struct media_entry *line = pool_entry(p, slot, number);
        if (le64_get(line->number) == number)
            return line;
    }
    return NULL;
}

/* Does the line stand, and name it? Then it has its place, or was trimmed. */
static bool is_told(const struct pool *p, const struct orphan *o)
{
    const struct media_entry *line = o->named ? fsck_line(p, o->named) : NULL;
    struct entry e;
    uint32_t next;
    return line && index_decode(line, o->named, index_chain_before(line), &e, &next) &&
           fsck_names(&e, &o->s) && (e.side == o->at || e.payload == o->s.run0);
}

int fsck_orphans(struct fsck *f, struct log *log)
{
    if (f->orphans_known)
        return 0;
    int rc = fsck_records(f, log, orphan_look, f);
    /* They were found in the order of their places. */
    if (f->orphans > 0)
        orphans_named(f, &log->pool);
    if (f->orphans > 1)
        qsort(f->orphan, f->orphans, sizeof *f->orphan, by_time);
    if (rc == 0)
        rc = twins_part(f);
    for (size_t i = 0; rc == 0 && i < f->orphans + f->twins; i++)
        f->orphan[i].told = is_told(&log->pool, &f->orphan[i]);
    if (rc == 0)
        rc = fsck_lists_make(f);
    if (rc == 0)
        rc = places_make(f);
    f->orphans_known = rc == 0;
    return rc;
}

void fsck_orphans_drop(struct fsck *f)
{
    free(f->orphan);
    free(f->orphan_at);
    free(f->of_topic);
    f->orphan = NULL;
    f->orphan_at = NULL;
    f->of_topic = NULL;
    f->orphans = f->orphan_capacity = f->twins = 0;
    f->orphans_known = false;
}

uint64_t fsck_after(uint64_t base, const struct side *s)
{
    uint64_t mask = (1ull << MEDIA_AFTER_BITS) - 1;
    uint64_t ahead = (s->after - base) & mask, back = mask + 1 - ahead;
    return ahead <= mask / 2 ? base + ahead : base > back ? base - back : 0;
}

unsigned fsck_entry(const struct log *log, const struct orphan *o, uint64_t number, uint64_t offset,
                    uint32_t term, struct entry e[2])
{
    const struct side *s = &o->s;
    e[0] = (struct entry){
        .number = number,
        .session = s->session,
        .sequence = s->sequence,
        .offset = offset,
        .payload = s->run0,
        .side = o->at,
        .term = term,
        .topic = s->topic,
        .length = s->run0_length,
        .count = s->count,
        .check = s->session ? s->crc & 0xffff : s->crc,
        .kind = s->topic ? MEDIA_BATCH : MEDIA_CONTROL,
        .flags = (uint8_t)((s->equal ? MEDIA_F_EQUAL : 0u) | (s->run1 ? MEDIA_F_SPLIT : 0u)),
        .slot = (uint8_t)log->slot,
        .order = s->order0};
    if (!s->run1)
        return 1;
    e[1] = e[0];
    e[1].number = number + 1;
    e[1].offset = offset + s->run0_length;
    e[1].payload = s->run1;
    e[1].length = s->length - s->run0_length;
    e[1].kind = MEDIA_PART;
    e[1].flags = 0;
    e[1].order = s->order1;
    return 2;
}

/* ---- What finds no place ---------------------------------------------------------------------- */

/* An action's time may be from before the clock stepped back; it knows its number. */
bool salvage_is_void(const struct salvage *v, const struct orphan *o, uint64_t number)
{
    return v->begun > 0 && number != UINT64_MAX && number >= v->begun && o->s.topic != 0 &&
           o->s.time < v->begun_time;
}

bool salvage_is_taken(const struct salvage *v, const struct side *s)
{
    const struct session *x = s->session ? session_find(v->log, s->session) : NULL;
    return x && session_taken(x, s->sequence);
}

int salvage_aside(struct salvage *v)
{
    struct fsck *f = v->f;
    if (!v->unproved)
        return 0;
    int rc = fsck_orphans(f, v->log);
    for (size_t i = 0; rc == 0 && i < f->orphans; i++) {
        const struct orphan *o = &f->orphan[i];
        const struct topic *t = o->s.topic ? names_id(&v->log->names, o->s.topic) : NULL;
        if (o->taken || !o->whole || !t || o->s.time <= v->time || o->told)
            continue;
        rc = fsck_unplaced(f, t, o,
                           o->close ? "index that told its order among those of other publishers"
                                    : "index entry that named it");
    }
    return rc;
}
