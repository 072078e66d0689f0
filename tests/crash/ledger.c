/* The ledger; see ledger.h. Must never ask the log what is right. */
#include "tests/crash/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NOISE  (256u << 10)
#define STARTS (128u << 10) /* a batch is at most NOISE - STARTS bytes */

uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* ---- Payloads ----------------------------------------------------------------------------- */

static const unsigned char *noise(uint32_t serial)
{
    static unsigned char bytes[NOISE];
    if (bytes[0] == 0) {
        uint64_t state = 1;
        for (size_t i = 0; i < NOISE; i++)
            bytes[i] = (unsigned char)(1 + draw(&state) % 255);
    }
    return bytes + (uint64_t)serial * 40503u % STARTS;
}

void payload_fill(uint32_t serial, uint32_t at, void *to, size_t n)
{
    char *out = to;
    size_t head = 0;
    for (; head < n && at + head < 4; head++)
        out[head] = (char)(serial >> (8 * (at + head)));
    memcpy(out + head, noise(serial) + at + head, n - head);
}

bool payload_equal(uint32_t serial, uint32_t at, const void *bytes, size_t n)
{
    const unsigned char *in = bytes;
    size_t head = 0;
    for (; head < n && at + head < 4; head++)
        if (in[head] != (unsigned char)(serial >> (8 * (at + head))))
            return false;
    return memcmp(in + head, noise(serial) + at + head, n - head) == 0;
}

void payload_lengths(const struct entry_batch *b, uint32_t *lengths)
{
    uint64_t state = b->serial;
    uint32_t left = b->length;
    for (uint32_t i = 0; i + 1 < b->count; i++) {
        lengths[i] = below(&state, 2 * b->length / b->count + 1);
        if (lengths[i] > left)
            lengths[i] = left;
        left -= lengths[i];
    }
    lengths[b->count - 1] = left;
}

/* ---- Looking up --------------------------------------------------------------------------- */

void ledger_init(struct ledger *l, struct lists *lists)
{
    memset(l, 0, sizeof *l);
    l->lists = lists;
    l->next_id = LOG_ROOT_ID + 1;
    l->nodes = 1;
    l->node[0] = (struct node){.id = LOG_ROOT_ID, .mode = S_IFDIR | 0755, .is_dir = true};
}

void lists_free(struct lists *lists)
{
    for (size_t i = 0; i < lists->capacity; i++)
        free(lists->v[i].v);
    free(lists->v);
    *lists = (struct lists){0};
}

struct node *ledger_node(struct ledger *l, uint32_t id)
{
    for (unsigned i = 0; i < l->nodes; i++)
        if (l->node[i].id == id)
            return &l->node[i];
    return NULL;
}

struct node *ledger_child(struct ledger *l, uint32_t parent, const char *name)
{
    for (unsigned i = 1; i < l->nodes; i++)
        if (l->node[i].parent == parent && strcmp(l->node[i].name, name) == 0)
            return &l->node[i];
    return NULL;
}

struct promise *ledger_session(struct ledger *l, uint64_t id)
{
    for (unsigned i = 0; i < l->sessions; i++)
        if (l->session[i].id == id)
            return &l->session[i];
    return NULL;
}

struct entry_batch *ledger_batch(const struct ledger *l, uint32_t topic, size_t i)
{
    return &l->lists->v[topic].v[i];
}

size_t ledger_find(const struct ledger *l, const struct node *t, uint64_t offset)
{
    size_t low = 0, high = t->batches;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct entry_batch *b = ledger_batch(l, t->id, mid);
        if (b->offset + b->length <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* ---- Batches ------------------------------------------------------------------------------ */

static void *grow(void *p, size_t *capacity, size_t want, size_t each)
{
    if (want <= *capacity)
        return p;
    size_t next = *capacity ? *capacity * 2 : 16;
    while (next < want)
        next *= 2;
    char *grown = reallocarray(p, next, each);
    if (!grown)
        abort();
    memset(grown + *capacity * each, 0, (next - *capacity) * each);
    *capacity = next;
    return grown;
}

void ledger_append(struct ledger *l, uint32_t topic, const struct entry_batch *b)
{
    struct node *t = ledger_node(l, topic);
    struct lists *all = l->lists;
    all->v = grow(all->v, &all->capacity, topic + 1, sizeof *all->v);
    struct batch_list *list = &all->v[topic];
    list->v = grow(list->v, &list->capacity, t->batches + 1, sizeof *list->v);
    struct entry_batch *at = &list->v[t->batches++];
    *at = *b;
    at->offset = t->end;
    at->message = t->messages;
    t->end += b->length;
    t->messages += b->count;
    struct promise *s = b->session ? ledger_session(l, b->session) : NULL;
    if (s)
        promise_take(s, b->sequence, b->count);
}

/* ---- Sessions ----------------------------------------------------------------------------- */

static unsigned ahead_find(const struct promise *s, uint64_t sequence)
{
    unsigned i = 0;
    while (i < s->aheads && s->ahead[i].sequence != sequence)
        i++;
    return i;
}

bool promise_has(const struct promise *s, uint64_t sequence)
{
    return sequence <= s->sequence || ahead_find(s, sequence) < s->aheads;
}

void promise_take(struct promise *s, uint64_t sequence, uint32_t messages)
{
    if (s->aheads == LEDGER_AHEAD)
        abort();
    s->ahead[s->aheads].sequence = sequence;
    s->ahead[s->aheads++].messages = messages;
    for (unsigned i; (i = ahead_find(s, s->sequence + 1)) < s->aheads;) {
        s->sequence++;
        s->messages += s->ahead[i].messages;
        s->ahead[i] = s->ahead[--s->aheads];
    }
}

/* What was sent and did not come never will: the mark moves over it. */
static void promise_fence(struct promise *s)
{
    s->epoch++;
    for (; s->aheads > 0; s->aheads--)
        if (s->ahead[s->aheads - 1].sequence > s->sequence)
            s->sequence = s->ahead[s->aheads - 1].sequence;
}

/* ---- Control actions ---------------------------------------------------------------------- */

static bool has_children(const struct ledger *l, uint32_t id)
{
    for (unsigned i = 1; i < l->nodes; i++)
        if (l->node[i].parent == id)
            return true;
    return false;
}

static void drop_session(struct ledger *l, struct promise *s)
{
    *s = l->session[--l->sessions];
}

static void drop_node(struct ledger *l, struct node *n)
{
    for (unsigned i = l->sessions; i-- > 0;)
        if (l->session[i].topic == n->id)
            drop_session(l, &l->session[i]);
    *n = l->node[--l->nodes];
}

static int place(struct ledger *l, const struct control *c)
{
    const struct node *d = ledger_node(l, c->parent);
    if (!d)
        return -ENOENT;
    return d->is_dir ? 0 : -ENOTDIR;
}

static int create(struct ledger *l, const struct control *c)
{
    int rc = place(l, c);
    if (rc)
        return rc;
    if (ledger_child(l, c->parent, c->name))
        return -EEXIST;
    if (l->nodes == LEDGER_NODES)
        abort();
    struct node *n = &l->node[l->nodes++];
    bool dir = c->kind == MEDIA_C_MKDIR;
    *n = (struct node){.id = l->next_id++,
                       .parent = c->parent,
                       .mode = (c->mode & 07777u) | (dir ? S_IFDIR : S_IFREG),
                       .uid = c->uid,
                       .gid = c->gid,
                       .order = c->order,
                       .ack = c->ack,
                       .policy = c->policy,
                       .keep_bytes = c->value,
                       .keep_age = c->value2,
                       .is_dir = dir};
    memcpy(n->name, c->name, sizeof n->name - 1);
    return 0;
}

static int move(struct ledger *l, struct node *n, const struct control *c)
{
    int rc = place(l, c);
    if (rc)
        return rc;
    for (struct node *up = ledger_node(l, c->parent); up; up = ledger_node(l, up->parent))
        if (up == n)
            return -EINVAL;
    struct node *there = ledger_child(l, c->parent, c->name);
    uint32_t id = n->id;
    if (there == n)
        return c->flags & LOG_RENAME_NOREPLACE ? -EEXIST : 1;
    if (there) {
        if (c->flags & LOG_RENAME_NOREPLACE)
            return -EEXIST;
        if (there->is_dir != n->is_dir)
            return there->is_dir ? -EISDIR : -ENOTDIR;
        if (there->end > there->base)
            return -EPERM;
        if (has_children(l, there->id))
            return -ENOTEMPTY;
        drop_node(l, there);
        n = ledger_node(l, id);
    }
    n->parent = c->parent;
    memcpy(n->name, c->name, sizeof n->name - 1);
    return 0;
}

static int attr(struct node *n, const struct control *c)
{
    if (n->is_dir &&
        (c->flags & (MEDIA_A_ORDER | MEDIA_A_ACK | MEDIA_A_BYTES | MEDIA_A_AGE | MEDIA_A_FULL)))
        return -EISDIR;
    if (c->flags & MEDIA_A_MODE)
        n->mode = (n->mode & (uint32_t)S_IFMT) | (c->mode & 07777u);
    if (c->flags & MEDIA_A_OWNER)
        n->uid = c->uid;
    if (c->flags & MEDIA_A_GROUP)
        n->gid = c->gid;
    if (c->flags & MEDIA_A_ORDER)
        n->order = c->order;
    if (c->flags & MEDIA_A_ACK)
        n->ack = c->ack;
    if (c->flags & MEDIA_A_BYTES)
        n->keep_bytes = c->value;
    if (c->flags & MEDIA_A_AGE)
        n->keep_age = c->value2;
    if (c->flags & MEDIA_A_FULL)
        n->policy = c->policy;
    return 0;
}

static uint32_t message_length(const struct ledger *l, const struct node *t, uint64_t number)
{
    size_t i = t->batches;
    while (i > 0 && ledger_batch(l, t->id, i - 1)->message > number)
        i--;
    const struct entry_batch *b = ledger_batch(l, t->id, i - 1);
    if (b->equal)
        return b->length / b->count;
    uint32_t *lengths = calloc(b->count, sizeof *lengths);
    if (!lengths)
        abort();
    payload_lengths(b, lengths);
    uint32_t n = lengths[number - b->message];
    free(lengths);
    return n;
}

/* Empty messages at the new base may be kept, as whoever trims likes. */
static uint64_t keep_empty(const struct ledger *l, const struct node *t, uint64_t message,
                           uint64_t from)
{
    if (from == 0 || from < t->first || from > message)
        return message;
    for (uint64_t i = from; i < message; i++)
        if (message_length(l, t, i) > 0)
            return message;
    return from;
}

static int trim(struct ledger *l, struct node *t, const struct control *c)
{
    if (t->is_dir)
        return -EISDIR;
    if (c->value > t->end)
        return -EMBAR_EINVALID;
    if (c->value <= t->base)
        return 1;
    uint64_t at = t->end, message = t->messages;
    if (c->value < t->end) {
        const struct entry_batch *b = ledger_batch(l, t->id, ledger_find(l, t, c->value));
        uint32_t *lengths = NULL;
        if (!b->equal) {
            lengths = calloc(b->count, sizeof *lengths);
            if (!lengths)
                abort();
            payload_lengths(b, lengths);
        }
        at = b->offset;
        message = b->message;
        for (uint32_t i = 0; i < b->count; i++) {
            uint32_t n = lengths ? lengths[i] : b->length / b->count;
            if (at + n > c->value)
                break;
            at += n;
            message++;
        }
        free(lengths);
    }
    if (at <= t->base)
        return 1;
    t->first = keep_empty(l, t, message, c->value2);
    t->base = at;
    return 0;
}

static int session(struct ledger *l, const struct control *c, uint64_t number)
{
    if (c->kind == MEDIA_C_OPEN) {
        if (l->sessions == LEDGER_SESSIONS)
            abort();
        l->session[l->sessions++] =
            (struct promise){.id = number, .topic = c->id, .principal = c->uid, .epoch = 1};
        return 0;
    }
    struct promise *s = ledger_session(l, c->value);
    if (!s)
        return -EMBAR_ESESSION;
    if (c->kind == MEDIA_C_CLOSE)
        drop_session(l, s);
    else
        promise_fence(s);
    return 0;
}

int ledger_control(struct ledger *l, const struct control *c, uint64_t number)
{
    struct node *n = ledger_node(l, c->id);
    bool made = c->kind == MEDIA_C_MKDIR || c->kind == MEDIA_C_CREATE;
    if (made)
        return create(l, c);
    if (c->kind == MEDIA_C_FENCE || c->kind == MEDIA_C_CLOSE)
        return session(l, c, number);
    if (!n)
        return -ENOENT;
    switch (c->kind) {
    case MEDIA_C_REMOVE:
        if (n->id == LOG_ROOT_ID)
            return -EBUSY;
        if (has_children(l, n->id))
            return -ENOTEMPTY;
        drop_node(l, n);
        return 0;
    case MEDIA_C_RENAME: return n->id == LOG_ROOT_ID ? -EBUSY : move(l, n, c);
    case MEDIA_C_ATTR: return attr(n, c);
    case MEDIA_C_TRIM: return trim(l, n, c);
    default: return n->is_dir ? -EISDIR : session(l, c, number);
    }
}
