/* Opening a pool without a daemon, for append and dump. Serves no step of a batch itself.
 * Must never make a pool where there was none, nor write when it is to read.
 */
#include "net/cmd/pool_topic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/cmd/cmd.h"
#include "net/mounts.h"

void pool_topic_close(struct pool_topic *pt)
{
    if (pt->topic)
        topic_put(pt->topic);
    if (pt->log)
        log_close(pt->log);
    region_close(&pt->region);
    memset(pt, 0, sizeof(*pt));
}

/* Make one component below `parent`: a topic when it is the last, else a directory. */
static int make(struct log *log, uint32_t parent, const char *name, size_t length, bool last,
                uint32_t *id)
{
    struct control c = {
        .kind = last ? MEDIA_C_CREATE : MEDIA_C_MKDIR,
        .parent = parent,
        .mode = last ? 0644 : 0755,
        .uid = geteuid(),
        .gid = getegid(),
        .order = 5,
        .ack = 1,
    };
    struct commit done = {.id = 0};
    memcpy(c.name, name, length);
    int rc = log_control_wait(log, &c, &done);
    *id = done.id;
    return rc;
}

/* Walk the path, making what is missing. */
static int find_or_make(struct log *log, const char *path, uint32_t *id, struct embar_error *err)
{
    uint32_t at = LOG_ROOT_ID;
    const char *p = path + (*path == '/');
    int rc = path_check(path, strlen(path)); /* none is made where another cannot be */
    if (rc)
        return embar_fail(err, rc, "\"%s\"", path);
    for (;;) {
        size_t n = strcspn(p, "/");
        bool last = p[n] == '\0';
        struct node_stat st;
        if (at == LOG_ROOT_ID && n == 6 && memcmp(p, ".embar", 6) == 0)
            rc = -EMBAR_ERESERVED;
        if (rc == 0) {
            rc = log_lookup(log, at, p, n, &st);
            if (rc == 0)
                at = st.id;
            else if (rc == -ENOENT)
                rc = make(log, at, p, n, last, &at);
        }
        if (rc < 0)
            return embar_fail(err, rc, "\"%s\"", path);
        if (last)
            break;
        p += n + 1;
    }
    *id = at;
    return 0;
}

int pool_topic_open(struct pool_topic *pt, const char *name, const char *spec, const char *path,
                    bool readonly, struct embar_error *err)
{
    memset(pt, 0, sizeof(*pt));
    struct region_options ro = {.spec = spec, .readonly = readonly, .durability = -1};
    int rc = region_open(&pt->region, &ro, err);
    if (rc < 0)
        return mounted_explain(spec, rc, err);
    if (pool_is_blank(&pt->region)) {
        rc = embar_fail(err, -EMBAR_ENOTPOOL,
                        "%s is blank: make a pool of it first (embar pool create).", spec);
    } else {
        struct log_options lo = {.region = &pt->region, .readonly = readonly};
        struct mounts_wait wait = {0};
        while ((rc = log_open(&pt->log, &lo, err)) == -EMBAR_EBUSY && !readonly &&
               held_wait(&wait, name, &pt->region, err))
            ;
        rc = mounted_explain(spec, rc, err);
    }
    uint32_t id = 0;
    struct node_stat st;
    if (rc == 0 && readonly) {
        rc = log_resolve(pt->log, path, &st);
        id = st.id;
        if (rc < 0)
            (void)embar_fail(err, rc, "The pool %s has no topic \"%s\"", spec, path);
    } else if (rc == 0) {
        rc = find_or_make(pt->log, path, &id, err);
    }
    if (rc == 0 && log_stat(pt->log, id, &st) == 0 && S_ISDIR(st.mode))
        rc = embar_fail(err, -EISDIR, "\"%s\" is a directory of topics: name a topic.", path);
    if (rc == 0) {
        pt->topic = log_topic(pt->log, id);
        if (!pt->topic)
            rc = embar_fail(err, -ENOENT, "The pool %s has no topic \"%s\"", spec, path);
    }
    if (rc < 0)
        pool_topic_close(pt);
    return rc;
}
