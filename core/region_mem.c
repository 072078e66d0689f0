/* Volatile regions: anonymous memory (mem:SIZE) and memory of one NUMA node (node:N[:SIZE]; CXL
 * onlined as system RAM). Before step 1. Must never take more than there is: the kernel would
 * grant it and kill somebody later.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/pool.h"
#include "core/region_kinds.h"

#define DEFAULT_SIZE (1ull << 30)
#define HUGE         (2ull << 20)
#define MAX_NODES    1024

/* Bytes that can be had without swapping; UINT64_MAX when unknown. */
static uint64_t available(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f)
        return UINT64_MAX;
    uint64_t kib = UINT64_MAX / 1024;
    char line[128];
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
            break;
    (void)fclose(f);
    return kib * 1024;
}

/* "mem:SIZE", "node:N", "node:N:SIZE": sets node (-1: none) and size (0: not given). */
static int parse(const char *spec, int *node, uint64_t *size)
{
    *node = -1;
    *size = 0;
    const char *text = strchr(spec, ':') + 1;
    if (strncmp(spec, "node:", 5) == 0) {
        if (*text < '0' || *text > '9')
            return -EMBAR_ESPEC;
        char *end;
        errno = 0;
        long value = strtol(text, &end, 10);
        if (errno || value >= MAX_NODES || (*end && *end != ':'))
            return -EMBAR_ESPEC;
        *node = (int)value;
        if (!*end)
            return 0;
        text = end + 1;
    } else if (!*text) {
        return 0;
    }
    return size_parse(text, size);
}

static int choose_size(struct region *r, const struct region_options *opt, uint64_t in_spec,
                       struct embar_error *err)
{
    char a[32];
    char b[32];
    if (in_spec > 0 && opt->size > 0 && in_spec != opt->size)
        return embar_fail(err, -EMBAR_ESIZE, "%s says %s, --size says %s: give one of them.",
                          r->spec, size_text(in_spec, a), size_text(opt->size, b));
    uint64_t size = in_spec > 0 ? in_spec : opt->size;
    if (size == 0)
        size = DEFAULT_SIZE;
    if (size < POOL_MIN_SIZE)
        return embar_fail(err, -EMBAR_ETOOSMALL, "%s: %s", r->spec, size_text(size, a));
    if (size > INT64_MAX)
        return embar_fail(err, -ENOMEM, "%s: %s", r->spec, size_text(size, a));
    r->size = (size + MEDIA_PAGE - 1) & ~(uint64_t)(MEDIA_PAGE - 1);
    return 0;
}

static int check_room(const struct region *r, int node, struct embar_error *err)
{
    char a[32];
    uint64_t room = available();
    if (node >= 0) {
        if (numa_available() < 0)
            return embar_fail(err, -EOPNOTSUPP,
                              "%s: this kernel has no NUMA support; use mem:SIZE instead.",
                              r->spec);
        long long unbound = 0;
        long long all = numa_node_size64(node, &unbound);
        if (all <= 0)
            return embar_fail(err, -EMBAR_ESPEC,
                              "%s: there is no NUMA node %d with memory; see `numactl --hardware` "
                              "for those there are.",
                              r->spec, node);
        room = (uint64_t)unbound;
    }
    if (r->size > room)
        return embar_fail(err, -ENOMEM,
                          "%s: %s are asked for but only %" PRIu64 " MiB are free; use a smaller "
                          "size or stop other programs.",
                          r->spec, size_text(r->size, a), room >> 20);
    return 0;
}

static int bind_node(struct region *r, int node, struct embar_error *err)
{
    const unsigned bits = sizeof(unsigned long) * CHAR_BIT;
    unsigned long mask[MAX_NODES / (sizeof(unsigned long) * CHAR_BIT)] = {0};
    mask[(unsigned)node / bits] = 1ul << ((unsigned)node % bits);
    /* The kernel reads one bit less than it is told. */
    if (mbind(r->base, r->size, MPOL_BIND, mask, MAX_NODES, MPOL_MF_STRICT) < 0)
        return embar_fail(err, -errno, "binding %s to its NUMA node", r->spec);
    return 0;
}

int region_open_mem(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    int node;
    uint64_t size;
    if (parse(r->spec, &node, &size) != 0)
        return embar_fail(err, -EMBAR_ESPEC, "%s", r->spec);
    r->kind = node < 0 ? REGION_MEM : REGION_NODE;
    r->is_volatile = true;
    r->persistence = REGION_VOLATILE;
    int rc = choose_size(r, opt, size, err);
    if (rc == 0)
        rc = check_room(r, node, err);
    if (rc)
        return rc;
    /* Private, so that the kernel may back it with huge pages: a process that forks must do so
     * before it opens a pool. Over-mapped by one huge page to begin on a boundary of one. */
    size_t mapped = r->size + HUGE;
    char *at = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return embar_fail(err, -errno, "mapping %s", r->spec);
    size_t head = (size_t)(-(uintptr_t)at & (HUGE - 1));
    if (head > 0)
        (void)munmap(at, head);
    if (HUGE > head)
        (void)munmap(at + head + r->size, HUGE - head);
    r->base = at + head;
    r->backing->mapped = r->size;
    r->created = true;
    /* Only speed: where huge pages are off, small ones do. */
    (void)madvise(r->base, r->size, MADV_HUGEPAGE);
    return node < 0 ? 0 : bind_node(r, node, err);
}
