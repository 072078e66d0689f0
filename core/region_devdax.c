/* Regions on a devdax device. Before step 1. Must never trust the device's size that stat tells
 * (it is 0) nor write anything to a device by opening it.
 *
 * The device is mapped here and not by libpmem2, which asks libndctl about every device and crashes
 * on one that is not under a persistent-memory region, such as soft-reserved memory (1.12, seen).
 * It still supplies the cache-line functions, for a mapping of cache-line granularity: also where
 * the caches are persistent themselves, for a pool may be shared with a host that does not see them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libpmem2.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "core/dax.h"
#include "core/pool.h"
#include "core/region_kinds.h"

#define BIND_TRIES    100
#define BIND_PAUSE_NS 20000000l /* 100 x 20 ms: the driver binds within half a second as a rule */

/* Where sysfs has the device. False: path is no character device of the dax subsystem. */
static bool find_folder(const char *path, char folder[64])
{
    struct stat st;
    char subsystem[32];
    if (stat(path, &st) < 0 || !S_ISCHR(st.st_mode))
        return false;
    snprintf(folder, 64, "/sys/dev/char/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    sysfs_link(subsystem, sizeof(subsystem), "%s/subsystem", folder);
    return strcmp(subsystem, "dax") == 0;
}

static int not_bound(const struct region *r, const struct dax_facts *f, struct embar_error *err)
{
    if (strcmp(f->driver, "kmem") == 0 && f->node >= 0)
        return embar_fail(
            err, -EBUSY,
            "%s is in use as system memory (NUMA node %d): use --cxl node:%d, or give "
            "it back with `daxctl reconfigure-device -f -m devdax %s`.",
            r->spec, f->node, f->node, f->name);
    if (strcmp(f->driver, "kmem") == 0)
        return embar_fail(err, -EBUSY,
                          "%s is in use as system memory: give it back with `daxctl "
                          "reconfigure-device -f -m devdax %s`.",
                          r->spec, f->name);
    return embar_fail(
        err, -ENXIO,
        "no driver answers for the device %s: load device_dax (`modprobe device_dax`) "
        "and bind it with `daxctl enable-device %s`.",
        r->spec, f->name);
}

/* The device node is there before its driver is. */
static int open_bound(struct region *r, const char *folder, int flags, struct embar_error *err)
{
    struct dax_facts f;
    for (int i = 0;; i++) {
        r->fd = open(r->spec, flags);
        if (r->fd >= 0)
            return 0;
        if (errno != ENXIO)
            return embar_fail(err, -errno, "opening the device %s", r->spec);
        int rc = dax_look(folder, &f);
        if (rc)
            return embar_fail(err, -ENXIO, "opening the device %s", r->spec);
        /* Another driver has it: this one will not come. */
        if (i == BIND_TRIES || (*f.driver && strcmp(f.driver, "device_dax") != 0))
            return not_bound(r, &f, err);
        const struct timespec pause = {.tv_nsec = BIND_PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
}

static int check_size(struct region *r, const struct region_options *opt, const struct dax_facts *f,
                      struct embar_error *err)
{
    char is[32];
    char asked[32];
    r->size = f->size;
    if (opt->size > 0 && opt->size != r->size)
        return embar_fail(err, -EMBAR_ESIZE,
                          "%s has %s, --size says %s: leave --size out for a device.", r->spec,
                          size_text(r->size, is), size_text(opt->size, asked));
    if (r->size < POOL_MIN_SIZE)
        return embar_fail(err, -EMBAR_ETOOSMALL,
                          "%s has %s, and a pool takes at least 4 MiB: give the device more with "
                          "`daxctl reconfigure-device -s`, or use another.",
                          r->spec, size_text(r->size, is));
    if (r->size % f->align != 0)
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s has %s, which is not a multiple of its alignment of %s: reconfigure "
                          "it with `daxctl reconfigure-device`.",
                          r->spec, size_text(r->size, is), size_text(f->align, asked));
    return 0;
}

/* The kernel picks an address of the device's alignment. */
static int map_device(struct region *r, struct embar_error *err)
{
    int prot = r->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    char *base = mmap(NULL, r->size, prot, MAP_SHARED, r->fd, 0);
    if (base == MAP_FAILED)
        return embar_fail(err, -errno, "mapping the device %s", r->spec);
    r->base = base;
    r->backing->mapped = r->size;
    struct pmem2_source *source = NULL;
    int rc = pmem2_source_from_anon(&source, r->size);
    if (rc == 0)
        rc = pmem2_map_from_existing(&r->backing->map, source, base, r->size,
                                     PMEM2_GRANULARITY_CACHE_LINE);
    if (source)
        (void)pmem2_source_delete(&source);
    return rc ? embar_fail(err, -ENOMEM, "preparing the device %s (%s)", r->spec, pmem2_errormsg())
              : 0;
}

int region_open_devdax(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    char folder[64];
    r->kind = REGION_DEVDAX;
    if (access(r->spec, F_OK) < 0)
        return errno == ENOENT
                   ? embar_fail(
                         err, -ENOENT,
                         "there is no device %s: see `embar devices` for those there are, and "
                         "that its module is loaded (`modprobe device_dax`).",
                         r->spec)
                   : embar_fail(err, -errno, "opening the device %s", r->spec);
    if (!find_folder(r->spec, folder))
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s is not a dax device: name /dev/daxX.Y, a file or mem:SIZE.", r->spec);
    int rc =
        open_bound(r, folder, (opt->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK, err);
    if (rc)
        return rc;
    struct dax_facts f;
    rc = dax_look(folder, &f);
    if (rc)
        return embar_fail(err, rc, "reading the size of the device %s", r->spec);
    rc = check_size(r, opt, &f, err);
    if (rc == 0)
        rc = map_device(r, err);
    if (rc)
        return rc;
    r->align = f.align;
    r->persistence = f.persistence;
    r->can_machine = f.persistence != REGION_VOLATILE;
    /* "Make a pool here" on a device means one that holds nothing. */
    if (opt->exclusive && !pool_is_blank(r))
        return embar_fail(err, -EEXIST,
                          "%s holds data already and was not changed: `embar pool erase %s` clears "
                          "it if nobody needs it.",
                          r->spec, r->spec);
    return 0;
}
