/* Places of the pool by where they are (recovery): none shares a byte with another. */
#ifndef CORE_FSCK_PLACE_H
#define CORE_FSCK_PLACE_H

#include <stdint.h>

struct place {
    uint64_t from, to; /* not empty */
    uint64_t offset;   /* in its topic, of what stands at `from` */
    uint32_t topic;
};

/* All of them: NULL is none. */
typedef void *places;

/* Put p among them, which is malloc'd and theirs from then on: p. Where one shares a byte with it: that one,
 * and p is not theirs. NULL: no memory. */
struct place *places_add(places *all, struct place *p);
/* One that shares a byte with p, or NULL. */
struct place *places_find(const places *all, const struct place *p);
/* Take it out: it is the caller's. */
void places_take(places *all, const struct place *p);
void places_drop(places *all);

#endif
