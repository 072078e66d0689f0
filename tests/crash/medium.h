/* The memory under a crash run: lines of a shadow, or pages of an ordinary file. */
#ifndef TESTS_CRASH_MEDIUM_H
#define TESTS_CRASH_MEDIUM_H

#include "tests/crash/pages.h"
#include "tests/crash/shadow.h"

enum variant {
    MEDIUM_LINES,        /* persistent memory: an ack survives the machine */
    MEDIUM_PROCESS,      /* coherent memory: an ack survives the process, which is all that dies */
    MEDIUM_FILE,         /* ordinary file: the same, and what was synced survives the machine */
    MEDIUM_FILE_MACHINE, /* ordinary file whose acks wait for a sync */
};

struct medium {
    enum variant variant;
    size_t size;
    struct shadow *shadow; /* or */
    struct pages *pages;
};

void medium_create(struct medium *m, enum variant variant, size_t size);
void medium_destroy(struct medium *m);
bool medium_is_file(const struct medium *m);
void medium_region(struct medium *m, struct region *r);
void medium_on_event(struct medium *m,
                     void (*tell)(void *arg, enum shadow_event event, uint64_t number), void *arg);
/* What others do while somebody flushes (shadow.h). NULL: nothing. */
void medium_on_moment(struct medium *m, void (*moment)(void *arg), void *arg);
/* A crash image as a region to open. */
void medium_image(struct medium *m, uint64_t seed, enum shadow_mode mode, struct region *r);
/* A machine that was off: all that there is are these bytes. */
void medium_load(struct medium *m, const void *bytes);
/* A machine that goes on while its process died at the moment when the caches held these bytes. */
void medium_resume(struct medium *m, const void *bytes);
/* Leave out the flush or sync call at this site; print those that were come by, with their calls. */
void medium_skip_site(struct medium *m, uintptr_t offset);
void medium_list_sites(const struct medium *m);
/* What the caches hold. */
const char *medium_view(struct medium *m);

#endif
