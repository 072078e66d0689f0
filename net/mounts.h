/* What embarfs has mounted, by the table of mounts, and a pool whose last daemon still closes it. No state; every
 * function from any thread. None looks into a mount, whose daemon may not answer.
 */
#ifndef NET_MOUNTS_H
#define NET_MOUNTS_H

#include <mntent.h>
#include <stdbool.h>
#include <stdint.h>

/* Calls fn for each mount of embarfs until it says true. */
bool mounts_any(bool (*fn)(const struct mntent *m, const void *arg), const void *arg);
/* Are these names of pools those of one? */
bool mounts_same(const char *a, const char *b);
/* Is one mounted that serves this pool? */
bool mounts_hold(const char *spec);

struct mounts_wait { /* zeros: it begins */
    uint64_t since;  /* CLOCK_MONOTONIC ns */
    bool told;
};

/* Another process holds the pool `spec`; `refusal` says who. One that was just unmounted is still being closed by
 * its daemon, which on a busy disk takes its time for the last sync. True: it may be, so try again; a moment
 * has passed. False: it is mounted, or that took too long. From the second second on `say` is told once. */
bool mounts_wait(struct mounts_wait *w, const char *spec, const char *refusal,
                 void (*say)(void *arg, const char *text), void *arg);

#endif
