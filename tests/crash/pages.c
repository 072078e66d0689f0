/* The page-cache model; see pages.h. Linked with --wrap=region_sync, so that the core's syncs of a
 * region of ours come here. Must never let a page reach the disk in part.
 */
#include "tests/crash/pages.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/crash/ledger.h"

#define PAGE  4096u
#define SITES 32u

struct pages {
    size_t size;
    int fd;
    char *view, *disk, *image; /* image: private mapping of the disk, as in shadow.c */
    void (*tell)(void *arg, enum shadow_event event, uint64_t number);
    void *tell_arg;
    uint64_t events;
    bool telling;
    void (*moment)(void *arg);
    void *moment_arg;
    struct skips skips;
    struct {
        uintptr_t offset;
        uint64_t calls;
    } site[SITES];
    unsigned sites;
};

static void tell(struct pages *p, enum shadow_event event)
{
    p->events++;
    if (!p->tell || p->telling)
        return;
    p->telling = true;
    p->tell(p->tell_arg, event, p->events);
    p->telling = false;
}

static void pass(struct pages *p)
{
    if (p->moment)
        p->moment(p->moment_arg);
}

void pages_on_moment(struct pages *p, void (*moment)(void *arg), void *arg)
{
    p->moment = moment;
    p->moment_arg = arg;
}

static void pages_writeback(struct flush *f, const void *at, size_t n)
{
    struct pages *p = f->state; /* who is killed now flushes no more */
    (void)at;
    if (n > 0)
        tell(p, SHADOW_WRITEBACK);
    pass(p);
}

static void pages_drain(struct flush *f)
{
    (void)f;
}

static void pages_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    pages_writeback(f, dst, n);
}

static const struct flush_ops pages_ops = {
    .name = "pages", .writeback = pages_writeback, .drain = pages_drain, .copy = pages_copy};

/* ---- Syncs -------------------------------------------------------------------------------- */

static bool skipped(struct pages *p, const void *caller)
{
    Dl_info info;
    uintptr_t base = dladdr(caller, &info) ? (uintptr_t)info.dli_fbase : 0;
    uintptr_t offset = (uintptr_t)caller - base;
    unsigned i = 0;
    while (i < p->sites && p->site[i].offset != offset)
        i++;
    if (i < SITES) {
        p->site[i].offset = offset;
        p->site[i].calls++;
        p->sites = i == p->sites ? i + 1 : p->sites;
    }
    return skips_have(&p->skips, offset);
}

int __real_region_sync(struct region *r);
int __wrap_region_sync(struct region *r);

int __wrap_region_sync(struct region *r)
{
    if (r->flush.ops != &pages_ops)
        return __real_region_sync(r);
    struct pages *p = r->flush.state;
    if (skipped(p, __builtin_return_address(0)))
        return 0;
    tell(p, SHADOW_DRAIN);
    pass(p);
    for (size_t at = 0; at < p->size; at += PAGE)
        if (memcmp(p->view + at, p->disk + at, PAGE) != 0)
            memcpy(p->disk + at, p->view + at, PAGE);
    tell(p, SHADOW_DRAINED);
    pass(p);
    return 0;
}

void pages_leak(struct pages *p, uint64_t seed)
{
    for (size_t at = 0; at < p->size; at += PAGE)
        if (memcmp(p->view + at, p->disk + at, PAGE) != 0 && chance(&seed, 3))
            memcpy(p->disk + at, p->view + at, PAGE);
}

char *pages_image(struct pages *p, uint64_t seed, enum shadow_mode mode)
{
    if (madvise(p->image, p->size, MADV_DONTNEED) != 0)
        abort();
    if (mode == SHADOW_ALL_OLD)
        return p->image;
    /* Few, half or nearly all. */
    static const unsigned odds_table[4] = {1, 8, 8, 15};
    unsigned odds = odds_table[draw(&seed) & 3];
    bool some = mode == SHADOW_RANDOM || mode == SHADOW_UNTORN;
    for (size_t at = 0; at < p->size; at += PAGE)
        if (memcmp(p->view + at, p->disk + at, PAGE) != 0 && (!some || below(&seed, 16) < odds))
            memcpy(p->image + at, p->view + at, PAGE);
    return p->image;
}

/* ---- Life --------------------------------------------------------------------------------- */

static char *map(size_t size, int flags, int fd)
{
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED)
        abort();
    return at;
}

struct pages *pages_create(size_t size)
{
    struct pages *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->size = size;
    p->fd = memfd_create("pages-disk", MFD_CLOEXEC);
    if (p->fd < 0 || ftruncate(p->fd, (off_t)size) < 0)
        abort();
    p->view = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    p->disk = map(size, MAP_SHARED, p->fd);
    p->image = map(size, MAP_PRIVATE, p->fd);
    return p;
}

void pages_destroy(struct pages *p)
{
    if (!p)
        return;
    (void)munmap(p->view, p->size);
    (void)munmap(p->disk, p->size);
    (void)munmap(p->image, p->size);
    (void)close(p->fd);
    free(p);
}

void pages_load(struct pages *p, const void *bytes)
{
    memcpy(p->view, bytes, p->size);
    memcpy(p->disk, bytes, p->size);
}

void pages_region(struct pages *p, enum media_durability durability, struct region *r)
{
    const struct flush flush = {.ops = &pages_ops, .state = p};
    region_wrap(r, p->view, p->size, &flush);
    r->needs_sync = true;
    r->durability = durability;
    r->durability_given = true;
}

void pages_on_event(struct pages *p,
                    void (*teller)(void *arg, enum shadow_event event, uint64_t number), void *arg)
{
    p->tell = teller;
    p->tell_arg = arg;
}

char *pages_view(struct pages *p)
{
    return p->view;
}

void pages_skip_site(struct pages *p, uintptr_t offset)
{
    skips_add(&p->skips, offset);
}

unsigned pages_sites(const struct pages *p)
{
    return p->sites;
}

uintptr_t pages_site(const struct pages *p, unsigned i, uint64_t *calls)
{
    *calls = p->site[i].calls;
    return p->site[i].offset;
}
