/* The memory-model shadow; see shadow.h. Serves the proofs of steps 5 to 8. Must never let a line
 * reach the media in any way but a drain by the thread that wrote it back.
 *
 * The media is a memfd. The image is a private mapping of it: writes to it (ours, recovery's) make
 * private copies of the pages, and dropping those with MADV_DONTNEED is all it takes to begin a new
 * image, whatever the size.
 *
 * Two threads may have the same line pending. Each snapshot has a number, each media line the
 * number of what it holds, so that a late drain never replaces newer content by older.
 */
#include "tests/crash/shadow.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/flush_variants.h"

#define LINE      64u
#define WORDS     (LINE / 8)
#define MAX_SITES 256u

struct snapshot {
    uint64_t number; /* order of all snapshots */
    uint64_t line;
    uint64_t words[WORDS];
};

struct thread {
    pid_t id;
    struct snapshot *pending;
    size_t count, room;
    struct thread *next;
};

/* A line that a crash may show otherwise than the media does. */
struct change {
    uint64_t line;
    uint32_t first, count; /* its pending snapshots in `choices` */
};

struct site {
    const void *caller;
    uintptr_t offset; /* of caller in its binary */
    uint64_t calls;
    enum shadow_call what;
};

struct shadow {
    pthread_mutex_t lock; /* recursive: guards all below; held while an event is told */
    size_t size;
    char *view;
    char *media; /* shared mapping of fd */
    char *image; /* private mapping of fd */
    char *far;   /* another host's cache over the media */
    int fd;
    struct flush flush, far_flush;
    void (*far_tell)(void *arg);
    void *far_arg;
    struct thread *threads;
    uint64_t snapshots;
    uint64_t *line_number; /* number of the snapshot that each media line holds */
    void (*tell)(void *arg, enum shadow_event event, uint64_t number);
    void *tell_arg;
    uint64_t events;
    void (*moment)(void *arg);
    void *moment_arg;
    bool telling, compared; /* compared: `changes` is of the event being told */
    struct change *changes;
    size_t change_count, change_room;
    const struct snapshot **choices;
    size_t choice_room;
    uint32_t *line_change; /* scratch: index + 1 of the line's change; zeros between uses */
    uint64_t calls, skip_call;
    struct skips skips;
    struct site sites[MAX_SITES];
    unsigned site_count;
};

/* The harness cannot go on without memory, and a test may say so by dying. */
static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

static void *grow(void *p, size_t *room, size_t want, size_t each)
{
    if (want <= *room)
        return p;
    size_t next = *room ? *room * 2 : 256;
    while (next < want)
        next *= 2;
    *room = next;
    return need(reallocarray(p, next, each));
}

static uint64_t lines_of(const struct shadow *s)
{
    return s->size / LINE;
}

/* ---- Flush calls -------------------------------------------------------------------------- */

static struct thread *this_thread(struct shadow *s)
{
    /* Not pthread_self: the next thread gets the same one when this has ended. */
    static __thread pid_t self;
    if (!self)
        self = gettid();
    for (struct thread *t = s->threads; t; t = t->next)
        if (t->id == self)
            return t;
    struct thread *t = need(calloc(1, sizeof(*t)));
    t->id = self;
    t->next = s->threads;
    s->threads = t;
    return t;
}

/* Words, since other threads may be storing to neighbours in the line. */
static void load_line(uint64_t words[WORDS], const char *at)
{
    const uint64_t *from = (const void *)at;
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

static void tell(struct shadow *s, enum shadow_event event)
{
    s->events++;
    if (!s->tell || s->telling)
        return;
    s->telling = true;
    s->compared = false;
    s->tell(s->tell_arg, event, s->events);
    s->telling = false;
    s->compared = false;
}

static void pass(struct shadow *s)
{
    if (s->moment)
        s->moment(s->moment_arg);
}

void shadow_on_moment(struct shadow *s, void (*moment)(void *arg), void *arg)
{
    s->moment = moment;
    s->moment_arg = arg;
}

void skips_add(struct skips *l, uintptr_t offset)
{
    if (l->n == SHADOW_SKIPS)
        abort();
    l->site[l->n++] = offset;
}

bool skips_have(const struct skips *l, uintptr_t offset)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->site[i] == offset)
            return true;
    return false;
}

/* Count the call at its site; true when it is to be left out. */
static bool skipped(struct shadow *s, const void *caller, enum shadow_call what)
{
    s->calls++;
    unsigned i = 0;
    while (i < s->site_count && s->sites[i].caller != caller)
        i++;
    if (i == MAX_SITES)
        return s->calls == s->skip_call;
    struct site *site = &s->sites[i];
    if (i == s->site_count) {
        Dl_info info;
        uintptr_t base =
            dladdr(caller, &info) && info.dli_fbase ? (uintptr_t)info.dli_fbase : (uintptr_t)0;
        *site = (struct site){.caller = caller, .offset = (uintptr_t)caller - base, .what = what};
        s->site_count++;
    }
    site->calls++;
    return s->calls == s->skip_call || skips_have(&s->skips, site->offset);
}

static void note(struct shadow *s, const void *p, size_t n)
{
    uintptr_t at = (uintptr_t)p - (uintptr_t)s->view;
    /* A write-back outside of the region is a bug of its caller that hardware would hide. */
    if (at > s->size || n > s->size - at)
        abort();
    if (n == 0)
        return;
    struct thread *t = this_thread(s);
    uint64_t last = (at + n - 1) / LINE;
    for (uint64_t line = at / LINE; line <= last; line++) {
        t->pending = grow(t->pending, &t->room, t->count + 1, sizeof(*t->pending));
        struct snapshot *snap = &t->pending[t->count++];
        snap->number = ++s->snapshots;
        snap->line = line;
        load_line(snap->words, s->view + line * LINE);
    }
}

static void writeback_from(struct flush *f, const void *p, size_t n, const void *caller)
{
    struct shadow *s = f->state;
    pthread_mutex_lock(&s->lock);
    if (!skipped(s, caller, SHADOW_CALL_WRITEBACK)) {
        note(s, p, n);
        tell(s, SHADOW_WRITEBACK);
    }
    pthread_mutex_unlock(&s->lock);
    pass(s);
}

static void shadow_writeback(struct flush *f, const void *p, size_t n)
{
    writeback_from(f, p, n, __builtin_return_address(0));
}

static void shadow_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    writeback_from(f, dst, n, __builtin_return_address(0));
}

static void shadow_drain(struct flush *f)
{
    struct shadow *s = f->state;
    pass(s);
    pthread_mutex_lock(&s->lock);
    if (!skipped(s, __builtin_return_address(0), SHADOW_CALL_DRAIN)) {
        tell(s, SHADOW_DRAIN);
        struct thread *t = this_thread(s);
        for (size_t i = 0; i < t->count; i++) {
            const struct snapshot *snap = &t->pending[i];
            if (snap->number < s->line_number[snap->line])
                continue;
            s->line_number[snap->line] = snap->number;
            memcpy(s->media + snap->line * LINE, snap->words, LINE);
        }
        t->count = 0;
        tell(s, SHADOW_DRAINED);
    }
    pthread_mutex_unlock(&s->lock);
    pass(s);
}

static const struct flush_ops shadow_ops = {
    .name = "shadow",
    .writeback = shadow_writeback,
    .drain = shadow_drain,
    .copy = shadow_copy,
};

/* ---- Another host -------------------------------------------------------------------------- */

static void far_writeback(struct flush *f, const void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
    abort();
}

static void far_drain(struct flush *f)
{
    (void)f;
    abort();
}

static void far_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    (void)f;
    (void)dst;
    (void)src;
    (void)n;
    abort();
}

static void far_invalidate(struct flush *f, const void *p, size_t n)
{
    struct shadow *s = f->state;
    uintptr_t at = (uintptr_t)p - (uintptr_t)s->far;
    if (n == 0)
        return;
    if (at > s->size || n > s->size - at)
        abort();
    bool skip = skipped(s, __builtin_return_address(0), SHADOW_CALL_INVALIDATE);
    if (s->far_tell)
        s->far_tell(s->far_arg);
    if (skip)
        return;
    uint64_t last = (at + n - 1) / LINE;
    for (uint64_t line = at / LINE; line <= last; line++)
        memcpy(s->far + line * LINE, s->media + line * LINE, LINE);
}

static const struct flush_ops far_ops = {.name = "shadow-far",
                                         .writeback = far_writeback,
                                         .drain = far_drain,
                                         .copy = far_copy,
                                         .invalidate = far_invalidate};

void shadow_on_invalidate(struct shadow *s, void (*teller)(void *arg), void *arg)
{
    s->far_tell = teller;
    s->far_arg = arg;
}

/* ---- Images ------------------------------------------------------------------------------- */

static struct change *change_of(struct shadow *s, uint64_t line)
{
    if (s->line_change[line])
        return &s->changes[s->line_change[line] - 1];
    s->changes = grow(s->changes, &s->change_room, s->change_count + 1, sizeof(*s->changes));
    struct change *c = &s->changes[s->change_count++];
    *c = (struct change){.line = line};
    s->line_change[line] = (uint32_t)s->change_count;
    return c;
}

static bool stale(const struct shadow *s, const struct snapshot *snap)
{
    return snap->number < s->line_number[snap->line];
}

/* Every line that may come out otherwise than the media has it, with its pending contents. */
static void compare(struct shadow *s)
{
    const size_t page = 4096;
    s->change_count = 0;
    for (size_t at = 0; at < s->size; at += page) {
        if (memcmp(s->view + at, s->media + at, page) == 0)
            continue;
        for (size_t i = at; i < at + page; i += LINE)
            if (memcmp(s->view + i, s->media + i, LINE) != 0)
                (void)change_of(s, i / LINE);
    }
    size_t total = 0;
    for (const struct thread *t = s->threads; t; t = t->next)
        for (size_t i = 0; i < t->count; i++)
            if (!stale(s, &t->pending[i])) {
                change_of(s, t->pending[i].line)->count++;
                total++;
            }
    s->choices = grow(s->choices, &s->choice_room, total, sizeof(*s->choices));
    uint32_t next = 0;
    for (size_t i = 0; i < s->change_count; i++) {
        s->changes[i].first = next;
        next += s->changes[i].count;
        s->changes[i].count = 0;
    }
    for (const struct thread *t = s->threads; t; t = t->next)
        for (size_t i = 0; i < t->count; i++)
            if (!stale(s, &t->pending[i])) {
                struct change *c = change_of(s, t->pending[i].line);
                s->choices[c->first + c->count++] = &t->pending[i];
            }
    for (size_t i = 0; i < s->change_count; i++)
        s->line_change[s->changes[i].line] = 0;
}

/* splitmix64: good bits from any seed, 0 too. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Calls do_line for every line that differs between a and b. */
static void each_difference(struct shadow *s, const char *a, const char *b, uint64_t *seed,
                            void (*do_line)(struct shadow *s, uint64_t line, uint64_t dice))
{
    const size_t page = 4096;
    for (size_t at = 0; at < s->size; at += page)
        for (size_t i = at; memcmp(a + at, b + at, page) != 0 && i < at + page; i += LINE)
            if (memcmp(a + i, b + i, LINE) != 0)
                do_line(s, i / LINE, draw(seed));
}

static void leak_line(struct shadow *s, uint64_t line, uint64_t dice)
{
    uint64_t words[WORDS];
    char *to = s->media + line * LINE;
    if ((dice & 3) != 0)
        return;
    load_line(words, s->view + line * LINE);
    bool whole = (dice >> 2 & 3) != 0;
    for (unsigned i = 0; i < WORDS; i++)
        if (whole || (dice >> (8 + i) & 1))
            memcpy(to + (size_t)i * 8, &words[i], 8);
    if (whole)
        s->line_number[line] = ++s->snapshots;
}

void shadow_leak(struct shadow *s, uint64_t seed)
{
    pthread_mutex_lock(&s->lock);
    each_difference(s, s->view, s->media, &seed, leak_line);
    s->compared = false;
    pthread_mutex_unlock(&s->lock);
}

static void refresh_line(struct shadow *s, uint64_t line, uint64_t dice)
{
    if ((dice & 7) == 0)
        memcpy(s->far + line * LINE, s->media + line * LINE, LINE);
}

void shadow_refresh(struct shadow *s, uint64_t seed)
{
    each_difference(s, s->far, s->media, &seed, refresh_line);
}

static const struct snapshot *newest(const struct shadow *s, const struct change *c)
{
    const struct snapshot *best = NULL;
    for (uint32_t i = 0; i < c->count; i++)
        if (!best || s->choices[c->first + i]->number > best->number)
            best = s->choices[c->first + i];
    return best;
}

/* One line: left as it was, or one of its contents since, whole or torn when that may be. */
static void apply_random(struct shadow *s, const struct change *c, uint64_t *state, unsigned odds,
                         bool tears)
{
    uint64_t dice = draw(state);
    if ((dice & 15) >= odds)
        return;
    uint64_t words[WORDS];
    uint64_t pick = (dice >> 8 & 0xffffff) % (c->count + 1u);
    if (pick == c->count)
        load_line(words, s->view + c->line * LINE);
    else
        memcpy(words, s->choices[c->first + pick]->words, LINE);
    uint64_t taken = tears && (dice >> 32 & 3) == 0 ? dice >> 40 : ~0ull;
    char *to = s->image + c->line * LINE;
    for (unsigned i = 0; i < WORDS; i++)
        if (taken >> i & 1)
            memcpy(to + (size_t)i * 8, &words[i], 8);
}

char *shadow_image(struct shadow *s, uint64_t seed, enum shadow_mode mode)
{
    pthread_mutex_lock(&s->lock);
    if (madvise(s->image, s->size, MADV_DONTNEED) != 0)
        abort();
    if (mode != SHADOW_ALL_OLD && !s->compared) {
        compare(s);
        s->compared = s->telling;
    }
    uint64_t state = seed;
    /* Few, half or nearly all of what may have arrived did: the extremes find the most. */
    static const unsigned odds_table[4] = {1, 8, 8, 15};
    unsigned odds = odds_table[draw(&state) & 3];
    for (size_t i = 0; mode != SHADOW_ALL_OLD && i < s->change_count; i++) {
        const struct change *c = &s->changes[i];
        if (mode == SHADOW_RANDOM || mode == SHADOW_UNTORN) {
            apply_random(s, c, &state, odds, mode == SHADOW_RANDOM);
        } else if (mode == SHADOW_ALL_NEW) {
            memcpy(s->image + c->line * LINE, s->view + c->line * LINE, LINE);
        } else {
            const struct snapshot *snap = newest(s, c);
            if (snap)
                memcpy(s->image + c->line * LINE, snap->words, LINE);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return s->image;
}

void shadow_image_region(struct shadow *s, uint64_t seed, enum shadow_mode mode, struct region *r)
{
    static const struct flush none = {.ops = &flush_none_ops};
    region_wrap(r, shadow_image(s, seed, mode), s->size, &none);
}

/* ---- Life --------------------------------------------------------------------------------- */

static char *map(size_t size, int flags, int fd)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

struct shadow *shadow_create(size_t size)
{
    struct shadow *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&s->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    s->size = size;
    s->flush = (struct flush){.ops = &shadow_ops, .state = s};
    s->fd = memfd_create("shadow-media", MFD_CLOEXEC);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)size) < 0) {
        shadow_destroy(s);
        return NULL;
    }
    s->view = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    s->media = map(size, MAP_SHARED, s->fd);
    s->image = map(size, MAP_PRIVATE, s->fd);
    s->far = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    s->far_flush = (struct flush){.ops = &far_ops, .state = s};
    s->line_number = calloc(lines_of(s), sizeof(*s->line_number));
    s->line_change = calloc(lines_of(s), sizeof(*s->line_change));
    if (!s->view || !s->media || !s->image || !s->far || !s->line_number || !s->line_change) {
        shadow_destroy(s);
        return NULL;
    }
    return s;
}

static void forget_pending(struct shadow *s)
{
    while (s->threads) {
        struct thread *t = s->threads;
        s->threads = t->next;
        free(t->pending);
        free(t);
    }
}

void shadow_destroy(struct shadow *s)
{
    if (!s)
        return;
    forget_pending(s);
    if (s->view)
        (void)munmap(s->view, s->size);
    if (s->media)
        (void)munmap(s->media, s->size);
    if (s->image)
        (void)munmap(s->image, s->size);
    if (s->far)
        (void)munmap(s->far, s->size);
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s->line_number);
    free(s->line_change);
    free(s->changes);
    free(s->choices);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void shadow_load(struct shadow *s, const void *bytes)
{
    pthread_mutex_lock(&s->lock);
    forget_pending(s);
    memcpy(s->view, bytes, s->size);
    memcpy(s->media, bytes, s->size);
    memset(s->line_number, 0, lines_of(s) * sizeof(*s->line_number));
    s->compared = false;
    pthread_mutex_unlock(&s->lock);
}

void shadow_forget(struct shadow *s)
{
    pthread_mutex_lock(&s->lock);
    forget_pending(s);
    s->compared = false;
    pthread_mutex_unlock(&s->lock);
}

void shadow_region(struct shadow *s, struct region *r)
{
    region_wrap(r, s->view, s->size, &s->flush);
}

void shadow_far_region(struct shadow *s, struct region *r)
{
    region_wrap(r, s->far, s->size, &s->far_flush);
    r->readonly = true;
}

void shadow_media_region(struct shadow *s, struct region *r)
{
    static const struct flush none = {.ops = &flush_none_ops};
    region_wrap(r, s->media, s->size, &none);
}

void shadow_on_event(struct shadow *s,
                     void (*teller)(void *arg, enum shadow_event event, uint64_t number), void *arg)
{
    pthread_mutex_lock(&s->lock);
    s->tell = teller;
    s->tell_arg = arg;
    pthread_mutex_unlock(&s->lock);
}

uint64_t shadow_calls(const struct shadow *s)
{
    return s->calls;
}

void shadow_skip_call(struct shadow *s, uint64_t k)
{
    s->skip_call = k;
}

unsigned shadow_sites(const struct shadow *s)
{
    return s->site_count;
}

void shadow_skip_site(struct shadow *s, uintptr_t offset)
{
    skips_add(&s->skips, offset);
}

uintptr_t shadow_site(const struct shadow *s, unsigned i, uint64_t *calls, enum shadow_call *what)
{
    const struct site *site = &s->sites[i];
    if (calls)
        *calls = site->calls;
    if (what)
        *what = site->what;
    return site->offset;
}
