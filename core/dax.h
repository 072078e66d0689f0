/* What the kernel says of a dax device: size, alignment, driver, node, and whether its memory is
 * persistent. Before step 1. Reads sysfs only; opens no device.
 *
 * Persistence is what sysfs can vouch for and no more:
 *   persistent  a persistent-memory region (NFIT, e820, or a CXL card's persistent part)
 *   volatile    a region that the kernel itself calls volatile, such as a CXL card's ram part
 *   unknown     soft-reserved memory (hmem): the firmware set it aside and did not say what it is
 *
 * Threads: stateless.
 */
#ifndef CORE_DAX_H
#define CORE_DAX_H

#include <stddef.h>
#include <stdint.h>

#include "core/region.h"

struct dax_facts {
    char name[32];        /* daxX.Y */
    uint64_t size, align; /* bytes; a mapping's address and length are multiples of align */
    int node;             /* NUMA node that it becomes when it is onlined, or -1 */
    char driver[32];      /* device_dax: can be mapped; kmem: is system memory; "": none is bound */
    enum region_persistence persistence;
    char source[96]; /* where that is known from, in words */
};

/* folder: the device's in sysfs (/sys/bus/dax/devices/daxX.Y, or what /sys/dev/char has). 0, -ENOENT
 * or -EIO when size or alignment make no sense. */
int dax_look(const char *folder, struct dax_facts *facts) __attribute__((warn_unused_result));

/* "persistent", "volatile", "unknown". */
const char *persistence_name(enum region_persistence persistence);

/* The first line of a small file, without its newline. 0 or -errno; text is "" on failure. */
int sysfs_text(char *text, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The last component of what a link points to; "" when there is none. */
void sysfs_link(char *text, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
