/* The staging pool (step 3): see staging.h.
 *
 * An arena is cut into blocks of 64 KiB in order of need; a block that a smaller size needs is cut
 * once more and stays so, which is why each smaller size may have one block of sixteen at most; then it
 * takes a larger piece. Free pieces stand on a stack for each size (stack.h). A piece is described
 * beside the arena, not in it, so that free memory is not touched.
 *
 * Threads: all functions but new and free from any. Atomics are relaxed bounds and counters, but for
 * `waiting`: a taker that found nothing sets its worker's bit, then looks at the stacks again; a giver
 * pushes, then looks at the bits. Both are seq_cst (the stack's operations are full barriers), so that
 * at least one sees the other. A taker that has a piece in its hands and puts it back, or cuts one up,
 * hides it from another one meanwhile: it says so, and is a giver then.
 *
 * `turn` is seq_cst, too: who gives marks it before it pushes, who looks reads it once more after its bit was
 * set, and who ends it looks at the bits behind that.
 */
#include <errno.h>
#include <inttypes.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "net/server/server.h"
#include "net/server/staging.h"
#include "net/server/topology.h"

#define UNIT    (4u << 10)
#define HUGE    (2ull << 20)
#define CLASSES 3u
#define BLOCK   (CLASSES - 1)
#define ARENAS  8u
#define CARVED  16u /* a smaller size may have one block of so many */

#define TURN_GIVEN 1u /* since it became that worker's */
#define TURN_OF(i) (2u * ((i) + 1))

static const uint32_t class_size[CLASSES] = {UNIT, 4 * UNIT, STAGING_PIECE};

struct arena {
    struct stack free[CLASSES];
    atomic_uint fresh;           /* blocks never used before begin here */
    atomic_uint carved[CLASSES]; /* blocks cut up for each smaller size */
    unsigned blocks;
    int node;
    uint8_t *base;
    struct piece *piece; /* one a unit; a larger piece is described by its first */
};

struct staging {
    struct arena arena[ARENAS];
    unsigned arenas;
    uint64_t size;
    atomic_uint_fast64_t used, slow;
    atomic_uint_fast64_t waiting; /* workers with takers that wait: see above */
    atomic_uint turn;             /* 0, or TURN_OF a worker, and TURN_GIVEN: see above */
    pthread_mutex_t lock;         /* guards who is in `tenant` */
    struct tenant tenant[STAGING_TENANTS];
};

/* ---- Life ---------------------------------------------------------------------------------- */

uint64_t staging_usual(uint64_t memory)
{
    uint64_t size = memory / 64;
    if (size < 128ull << 20)
        size = 128ull << 20;
    if (size > memory / 4)
        size = memory / 4;
    if (size > 1ull << 30)
        size = 1ull << 30;
    return size < STAGING_MIN ? STAGING_MIN : size;
}

/* Huge pages and the right node are only speed: without them it is ordinary memory. */
static uint8_t *map_memory(uint64_t size, int node)
{
    uint8_t *at = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    size_t head = (size_t)(-(uintptr_t)at & (HUGE - 1));
    if (head > 0)
        (void)munmap(at, head);
    if (HUGE > head)
        (void)munmap(at + head + size, HUGE - head);
    at += head;
    (void)madvise(at, size, MADV_HUGEPAGE);
    (void)madvise(at, size, MADV_DONTDUMP);
    if (node >= 0) {
        struct bitmask *mask = numa_allocate_nodemask();
        if (mask) {
            numa_bitmask_setbit(mask, (unsigned)node);
            (void)mbind(at, size, MPOL_PREFERRED, mask->maskp, mask->size + 1, 0);
            numa_free_nodemask(mask);
        }
    }
    return at;
}

static int arena_open(struct arena *a, uint64_t size, int node)
{
    a->node = node;
    a->blocks = (unsigned)(size / STAGING_PIECE);
    a->piece = calloc(size / UNIT, sizeof(*a->piece));
    a->base = map_memory(size, node);
    return a->piece && a->base ? 0 : -ENOMEM;
}

/* Nodes where this process may run; one arena when the kernel knows of none. */
static unsigned nodes_of(int node[ARENAS])
{
    unsigned n = 0;
    struct bitmask *mask = numa_available() < 0 ? NULL : numa_get_run_node_mask();
    for (unsigned i = 0; mask && i < mask->size && n < ARENAS; i++)
        if (numa_bitmask_isbitset(mask, i))
            node[n++] = (int)i;
    if (mask)
        numa_bitmask_free(mask);
    if (n <= 1) {
        node[0] = -1;
        n = 1;
    }
    return n;
}

int staging_new(struct staging **out, uint64_t bytes, struct embar_error *err)
{
    *out = NULL;
    if (bytes == 0)
        bytes = staging_usual(topology_memory());
    if (bytes < STAGING_MIN || bytes > STAGING_MAX)
        return embar_fail(err, -EMBAR_EINVALID,
                          "the staging memory is between 2 MiB and 64 GiB; give --staging another "
                          "size.");
    struct staging *s = aligned_alloc(64, (sizeof(*s) + 63) / 64 * 64);
    if (!s)
        return embar_fail(err, -ENOMEM, "cannot make the staging memory");
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    int node[ARENAS];
    unsigned n = nodes_of(node);
    while (n > 1 && bytes / n < STAGING_MIN)
        n--;
    uint64_t each = bytes / n / HUGE * HUGE;
    int rc = 0;
    for (; rc == 0 && s->arenas < n; s->arenas++)
        rc = arena_open(&s->arena[s->arenas], each, node[s->arenas]);
    s->size = each * n;
    if (rc) {
        staging_free(s);
        return embar_fail(err, rc,
                          "no staging memory of %" PRIu64 " MiB (give another size with --staging)",
                          bytes >> 20);
    }
    *out = s;
    return 0;
}

void staging_free(struct staging *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->arenas; i++) {
        struct arena *a = &s->arena[i];
        if (a->base)
            (void)munmap(a->base, (size_t)a->blocks * STAGING_PIECE);
        free(a->piece);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- Principals ---------------------------------------------------------------------------- */

struct tenant *staging_tenant(struct staging *s, uint32_t uid)
{
    struct tenant *t = NULL;
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < STAGING_TENANTS; i++) {
        struct tenant *at = &s->tenant[(uid + i) % STAGING_TENANTS];
        if (at->connections > 0 && at->uid == uid) {
            t = at;
            break;
        }
        if (!t && at->connections == 0)
            t = at;
    }
    if (!t)
        t = &s->tenant[uid %
                       STAGING_TENANTS]; /* more users than that at once: some share a bound */
    else
        t->uid = uid;
    t->connections++;
    pthread_mutex_unlock(&s->lock);
    return t;
}

void staging_leave(struct staging *s, struct tenant *t)
{
    pthread_mutex_lock(&s->lock);
    t->connections--;
    pthread_mutex_unlock(&s->lock);
}

unsigned staging_place(const struct staging *s, const struct tenant *t)
{
    return (unsigned)(t - s->tenant);
}

/* ---- Pieces -------------------------------------------------------------------------------- */

/* Never above `most`, not for a moment: another taker would be refused for it, and told of nothing. */
static bool charge(atomic_uint_fast64_t *c, uint64_t n, uint64_t most)
{
    uint64_t was = atomic_load_explicit(c, memory_order_relaxed);
    while (was + n <= most)
        if (atomic_compare_exchange_weak_explicit(c, &was, was + n, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void discharge(atomic_uint_fast64_t *c, uint64_t n)
{
    atomic_fetch_sub_explicit(c, n, memory_order_relaxed);
}

/* One more of at most `most`? */
static bool count_up(atomic_uint *c, unsigned most, unsigned *was)
{
    *was = atomic_load_explicit(c, memory_order_relaxed);
    while (*was < most)
        if (atomic_compare_exchange_weak_explicit(c, was, *was + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static struct piece *describe(struct arena *a, size_t unit, unsigned class, unsigned arena)
{
    struct piece *p = &a->piece[unit];
    p->memory = a->base + unit * UNIT;
    p->size = class_size[class];
    p->class = (uint16_t) class;
    p->arena = (uint16_t)arena;
    return p;
}

static struct piece *pop(struct arena *a, unsigned class)
{
    struct ck_stack_entry *e = stack_pop(&a->free[class]);
    return e ? (struct piece *)(void *)((char *)e - offsetof(struct piece, entry)) : NULL;
}

static struct piece *block(struct staging *s, unsigned arena)
{
    struct arena *a = &s->arena[arena];
    unsigned n;
    struct piece *p = pop(a, BLOCK);
    if (!p && count_up(&a->fresh, a->blocks, &n))
        p = describe(a, (size_t)n * (STAGING_PIECE / UNIT), BLOCK, arena);
    return p;
}

static struct piece *piece_of(struct staging *s, unsigned arena, unsigned class, bool *stirred)
{
    struct arena *a = &s->arena[arena];
    if (class == BLOCK)
        return block(s, arena);
    struct piece *p = pop(a, class);
    unsigned n, step = class_size[class] / UNIT;
    if (p || !count_up(&a->carved[class], (a->blocks + CARVED - 1) / CARVED, &n))
        return p;
    p = block(s, arena);
    if (!p) {
        atomic_fetch_sub_explicit(&a->carved[class], 1, memory_order_relaxed);
        return NULL;
    }
    *stirred = true;
    size_t unit = (size_t)(p - a->piece);
    for (unsigned i = step; i < STAGING_PIECE / UNIT; i += step)
        stack_push(&a->free[class], &describe(a, unit + i, class, arena)->entry);
    return describe(a, unit, class, arena);
}

static unsigned home(const struct staging *s)
{
    unsigned cpu, node;
    if (s->arenas > 1 && getcpu(&cpu, &node) == 0)
        for (unsigned i = 0; i < s->arenas; i++)
            if (s->arena[i].node == (int)node)
                return i;
    return 0;
}

/* A piece of at most `most` bytes: one that may not be had is not taken out of others' sight. */
static struct piece *find(struct staging *s, uint32_t need, uint64_t most, bool *stirred)
{
    unsigned class = 0, first = home(s);
    while (class < BLOCK && class_size[class] < need)
        class ++;
    for (; class < CLASSES && class_size[class] <= most; class ++)
        for (unsigned i = 0; i < s->arenas; i++) {
            struct piece *p = piece_of(s, (first + i) % s->arenas, class, stirred);
            if (p)
                return p;
        }
    return NULL;
}

static uint64_t left_of(const atomic_uint_fast64_t *c, uint64_t most)
{
    uint64_t n = atomic_load_explicit(c, memory_order_relaxed);
    return n < most ? most - n : 0;
}

static uint64_t slow_most(const struct staging *s)
{
    return s->size / 4 * 3;
}

static uint64_t allowed(const struct staging *s, const struct tenant *t, bool slow)
{
    uint64_t most = left_of(&t->bytes, s->size / 2);
    uint64_t most_slow = slow ? left_of(&s->slow, slow_most(s)) : most;
    return most < most_slow ? most : most_slow;
}

struct piece *staging_take(struct staging *s, struct tenant *t, uint32_t need, bool slow,
                           bool *stirred)
{
    for (;;) {
        struct piece *p = find(s, need, allowed(s, t, slow), stirred);
        if (!p)
            return NULL;
        bool held = charge(&t->bytes, p->size, s->size / 2);
        if (held && (!slow || staging_slow(s, p))) {
            atomic_fetch_add_explicit(&s->used, p->size, memory_order_relaxed);
            p->next = NULL;
            return p;
        }
        /* Somebody else took what the bound had left. */
        if (held)
            discharge(&t->bytes, p->size);
        stack_push(&s->arena[p->arena].free[p->class], &p->entry);
        *stirred = true;
    }
}

void staging_give(struct staging *s, struct tenant *t, struct piece *p, bool slow)
{
    unsigned turn = atomic_load_explicit(&s->turn, memory_order_seq_cst);
    if (turn != 0 && !(turn & TURN_GIVEN)) /* it fails: somebody else did, or it was ended */
        (void)atomic_compare_exchange_strong_explicit(&s->turn, &turn, turn | TURN_GIVEN,
                                                      memory_order_seq_cst, memory_order_seq_cst);
    discharge(&t->bytes, p->size);
    if (slow)
        discharge(&s->slow, p->size);
    discharge(&s->used, p->size);
    stack_push(&s->arena[p->arena].free[p->class], &p->entry);
}

bool staging_slow(struct staging *s, const struct piece *p)
{
    return charge(&s->slow, p->size, slow_most(s));
}

uint64_t staging_share(const struct staging *s)
{
    return s->size / 4;
}

/* ---- Waiting ------------------------------------------------------------------------------- */

void staging_wait(struct staging *s, unsigned index)
{
    atomic_fetch_or_explicit(&s->waiting, 1ull << index, memory_order_seq_cst);
}

uint64_t staging_waiters(struct staging *s)
{
    unsigned turn = atomic_load_explicit(&s->turn, memory_order_seq_cst);
    /* Whether or not anybody waits there still: only it ends its turn. */
    uint64_t first = turn & TURN_GIVEN ? 1ull << (turn / 2 - 1) : 0;
    if (atomic_load_explicit(&s->waiting, memory_order_seq_cst) == 0)
        return first;
    return first | atomic_exchange_explicit(&s->waiting, 0, memory_order_seq_cst);
}

bool staging_passed(struct staging *s, unsigned index)
{
    unsigned nobody = 0;
    return atomic_compare_exchange_strong_explicit(&s->turn, &nobody, TURN_OF(index),
                                                   memory_order_seq_cst, memory_order_seq_cst);
}

bool staging_turn(const struct staging *s, unsigned index)
{
    return atomic_load_explicit(&s->turn, memory_order_seq_cst) == (TURN_OF(index) | TURN_GIVEN);
}

bool staging_others(const struct staging *s, unsigned index, bool called)
{
    return (atomic_load_explicit(&s->turn, memory_order_seq_cst) & TURN_GIVEN) &&
           !(called && staging_turn(s, index));
}

bool staging_looked(struct staging *s, unsigned index)
{
    unsigned turn = TURN_OF(index) | TURN_GIVEN;
    return atomic_compare_exchange_strong_explicit(&s->turn, &turn, 0, memory_order_seq_cst,
                                                   memory_order_seq_cst);
}

unsigned staging_could(const struct staging *s, const struct tenant *t, bool slow)
{
    return (unsigned)(allowed(s, t, slow) / STAGING_PIECE);
}

unsigned staging_free_pieces(const struct staging *s)
{
    uint64_t used = staging_used(s);
    return used < s->size ? (unsigned)((s->size - used) / STAGING_PIECE) : 0;
}

uint64_t staging_size(const struct staging *s)
{
    return s->size;
}

uint64_t staging_used(const struct staging *s)
{
    return atomic_load_explicit(&s->used, memory_order_relaxed);
}
