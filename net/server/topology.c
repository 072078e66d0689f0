/* Processors, nodes and limits (topology.h): before step 1. */
#include <errno.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/server/topology.h"

#define CGROUPS "/sys/fs/cgroup"
#define NODES   64u

static const char *own_groups(char *buf, size_t size)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    size_t n = f ? fread(buf, 1, size - 1, f) : 0;
    if (f)
        (void)fclose(f);
    buf[n] = '\0';
    return buf;
}

/* The processors that this process may run on. */
static void allowed(cpu_set_t *set)
{
    if (sched_getaffinity(0, sizeof(*set), set) == 0)
        return;
    CPU_ZERO(set); /* more processors than the set has: take what it can tell */
    for (unsigned i = 0; i < CPU_SETSIZE; i++)
        CPU_SET(i, set);
}

unsigned topology_processors(void)
{
    char groups[4096];
    cpu_set_t set;
    allowed(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = (unsigned)CPU_COUNT(&set);
    unsigned quota = cgroup_processors(CGROUPS, own_groups(groups, sizeof(groups)));
    if (online > 0 && (unsigned long)online < n)
        n = (unsigned)online;
    if (quota < n)
        n = quota;
    return n > 0 ? n : 1;
}

uint64_t topology_memory(void)
{
    char groups[4096];
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t all = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 1ull << 30;
    uint64_t bound = cgroup_memory(CGROUPS, own_groups(groups, sizeof(groups)));
    return bound < all ? bound : all;
}

/* ---- Pinning ------------------------------------------------------------------------------- */

static int bad_list(const char *text, struct embar_error *err)
{
    return embar_fail(err, -EMBAR_EINVALID,
                      "--pin %s is not auto, none or a list of at most %u processors like 0,2-5.",
                      text, PIN_MAX);
}

/* "N" or "N-M" at *at, which moves behind it. */
static int range(const char **at, unsigned long *from, unsigned long *to)
{
    char *end;
    if (**at < '0' || **at > '9')
        return -EMBAR_EINVALID;
    *from = *to = strtoul(*at, &end, 10);
    if (*end == '-') {
        if (end[1] < '0' || end[1] > '9')
            return -EMBAR_EINVALID;
        *to = strtoul(end + 1, &end, 10);
    }
    *at = end;
    return *from <= *to && *to < CPU_SETSIZE ? 0 : -EMBAR_EINVALID;
}

int pin_parse(const char *text, struct pin *pin, struct embar_error *err)
{
    *pin = (struct pin){.kind = PIN_AUTO};
    if (strcmp(text, "auto") == 0)
        return 0;
    pin->kind = PIN_NONE;
    if (strcmp(text, "none") == 0)
        return 0;
    pin->kind = PIN_LIST;
    cpu_set_t set;
    allowed(&set);
    for (const char *at = text;; at++) {
        unsigned long from, to;
        if (range(&at, &from, &to))
            return bad_list(text, err);
        for (; from <= to; from++) {
            if (!CPU_ISSET(from, &set))
                return embar_fail(err, -EMBAR_EINVALID,
                                  "--pin names processor %lu, which this process may not run on; "
                                  "see Cpus_allowed_list in /proc/self/status.",
                                  from);
            if (pin->count == PIN_MAX)
                return bad_list(text, err);
            pin->cpu[pin->count++] = (uint16_t)from;
        }
        if (!*at)
            return 0;
        if (*at != ',')
            return bad_list(text, err);
    }
}

/* The allowed processors of a node; how many. */
static unsigned node_cpus(unsigned node, const cpu_set_t *may, cpu_set_t *set)
{
    CPU_ZERO(set);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, may) && numa_node_of_cpu((int)cpu) == (int)node)
            CPU_SET(cpu, set);
    return (unsigned)CPU_COUNT(set);
}

/* The node where the memory stands; a device's or CXL node has no processors of its own. */
static int home_of(const void *memory)
{
    int node = -1;
    if (get_mempolicy(&node, NULL, 0, (void *)(uintptr_t)memory, MPOL_F_NODE | MPOL_F_ADDR))
        return -1;
    return node;
}

static bool choose_node(unsigned index, const void *memory, cpu_set_t *set)
{
    cpu_set_t may;
    bool used[NODES] = {false};
    if (numa_available() < 0 || numa_max_node() < 1)
        return false;
    allowed(&may);
    int home = home_of(memory);
    for (unsigned before = 0;;) {
        int best = -1, nearest = INT_MAX;
        for (unsigned node = 0; node < NODES && (int)node <= numa_max_node(); node++) {
            int far = home < 0 ? (int)node : numa_distance(home, (int)node);
            if (!used[node] && far < nearest && node_cpus(node, &may, set) > 0) {
                best = (int)node;
                nearest = far;
            }
        }
        if (best < 0)
            return false; /* more workers than processors: wherever there is room */
        used[best] = true;
        before += node_cpus((unsigned)best, &may, set);
        if (index < before)
            return true;
    }
}

bool pin_choose(const struct pin *pin, unsigned index, const void *memory, cpu_set_t *set)
{
    if (pin->kind == PIN_NONE)
        return false;
    if (pin->kind == PIN_AUTO)
        return choose_node(index, memory, set);
    CPU_ZERO(set);
    CPU_SET(pin->cpu[index % pin->count], set);
    return true;
}
