/* What is mounted where, by the table of mounts: for who names a mount and means its pool, or names a pool
 * that is mounted. Serves no step of a batch. Must never look into a mount, whose daemon may not answer.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "net/cmd/cmd.h"
#include "net/mounts.h"

/* The mount that a path is: a dead one cannot be resolved, and is named as the table does. */
static bool is_at(const struct mntent *m, const char *path)
{
    size_t n = strlen(path);
    char real[PATH_MAX];
    if (realpath(path, real))
        return strcmp(m->mnt_dir, real) == 0;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return strlen(m->mnt_dir) == n && strncmp(m->mnt_dir, path, n) == 0;
}

struct refused {
    const char *spec;
    int rc;
    struct embar_error *err;
};

static bool explain(const struct mntent *m, const void *arg)
{
    const struct refused *r = arg;
    if (r->rc != -EMBAR_EBUSY && is_at(m, r->spec)) {
        (void)embar_fail(r->err, r->rc,
                         "%s is a mount of the pool %s: unmount it (fusermount3 -u %s) and "
                         "name the pool.",
                         r->spec, m->mnt_fsname, m->mnt_dir);
        return true;
    }
    if (r->rc == -EMBAR_EBUSY && mounts_same(m->mnt_fsname, r->spec)) {
        (void)embar_fail(r->err, r->rc,
                         "%s is in use, it is mounted at %s: unmount it first (fusermount3 -u "
                         "%s).",
                         r->spec, m->mnt_dir, m->mnt_dir);
        return true;
    }
    return false;
}

int mounted_explain(const char *spec, int rc, struct embar_error *err)
{
    const struct refused r = {spec, rc, err};
    if (rc && spec)
        (void)mounts_any(explain, &r);
    return rc;
}
