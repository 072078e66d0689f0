/* The page-cache model: an ordinary file as a machine crash leaves it.
 *
 * The *view* is the page cache (what the process maps), the *disk* is what a reboot finds. The
 * kernel may write any dirty page at any time, whole and with its present content; a sync writes
 * all of them. A crash image is the disk plus any subset of the dirty pages.
 */
#ifndef TESTS_CRASH_PAGES_H
#define TESTS_CRASH_PAGES_H

#include "tests/crash/shadow.h"

struct pages;

struct pages *pages_create(size_t size);
void pages_destroy(struct pages *p);
void pages_load(struct pages *p, const void *bytes);
/* A region that needs syncs; `durability` is what an ack stands for. */
void pages_region(struct pages *p, enum media_durability durability, struct region *r);
/* As shadow_on_event: SHADOW_WRITEBACK at flush calls, SHADOW_DRAIN before and SHADOW_DRAINED after
 * a sync. */
/* As shadow_on_moment: after each write-back, and in the middle and at the end of each sync. */
void pages_on_moment(struct pages *p, void (*moment)(void *arg), void *arg);
void pages_on_event(struct pages *p,
                    void (*tell)(void *arg, enum shadow_event event, uint64_t number), void *arg);
/* The kernel writes some dirty pages out. */
void pages_leak(struct pages *p, uint64_t seed);
/* As shadow_image; nothing is torn. */
char *pages_image(struct pages *p, uint64_t seed, enum shadow_mode mode);
char *pages_view(struct pages *p);

/* As the shadow's: call sites of region_sync. */
void pages_skip_site(struct pages *p, uintptr_t offset);
unsigned pages_sites(const struct pages *p);
uintptr_t pages_site(const struct pages *p, unsigned i, uint64_t *calls);

#endif
