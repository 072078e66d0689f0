/* The table of mounts, and waiting for a pool that is being closed: see mounts.h. Serves no step of a batch.
 * Must never look into a mount.
 */
#include "net/mounts.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TYPE       "fuse.embarfs"
#define SECOND     1000000000u /* ns */
#define CLOSE_WAIT 60u         /* seconds */
#define PAUSE      50000       /* us */

bool mounts_any(bool (*fn)(const struct mntent *m, const void *arg), const void *arg)
{
    FILE *table = setmntent("/proc/self/mounts", "re");
    struct mntent m;
    char buf[3 * PATH_MAX];
    bool found = false;
    while (table && !found && getmntent_r(table, &m, buf, sizeof(buf)))
        found = strcmp(m.mnt_type, TYPE) == 0 && fn(&m, arg);
    if (table)
        endmntent(table);
    return found;
}

bool mounts_same(const char *a, const char *b)
{
    char x[PATH_MAX], y[PATH_MAX];
    if (strcmp(a, b) == 0)
        return true;
    return *a == '/' && realpath(a, x) && realpath(b, y) && strcmp(x, y) == 0;
}

static bool is_of(const struct mntent *m, const void *spec)
{
    return mounts_same(m->mnt_fsname, spec);
}

bool mounts_hold(const char *spec)
{
    return mounts_any(is_of, spec);
}

static uint64_t clock_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

bool mounts_wait(struct mounts_wait *w, const char *spec, const char *refusal,
                 void (*say)(void *arg, const char *text), void *arg)
{
    uint64_t now = clock_now();
    if (w->since == 0)
        w->since = now;
    uint64_t waited = (now - w->since) / SECOND;
    if (waited >= CLOSE_WAIT || mounts_hold(spec))
        return false;
    char text[PATH_MAX + 256];
    if (waited >= 1 && !w->told) {
        /* The remedy behind who holds it is not for one that is being closed. */
        const char *remedy = strrchr(refusal, ':');
        int n = (int)(remedy ? (size_t)(remedy - refusal) : strlen(refusal));
        (void)snprintf(text, sizeof(text),
                       "%.*s and mounted nowhere: waiting up to %u s for it to be closed.", n,
                       refusal, CLOSE_WAIT);
        w->told = true;
        say(arg, text);
    }
    usleep(PAUSE);
    return true;
}
