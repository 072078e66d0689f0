/* What is mounted where, by the table of mounts: for who names a mount and means its pool, or names a pool
 * that is mounted. Serves no step of a batch. Must never look into a mount, whose daemon may not answer.
 */
#include <errno.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/region.h"
#include "net/cmd/cmd.h"

static bool is_same(const char *a, const char *b)
{
    char x[PATH_MAX], y[PATH_MAX];
    if (strcmp(a, b) == 0)
        return true;
    return *a == '/' && realpath(a, x) && realpath(b, y) && strcmp(x, y) == 0;
}

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

int mounted_explain(const char *spec, int rc, struct embar_error *err)
{
    FILE *table = rc && spec ? setmntent("/proc/self/mounts", "re") : NULL;
    struct mntent m;
    char buf[3 * PATH_MAX];
    while (table && getmntent_r(table, &m, buf, sizeof(buf))) {
        if (strcmp(m.mnt_type, "fuse.embarfs") != 0)
            continue;
        if (rc != -EMBAR_EBUSY && is_at(&m, spec)) {
            (void)embar_fail(err, rc,
                             "%s is a mount of the pool %s: unmount it (fusermount3 -u %s) and "
                             "name the pool.",
                             spec, m.mnt_fsname, m.mnt_dir);
            break;
        }
        if (rc == -EMBAR_EBUSY && is_same(m.mnt_fsname, spec)) {
            (void)embar_fail(err, rc,
                             "%s is in use, it is mounted at %s: unmount it first (fusermount3 -u "
                             "%s).",
                             spec, m.mnt_dir, m.mnt_dir);
            break;
        }
    }
    if (table)
        endmntent(table);
    return rc;
}
