/* What this machine gives to the daemon: processors, their NUMA nodes, and a container's limits. Looked
 * at once, when the server starts; nothing follows later changes.
 */
#ifndef NET_SERVER_TOPOLOGY_H
#define NET_SERVER_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "embar/error.h"

/* Processors that this process may run on and pay for: its affinity, and its control groups' quota,
 * rounded up. At least 1. */
unsigned topology_processors(void);
/* Bytes of memory that this process may use: the machine's, or its control groups' bound. */
uint64_t topology_memory(void);

enum pin_kind { PIN_AUTO, PIN_NONE, PIN_LIST };

#define PIN_MAX 64u

struct pin {
    enum pin_kind kind;
    unsigned count;
    uint16_t cpu[PIN_MAX]; /* PIN_LIST: worker i has cpu[i % count] */
};

/* "auto", "none" or a list of processors like 0,2-5. -EMBAR_EINVALID with a sentence: not
 * understood, or not one that this process may run on. */
int pin_parse(const char *text, struct pin *pin, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Where worker `index` may run; false: wherever the process may. PIN_AUTO: on a machine of several
 * nodes, the processors of the node nearest to `memory`; when there are more workers than these, the
 * next node's, and so on. */
bool pin_choose(const struct pin *pin, unsigned index, const void *memory, cpu_set_t *set);

/* For tests: the control groups' smallest limit, looked for below `root` as the text of a
 * /proc/self/cgroup says. UINT64_MAX: none. */
uint64_t cgroup_memory(const char *root, const char *groups);
unsigned cgroup_processors(const char *root, const char *groups); /* UINT_MAX: none */

#endif
