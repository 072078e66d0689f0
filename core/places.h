/* The order of all who wait for pool space: see places.c. Run-time state, never on the media.
 */
#ifndef CORE_PLACES_H
#define CORE_PLACES_H

#include <stdatomic.h>
#include <stdint.h>

#define SPACE_LINES 72u /* the network's workers, the mount, and some */

struct watcher;

struct space_line {
    /* Its owner's; what others are to leave, and for whose place. See say. */
    _Alignas(64) atomic_uint_fast64_t owed;
    atomic_uint_fast64_t since;
    struct watcher *watcher; /* NULL: free. The watch list's lock guards it */
};

struct space_lines {
    atomic_uint_fast64_t places; /* that were given to who waits. Relaxed, and so */
    atomic_uint waiting;         /* lines where somebody waits, */
    atomic_uint used;            /* and those that may be, which never grow fewer: release */
    struct space_line line[SPACE_LINES];
};

struct log;
void places_init(struct log *log);

#endif
