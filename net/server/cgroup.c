/* Control groups' limits (topology.h): of version 2 in the one hierarchy, of version 1 in that of the
 * controller. A limit counts at every level up to the root, which in a container is the container's own.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "net/server/topology.h"

/* The first line of a small file. */
static bool read_line(const char *path, char *buf, int size)
{
    FILE *f = fopen(path, "re");
    bool got = f && fgets(buf, size, f);
    if (f)
        (void)fclose(f);
    return got;
}

/* Our group in a hierarchy: "" is the one of version 2. Lines are "id:controllers:/path". */
static bool group_of(const char *groups, const char *controller, char *path, size_t size)
{
    for (const char *line = groups; line && *line;) {
        const char *end = strchrnul(line, '\n');
        const char *names = memchr(line, ':', (size_t)(end - line));
        const char *at = names ? memchr(names + 1, ':', (size_t)(end - names - 1)) : NULL;
        size_t n = at ? (size_t)(at - names - 1) : 0, k = strlen(controller);
        bool ours = at && n == k && memcmp(names + 1, controller, k) == 0;
        /* Two controllers may share one: "cpu,cpuacct". */
        ours = ours || (at && k > 0 && n > k && memcmp(names + 1, controller, k) == 0 &&
                        names[1 + k] == ',');
        if (ours && (size_t)(end - at) <= size) {
            memcpy(path, at + 1, (size_t)(end - at - 1));
            path[end - at - 1] = '\0';
            return true;
        }
        line = *end ? end + 1 : end;
    }
    return false;
}

typedef uint64_t reader(const char *folder);

/* The smallest of a group's and its parents'. Where only a part of the hierarchy is to be seen, what
 * is not there has no limit. */
static uint64_t smallest(const char *root, const char *mount, const char *group, reader *read)
{
    char path[PATH_MAX], folder[PATH_MAX * 2];
    uint64_t least = UINT64_MAX;
    (void)snprintf(path, sizeof(path), "%s", group);
    for (;;) {
        (void)snprintf(folder, sizeof(folder), "%s%s%s", root, mount, path);
        uint64_t n = read(folder);
        least = n < least ? n : least;
        char *slash = strrchr(path, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

static uint64_t number_in(const char *folder, const char *name)
{
    char path[PATH_MAX * 2 + 64], line[64];
    uint64_t n;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (!read_line(path, line, sizeof(line)) || sscanf(line, "%" SCNu64, &n) != 1)
        return UINT64_MAX; /* "max" as well */
    return n;
}

static uint64_t memory_two(const char *folder)
{
    return number_in(folder, "memory.max");
}

static uint64_t memory_one(const char *folder)
{
    return number_in(folder, "memory.limit_in_bytes");
}

/* Processors, rounded up: a quota of microseconds in a period. */
static uint64_t rounded(uint64_t quota, uint64_t period)
{
    if (period == 0 || quota > INT64_MAX || period > INT64_MAX)
        return UINT64_MAX;
    uint64_t n = (quota + period - 1) / period;
    return n > 0 ? n : 1;
}

static uint64_t cpu_two(const char *folder)
{
    char path[PATH_MAX * 2 + 64], line[64];
    uint64_t quota, period;
    (void)snprintf(path, sizeof(path), "%s/cpu.max", folder);
    if (!read_line(path, line, sizeof(line)) ||
        sscanf(line, "%" SCNu64 " %" SCNu64, &quota, &period) != 2)
        return UINT64_MAX;
    return rounded(quota, period);
}

static uint64_t cpu_one(const char *folder)
{
    /* A quota of -1, none, is read as the largest number. */
    return rounded(number_in(folder, "cpu.cfs_quota_us"), number_in(folder, "cpu.cfs_period_us"));
}

static uint64_t limit(const char *root, const char *groups, const char *controller,
                      const char *mount, reader *one, reader *two)
{
    char path[PATH_MAX];
    uint64_t a = UINT64_MAX, b = UINT64_MAX;
    if (group_of(groups, "", path, sizeof(path)))
        a = smallest(root, "", path, two);
    if (group_of(groups, controller, path, sizeof(path)))
        b = smallest(root, mount, path, one);
    return a < b ? a : b;
}

uint64_t cgroup_memory(const char *root, const char *groups)
{
    return limit(root, groups, "memory", "/memory", memory_one, memory_two);
}

unsigned cgroup_processors(const char *root, const char *groups)
{
    uint64_t n = limit(root, groups, "cpu", "/cpu", cpu_one, cpu_two);
    return n < UINT_MAX ? (unsigned)n : UINT_MAX;
}
