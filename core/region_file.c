/* Regions in files: fsdax, tmpfs and ordinary ones. Before step 1. Must never leave a file behind
 * that it made and could not fill, never make a sparse one (a store into a hole of a full disk is
 * SIGBUS), and never change a file that is not a pool.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libpmem2.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/pool.h"
#include "core/region_kinds.h"

#define DEFAULT_SIZE (1ull << 30)

/* Give every block of the file its space. Reads as zeros where nothing stood. */
static int allocate(int fd, uint64_t size)
{
    int rc;
    do
        rc = posix_fallocate(fd, 0, (off_t)size);
    while (rc == EINTR);
    return -rc;
}

static int allocate_failed(struct region *r, int code, uint64_t size, struct embar_error *err)
{
    char text[32];
    return embar_fail(err, code, "making the pool file %s of %s", r->spec, size_text(size, text));
}

static int check_size(const struct region *r, uint64_t size, struct embar_error *err)
{
    char text[32];
    if (size < POOL_MIN_SIZE)
        return embar_fail(err, -EMBAR_ETOOSMALL, "%s: %s", r->spec, size_text(size, text));
    if (size > INT64_MAX)
        return embar_fail(err, -EFBIG, "%s: %s", r->spec, size_text(size, text));
    return 0;
}

/* Pools are whole pages; a size that is not is taken up to the next, when made and when compared. */
static uint64_t whole_pages(uint64_t size)
{
    return size > INT64_MAX ? size : (size + MEDIA_PAGE - 1) & ~(uint64_t)(MEDIA_PAGE - 1);
}

static int make_file(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    uint64_t size = opt->size;
    if (size == 0 && !opt->spec)
        size = DEFAULT_SIZE;
    if (size == 0)
        return embar_fail(err, -ENOENT,
                          "%s does not exist: give --size to make a pool there, or check the path.",
                          r->spec);
    size = whole_pages(size);
    int rc = check_size(r, size, err);
    if (rc)
        return rc;
    r->fd = open(r->spec, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (r->fd < 0)
        return embar_fail(err, -errno, "making the pool file %s", r->spec);
    /* From here on a failure removes the file (region_open does). */
    r->created = true;
    r->size = size;
    rc = allocate(r->fd, size);
    return rc ? allocate_failed(r, rc, size, err) : 0;
}

/* A file that is there: its size rules, and only an empty one may be given another. */
static int use_file(struct region *r, const struct region_options *opt, const struct stat *st,
                    struct embar_error *err)
{
    uint64_t size = (uint64_t)st->st_size;
    if (size == 0 && opt->create && !opt->readonly && opt->size > 0) {
        size = whole_pages(opt->size);
        int rc = check_size(r, size, err);
        if (rc)
            return rc;
        rc = allocate(r->fd, size);
        if (rc) {
            if (ftruncate(r->fd, 0) < 0)
                return allocate_failed(r, -errno, size, err);
            return allocate_failed(r, rc, size, err);
        }
        r->size = size;
        return 0;
    }
    if (size == 0)
        return embar_fail(
            err, -EMBAR_ENOTPOOL,
            opt->create && !opt->readonly
                ? "%s is an empty file, not a pool: give --size to make a pool in it."
                : "%s is an empty file, not a pool: check the path, or make a pool in "
                  "it with `embar pool create --size`.",
            r->spec);
    int rc = pool_check_length(r, size, err);
    if (rc)
        return rc;
    char is[32];
    char asked[32];
    if (opt->size > 0 && whole_pages(opt->size) != size)
        return embar_fail(err, -EMBAR_ESIZE,
                          "%s has %s, --size says %s: leave --size out to use what is there, or "
                          "name a new file to make a pool of that size.",
                          r->spec, size_text(size, is), size_text(opt->size, asked));
    if (size < POOL_MIN_SIZE)
        return embar_fail(err, -EMBAR_ENOTPOOL,
                          "%s is not a pool: with %s it is too small for one; nothing was changed.",
                          r->spec, size_text(size, is));
    rc = check_size(r, size, err);
    if (rc)
        return rc;
    if (size % MEDIA_PAGE != 0)
        return embar_fail(err, -EMBAR_ENOTPOOL,
                          "%s is not a pool: its size of %" PRIu64 " bytes is not a whole number "
                          "of pages; nothing was changed.",
                          r->spec, size);
    r->size = size;
    return 0;
}

/* Holes are filled before the first store can hit one; a foreign file is left as it is. */
static int fill_holes(struct region *r, const struct stat *st, struct embar_error *err)
{
    if (r->readonly || r->created || (uint64_t)st->st_blocks * 512 >= r->size)
        return 0;
    struct pool pool;
    if (pool_attach(&pool, r, NULL) != 0 && !pool_is_blank(r))
        return 0;
    int rc = allocate(r->fd, r->size);
    return rc ? embar_fail(err, rc, "filling the holes of the sparse pool file %s", r->spec) : 0;
}

int region_open_file(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    r->kind = REGION_FILE;
    /* O_NONBLOCK: a FIFO must be refused, not waited for. */
    int flags = (opt->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;
    r->fd = open(r->spec, flags);
    int rc;
    struct stat st;
    if (r->fd < 0) {
        if (errno == EISDIR)
            return embar_fail(err, -EISDIR, "%s", r->spec);
        if (errno != ENOENT)
            return embar_fail(err, -errno, "opening the pool %s", r->spec);
        if (!opt->create || opt->readonly)
            return embar_fail(err, -ENOENT,
                              "there is no pool %s: check the path, or make one with `embar pool "
                              "create %s --size 1G`.",
                              r->spec, r->spec);
        rc = make_file(r, opt, err);
        if (rc)
            return rc;
        if (fstat(r->fd, &st) < 0)
            return embar_fail(err, -errno, "%s", r->spec);
    } else {
        if (fstat(r->fd, &st) < 0)
            return embar_fail(err, -errno, "%s", r->spec);
        if (S_ISDIR(st.st_mode))
            return embar_fail(err, -EISDIR, "%s", r->spec);
        if (!S_ISREG(st.st_mode))
            return embar_fail(err, -EMBAR_ESPEC,
                              "%s is neither a file nor a dax device; put a pool on a filesystem "
                              "instead.",
                              r->spec);
        if (opt->exclusive)
            return embar_fail(err, -EEXIST,
                              "%s exists already and was not changed: name another file, or remove "
                              "it first.",
                              r->spec);
        rc = use_file(r, opt, &st, err);
        if (rc)
            return rc;
    }
    rc = region_map_fd(r, err);
    if (rc)
        return rc;
    struct statfs fs;
    bool memory = fstatfs(r->fd, &fs) == 0 && ((unsigned long)fs.f_type == TMPFS_MAGIC ||
                                               (unsigned long)fs.f_type == RAMFS_MAGIC);
    bool pages = pmem2_map_get_store_granularity(r->backing->map) == PMEM2_GRANULARITY_PAGE;
    r->needs_sync = pages && !memory;
    r->can_machine = !memory;
    r->persistence = memory ? REGION_VOLATILE : REGION_PERSISTENT;
    return fill_holes(r, &st, err);
}
