/* Regions on a devdax device. Before step 1. Must never trust the device's size that stat tells
 * (it is 0) nor write anything to a device by opening it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "core/pool.h"
#include "core/region_kinds.h"

#define ALIGNMENT     (2ull << 20)
#define BIND_TRIES    100
#define BIND_PAUSE_NS 20000000l /* 100 x 20 ms: the driver binds within half a second as a rule */

/* The device node is there before its driver is. */
static int open_bound(const char *path, int flags)
{
    for (int i = 0;; i++) {
        int fd = open(path, flags);
        if (fd >= 0)
            return fd;
        if (errno != ENXIO || i == BIND_TRIES)
            return -errno;
        const struct timespec pause = {.tv_nsec = BIND_PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
}

/* "dax", and not a terminal or /dev/zero. */
static bool is_dax(dev_t device)
{
    char link[96];
    char target[512];
    snprintf(link, sizeof(link), "/sys/dev/char/%u:%u/subsystem", major(device), minor(device));
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    const char *name = strrchr(target, '/');
    return strcmp(name ? name + 1 : target, "dax") == 0;
}

static int device_size(dev_t device, uint64_t *size)
{
    char path[96];
    char text[32] = "";
    snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/size", major(device), minor(device));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    int rc = n < 0 ? -errno : 0;
    (void)close(fd);
    if (rc)
        return rc;
    text[strcspn(text, "\n")] = '\0';
    return size_parse(text, size) == 0 ? 0 : -EIO;
}

int region_open_devdax(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    r->kind = REGION_DEVDAX;
    /* Opening for writing is what mapping for writing needs; devdax has no shared read-only map
     * of a write-only node to worry about. */
    int fd = open_bound(r->spec, (opt->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (fd == -ENOENT)
        return embar_fail(err, fd,
                          "there is no device %s: check its name with `daxctl list`, and that the "
                          "device_dax module is loaded.",
                          r->spec);
    if (fd < 0)
        return embar_fail(err, fd, "opening the device %s", r->spec);
    r->fd = fd;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return embar_fail(err, -errno, "%s", r->spec);
    if (!S_ISCHR(st.st_mode) || !is_dax(st.st_rdev))
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s is not a dax device: name /dev/daxX.Y, a file or mem:SIZE.", r->spec);
    int rc = device_size(st.st_rdev, &r->size);
    if (rc)
        return embar_fail(err, rc, "reading the size of the device %s", r->spec);
    char is[32];
    char asked[32];
    if (opt->size > 0 && opt->size != r->size)
        return embar_fail(err, -EMBAR_ESIZE,
                          "%s has %s, --size says %s: leave --size out for a device.", r->spec,
                          size_text(r->size, is), size_text(opt->size, asked));
    if (r->size < POOL_MIN_SIZE)
        return embar_fail(err, -EMBAR_ETOOSMALL, "%s: %s", r->spec, size_text(r->size, is));
    if (r->size % ALIGNMENT != 0)
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s has %s, which is not a multiple of 2 MiB: reconfigure it with "
                          "`daxctl reconfigure-device`.",
                          r->spec, size_text(r->size, is));
    if (opt->exclusive) {
        /* "Make a pool here" on a device means one that holds nothing: checked once mapped. */
        rc = region_map_fd(r, err);
        if (rc == 0 && !pool_is_blank(r))
            rc = embar_fail(err, -EEXIST,
                            "%s holds data already and was not changed: clear it first if nobody "
                            "needs it.",
                            r->spec);
    } else {
        rc = region_map_fd(r, err);
    }
    r->can_machine = true;
    return rc;
}
