/* What sysfs says of dax devices (see dax.h). Before step 1. Must never take a guess for a fact: what
 * the kernel does not say is unknown.
 */
#include "core/dax.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int sysfs_text(char *text, size_t size, const char *fmt, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(path, sizeof(path), fmt, args);
    va_end(args);
    text[0] = '\0';
    if (length < 0 || (size_t)length >= sizeof(path))
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, size - 1);
    int rc = n < 0 ? -errno : 0;
    (void)close(fd);
    text[n < 0 ? 0 : n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return rc;
}

void sysfs_link(char *text, size_t size, const char *fmt, ...)
{
    char path[PATH_MAX];
    char target[PATH_MAX];
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(path, sizeof(path), fmt, args);
    va_end(args);
    text[0] = '\0';
    if (length < 0 || (size_t)length >= sizeof(path))
        return;
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    if (n <= 0)
        return;
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    snprintf(text, size, "%s", slash ? slash + 1 : target);
}

const char *persistence_name(enum region_persistence persistence)
{
    switch (persistence) {
    case REGION_PERSISTENT: return "persistent";
    case REGION_VOLATILE: return "volatile";
    case REGION_UNKNOWN:
    default: return "unknown";
    }
}

/* The end of the first component of path that is `word` and a number, or NULL. */
static const char *numbered(const char *path, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = path; (at = strstr(at, word)); at += n) {
        const char *end = at + n;
        while (isdigit((unsigned char)*end))
            end++;
        if (at > path && at[-1] == '/' && end > at + n && (*end == '/' || *end == '\0'))
            return end;
    }
    return NULL;
}

static void say(struct dax_facts *f, enum region_persistence persistence, const char *source)
{
    f->persistence = persistence;
    snprintf(f->source, sizeof(f->source), "%s", source);
}

/* A region of the kernel's persistent-memory subsystem, at path[0, n). */
static void judge_nd(struct dax_facts *f, const char *path, int n)
{
    char text[32];
    (void)sysfs_text(text, sizeof(text), "%.*s/devtype", n, path);
    if (strcmp(text, "nd_volatile") == 0) {
        say(f, REGION_VOLATILE, "a region of volatile memory");
    } else if (strstr(path, "/virtio")) {
        /* Its lines reach the host's page cache; only a request to the host makes them durable. */
        say(f, REGION_UNKNOWN, "virtio-pmem: durable only when its host writes it back");
    } else {
        bool cxl = strstr(path, "/nvdimm-bridge") != NULL;
        (void)sysfs_text(text, sizeof(text), "%.*s/persistence_domain", n, path);
        f->persistence = REGION_PERSISTENT;
        snprintf(f->source, sizeof(f->source), "%s%s%.40s", cxl ? "CXL" : "a region of",
                 " persistent memory, persistence domain ", *text ? text : "not told");
    }
}

/* The device's real place in the tree of devices says which subsystem made it. */
static void judge(struct dax_facts *f, const char *path)
{
    const char *bus = numbered(path, "ndbus");
    const char *region = bus ? numbered(bus, "region") : NULL;
    if (region) {
        judge_nd(f, path, (int)(region - path));
        return;
    }
    const char *dax_region = numbered(path, "dax_region");
    if (dax_region) {
        /* .../decoder0.0/region0/dax_region0/dax0.0: the CXL region tells its mode. */
        const char *end = dax_region;
        do
            end--;
        while (end > path && *end != '/');
        char mode[16];
        (void)sysfs_text(mode, sizeof(mode), "%.*s/mode", (int)(end - path), path);
        if (strcmp(mode, "pmem") == 0)
            say(f, REGION_PERSISTENT, "CXL persistent memory");
        else if (strcmp(mode, "ram") == 0)
            say(f, REGION_VOLATILE, "CXL volatile memory");
        else
            say(f, REGION_UNKNOWN, "a CXL region that does not tell its mode");
        return;
    }
    if (strstr(path, "/hmem"))
        say(f, REGION_UNKNOWN, "soft-reserved memory: the firmware does not say what it is");
    else
        say(f, REGION_UNKNOWN, "the system does not say");
}

static bool power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

int dax_look(const char *folder, struct dax_facts *f)
{
    *f = (struct dax_facts){.node = -1};
    char *path = realpath(folder, NULL);
    if (!path)
        return -errno;
    snprintf(f->name, sizeof(f->name), "%.31s", strrchr(path, '/') + 1);
    char text[64];
    int rc = sysfs_text(text, sizeof(text), "%s/size", path);
    if (rc == 0 && size_parse(text, &f->size) != 0)
        rc = -EIO;
    if (rc == 0 && sysfs_text(text, sizeof(text), "%s/align", path) != 0)
        f->align = 2u << 20; /* kernels before 5.10 do not tell: it is this unless set otherwise */
    else if (rc == 0 && (size_parse(text, &f->align) != 0 || !power_of_two(f->align)))
        rc = -EIO;
    if (rc == 0 && sysfs_text(text, sizeof(text), "%s/target_node", path) == 0) {
        char *end;
        long node = strtol(text, &end, 10);
        f->node = *text && !*end && node >= 0 && node < 65536 ? (int)node : -1;
    }
    sysfs_link(f->driver, sizeof(f->driver), "%s/driver", path);
    judge(f, path);
    free(path);
    return rc;
}
