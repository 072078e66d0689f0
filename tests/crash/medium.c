/* The memory under a crash run; see medium.h. Must never add to what its two models allow. */
#include "tests/crash/medium.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/flush_variants.h"

bool medium_is_file(const struct medium *m)
{
    return m->variant == MEDIUM_FILE || m->variant == MEDIUM_FILE_MACHINE;
}

void medium_create(struct medium *m, enum variant variant, size_t size)
{
    *m = (struct medium){.variant = variant, .size = size};
    if (medium_is_file(m))
        m->pages = pages_create(size);
    else
        m->shadow = shadow_create(size);
    if (!m->pages && !m->shadow)
        abort();
}

void medium_destroy(struct medium *m)
{
    shadow_destroy(m->shadow);
    pages_destroy(m->pages);
    *m = (struct medium){0};
}

static void settle(const struct medium *m, struct region *r)
{
    if (m->variant == MEDIUM_PROCESS) {
        r->durability = MEDIA_DURABLE_PROCESS;
        r->durability_given = true;
    }
}

void medium_region(struct medium *m, struct region *r)
{
    if (m->pages) {
        pages_region(m->pages,
                     m->variant == MEDIUM_FILE ? MEDIA_DURABLE_PROCESS : MEDIA_DURABLE_MACHINE, r);
        return;
    }
    shadow_region(m->shadow, r);
    settle(m, r);
}

void medium_on_event(struct medium *m,
                     void (*tell)(void *arg, enum shadow_event event, uint64_t number), void *arg)
{
    if (m->pages)
        pages_on_event(m->pages, tell, arg);
    else
        shadow_on_event(m->shadow, tell, arg);
}

void medium_on_moment(struct medium *m, void (*moment)(void *arg), void *arg)
{
    if (m->pages)
        pages_on_moment(m->pages, moment, arg);
    else
        shadow_on_moment(m->shadow, moment, arg);
}

void medium_image(struct medium *m, uint64_t seed, enum shadow_mode mode, struct region *r)
{
    if (!m->pages) {
        shadow_image_region(m->shadow, seed, mode, r);
        settle(m, r);
        return;
    }
    static const struct flush none = {.ops = &flush_none_ops};
    struct region like;
    medium_region(m, &like);
    region_wrap(r, pages_image(m->pages, seed, mode), m->size, &none);
    r->needs_sync = true;
    r->durability = like.durability;
    r->durability_given = true;
}

void medium_load(struct medium *m, const void *bytes)
{
    if (m->pages)
        pages_load(m->pages, bytes);
    else
        shadow_load(m->shadow, bytes);
}

void medium_resume(struct medium *m, const void *bytes)
{
    struct region r;
    medium_region(m, &r);
    memcpy(r.base, bytes, m->size);
    if (m->shadow)
        shadow_forget(m->shadow);
}

void medium_skip_site(struct medium *m, uintptr_t offset)
{
    if (m->shadow)
        shadow_skip_site(m->shadow, offset);
    if (m->pages)
        pages_skip_site(m->pages, offset);
}

void medium_list_sites(const struct medium *m)
{
    uint64_t calls;
    enum shadow_call what;
    static const char *const names[] = {"writeback", "drain", "invalidate"};
    for (unsigned i = 0; m->shadow && i < shadow_sites(m->shadow); i++) {
        uintptr_t site = shadow_site(m->shadow, i, &calls, &what);
        printf("site %#" PRIxPTR " %s %" PRIu64 "\n", site, names[what], calls);
    }
    for (unsigned i = 0; m->pages && i < pages_sites(m->pages); i++) {
        uintptr_t site = pages_site(m->pages, i, &calls);
        printf("site %#" PRIxPTR " sync %" PRIu64 "\n", site, calls);
    }
}

const char *medium_view(struct medium *m)
{
    struct region r;
    medium_region(m, &r);
    return r.base;
}
