/* A slab: memory for objects of one size that come and go with the peers, from any thread (connections).
 * It grows by a block of many at a time, so that one more costs no system call; what was never touched of an
 * object takes no memory. Blocks stay until the end, but beyond SLAB_KEPT spare objects, whoever gives one
 * back gives its pages back to the system.
 *
 * The address sanitizer is told which objects are spare.
 */
#ifndef NET_SERVER_SLAB_H
#define NET_SERVER_SLAB_H

#include <stdatomic.h>
#include <stddef.h>

#include "net/server/stack.h"

#define SLAB_BLOCK 256u /* objects */
#define SLAB_KEPT  256u /* spare objects whose pages stay */

/* The head of every object, which must not be written while it is in use: a pop may still look at it. */
struct slab_item {
    _Alignas(64) struct ck_stack_entry entry;
};

struct slab_block;

struct slab {
    struct stack spare;
    _Atomic(struct slab_block *) blocks; /* newest first; release, and acquire for what is in it */
    atomic_uint count;                   /* of `spare`, about; relaxed: nothing depends on it */
    size_t size;
};

void slab_init(struct slab *s, size_t size);
/* Aligned to 64 bytes; what is behind its head has any content. NULL: no memory. */
void *slab_take(struct slab *s);
void slab_give(struct slab *s, void *object);
void slab_end(struct slab *s); /* every object was given back, and nobody is in here */

#endif
