/* ADMIN: verbs on the namespace, a topic's settings, facts (steps 2 and 9).
 *
 * What changes something is a control action and is answered when it is committed; the rules of
 * who may do what are those of a filesystem. Answers in JSON are report.c's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "net/server/internal.h"

enum { STAGE_VERB = 20 }; /* walk.c uses the low ones */

#define ATTR_ALLOWED                                                                               \
    (MEDIA_A_MODE | MEDIA_A_ORDER | MEDIA_A_ACK | MEDIA_A_BYTES | MEDIA_A_AGE | MEDIA_A_FULL)

/* One ADMIN frame, taken apart. */
struct verb {
    struct wire_admin a;
    const char *path, *second;
    uint16_t path_length, second_length, flags;
    uint64_t value;
    char why[200]; /* a refusal's own sentence; empty: the code's */
};

static int say(struct verb *v, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int say(struct verb *v, int rc, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(v->why, sizeof(v->why), fmt, args);
    va_end(args);
    return rc;
}

static int check_ack(const struct conn *c, struct verb *v)
{
    if (v->a.ack == WIRE_ANY || v->a.ack <= c->worker->server->opt.ack_max)
        return 0;
    return say(v, -EMBAR_EACK,
               "ack 2 needs a replica and this broker has none: let the topic's ack be 1, or 0");
}

/* Submit what `c->ask` was filled with. */
static int submitted(struct conn *c)
{
    ask_submit(c);
    return 1;
}

static int do_create(struct conn *c, const struct wire_frame *f, struct verb *v)
{
    struct walked w;
    bool made;
    if (v->path_length == 0)
        return -EMBAR_ENAME;
    const struct making how = {.parents = v->flags & WIRE_A_PARENTS,
                               .directory = v->a.verb == WIRE_V_MKDIR,
                               .mode = le32_get(v->a.mode),
                               .order = v->a.order,
                               .ack = v->a.ack,
                               .policy = v->a.policy,
                               .keep_bytes = v->value,
                               .keep_age = le64_get(v->a.value2)};
    int rc = check_ack(c, v);
    if (rc == 0)
        rc = make_path(c, v->path, v->path_length, &how, &w, &made);
    if (rc == -ENOENT)
        return say(v, rc,
                   "a directory on the way does not exist; make it first, or together with this "
                   "(-p)");
    if (rc)
        return rc;
    if (!made)
        return -EEXIST;
    conn_ok(c, f, w.node.id);
    return 0;
}

static int do_remove(struct conn *c, struct verb *v)
{
    struct walked w;
    struct ask *a;
    int rc = walk(c, v->path, v->path_length, &w);
    if (rc == 0 && w.node.id == LOG_ROOT_ID)
        return say(v, -EBUSY, "the root directory cannot be removed; name what is in it");
    if (rc == 0)
        rc = may_take(c, &w.dir, &w.node);
    if (rc == 0)
        rc = ask_begin(c, STAGE_VERB, &a);
    if (rc)
        return rc;
    a->control.kind = MEDIA_C_REMOVE;
    a->control.id = w.node.id;
    return submitted(c);
}

/* `from` out of its directory, into `parent`, over `to` if that is there. */
static int may_rename(const struct conn *c, const struct walked *from,
                      const struct node_stat *parent, const struct node_stat *to)
{
    int rc = may_take(c, &from->dir, &from->node);
    if (rc == 0 && to)
        rc = may_take(c, parent, to);
    if (rc)
        return rc;
    /* A directory that gets another parent is itself changed. */
    bool moves = S_ISDIR(from->node.mode) && from->dir.id != parent->id;
    return may(c, parent, 3) && (!moves || may(c, &from->node, 2)) ? 0 : -EACCES;
}

static int do_rename(struct conn *c, struct verb *v)
{
    struct walked from, to;
    struct ask *a;
    int rc = walk(c, v->path, v->path_length, &from);
    if (rc)
        return rc;
    rc = walk(c, v->second, v->second_length, &to);
    if (rc == -ENOENT && to.name && to.more)
        return say(v, rc, "the directory for the new name does not exist; make it first");
    if (rc && (rc != -ENOENT || !to.name))
        return rc;
    /* Missing: `node` is the directory that shall hold it; found: `dir` does. */
    const struct node_stat *parent = rc ? &to.node : &to.dir;
    if (from.node.id == LOG_ROOT_ID)
        return say(v, -EBUSY, "the root directory cannot be renamed");
    if (v->second_length == 0 || !to.name)
        return say(v, -EBUSY, "the new name is the root directory; give a name in it");
    rc = may_rename(c, &from, parent, rc ? NULL : &to.node);
    if (rc == 0)
        rc = ask_begin(c, STAGE_VERB, &a);
    if (rc)
        return rc;
    a->control.kind = MEDIA_C_RENAME;
    a->control.id = from.node.id;
    a->control.parent = parent->id;
    memcpy(a->control.name, to.name, to.name_length);
    return submitted(c);
}

/* What the log says of a rename that cannot be, for people. */
static const char *rename_text(int rc)
{
    switch (-rc) {
    case EINVAL: return "a directory cannot be moved into itself or below itself";
    case EISDIR: return "the new name is a directory; give the name it shall have in there, too";
    case ENOTDIR: return "the new name is a topic, which a directory cannot replace";
    case ENOTEMPTY: return "the new name is a directory that is not empty; remove what is in it";
    default: return NULL;
    }
}

static int trim_to(struct topic *t, const struct node_stat *st, struct verb *v, uint64_t *at)
{
    int rc = 0;
    *at = v->value;
    switch (v->a.from) {
    case WIRE_FROM_EARLIEST: *at = st->base; break;
    case WIRE_FROM_LATEST: *at = st->end; break;
    case WIRE_FROM_OFFSET:
        if (v->value > topic_end(t))
            return say(v, -EMBAR_EINVALID,
                       "offset %" PRIu64 " is beyond the end of the topic, which is %" PRIu64,
                       v->value, topic_end(t));
        break;
    case WIRE_FROM_MESSAGE:
        rc = topic_seek_message(t, v->value, at);
        if (rc == -EMBAR_EINVALID)
            return say(v, rc,
                       "message %" PRIu64 " is beyond the end of the topic: the next one will have "
                       "number %" PRIu64,
                       v->value, st->messages);
        break;
    case WIRE_FROM_TIME: rc = topic_seek_time(t, v->value, at); break;
    default: return -EMBAR_EINVALID;
    }
    if (rc == -EMBAR_ETRIMMED) { /* it is gone already */
        *at = st->base;
        rc = 0;
    }
    return rc;
}

static int do_trim(struct conn *c, struct verb *v)
{
    struct walked w;
    struct ask *a;
    int rc = walk(c, v->path, v->path_length, &w);
    if (rc == 0 && S_ISDIR(w.node.mode))
        rc = -EISDIR;
    if (rc == 0 && !may(c, &w.node, 2))
        rc = -EACCES;
    if (rc)
        return rc;
    struct topic *t = log_topic(c->worker->log, w.node.id);
    if (!t)
        return -ENOENT;
    uint64_t at;
    rc = trim_to(t, &w.node, v, &at);
    topic_put(t);
    if (rc == 0)
        rc = ask_begin(c, STAGE_VERB, &a);
    if (rc)
        return rc;
    a->control.kind = MEDIA_C_TRIM;
    a->control.id = w.node.id;
    a->control.value = at;
    return submitted(c);
}

static int do_attr(struct conn *c, struct verb *v)
{
    struct walked w;
    struct ask *a;
    if (v->flags == 0 || (v->flags & ~ATTR_ALLOWED))
        return -EMBAR_EINVALID;
    int rc = v->flags & MEDIA_A_ACK ? check_ack(c, v) : 0;
    if (rc == 0)
        rc = walk(c, v->path, v->path_length, &w);
    if (rc == 0 && (v->flags & ~MEDIA_A_MODE) && !may(c, &w.node, 2))
        rc = -EACCES;
    if (rc == 0 && (v->flags & MEDIA_A_MODE) && !owns(c, &w.node))
        rc = -EPERM;
    if (rc == 0)
        rc = ask_begin(c, STAGE_VERB, &a);
    if (rc)
        return rc;
    a->control.kind = MEDIA_C_ATTR;
    a->control.id = w.node.id;
    a->control.flags = v->flags;
    a->control.mode = mode_given(c, &w.node, le32_get(v->a.mode));
    a->control.order = v->a.order;
    a->control.ack = v->a.ack;
    a->control.policy = v->a.policy;
    a->control.value = v->value;
    a->control.value2 = le64_get(v->a.value2);
    return submitted(c);
}

static int do_list(struct conn *c, const struct wire_frame *f, const struct verb *v)
{
    struct walked w;
    int rc = walk(c, v->path, v->path_length, &w);
    if (rc)
        return rc;
    if (!S_ISDIR(w.node.mode))
        return report_topic(c, f, &w.node);
    if (!may(c, &w.node, 5))
        return -EACCES;
    if (v->value > UINT32_MAX)
        return -EMBAR_EINVALID;
    return report_list(c, f, w.node.id, (uint32_t)v->value, v->flags & WIRE_A_DIRECTORIES);
}

static int do_stat(struct conn *c, const struct wire_frame *f, const struct verb *v)
{
    struct walked w;
    if (v->path_length == 0)
        return report_broker(c, f);
    int rc = walk(c, v->path, v->path_length, &w);
    return rc ? rc : report_topic(c, f, &w.node);
}

/* 0: answered, 1: asked the log, else an error. */
static int run(struct conn *c, const struct wire_frame *f, struct verb *v)
{
    switch (v->a.verb) {
    case WIRE_V_CREATE:
    case WIRE_V_MKDIR: return do_create(c, f, v);
    case WIRE_V_REMOVE: return do_remove(c, v);
    case WIRE_V_RENAME: return do_rename(c, v);
    case WIRE_V_TRIM: return do_trim(c, v);
    case WIRE_V_ATTR: return do_attr(c, v);
    case WIRE_V_LIST: return do_list(c, f, v);
    case WIRE_V_STAT: return do_stat(c, f, v);
    case WIRE_V_SESSION: return report_session(c, f, v->value);
    default: return -EMBAR_EINVALID;
    }
}

enum turn admin_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body)
{
    struct verb v = {.path = NULL};
    uint32_t length = le32_get(f->length);
    if (length < sizeof(v.a)) {
        conn_fail(c, -EMBAR_EPROTO, "an ADMIN of the wrong size");
        return TURN_WAIT;
    }
    memcpy(&v.a, body, sizeof(v.a));
    v.path_length = le16_get(v.a.path);
    v.second_length = le16_get(v.a.second);
    v.path = (const char *)body + sizeof(v.a);
    v.second = v.path + v.path_length;
    v.flags = le16_get(v.a.flags);
    v.value = le64_get(v.a.value);
    if (length != sizeof(v.a) + (uint32_t)v.path_length + v.second_length) {
        conn_fail(c, -EMBAR_EPROTO, "an ADMIN whose paths do not fill it");
        return TURN_WAIT;
    }
    int rc;
    bool asked = c->ask && c->ask->stage == STAGE_VERB;
    if (asked) {
        const struct commit *r = &c->ask->result;
        rc = r->status;
        if (rc == 0)
            conn_ok_two(c, f, v.a.verb == WIRE_V_TRIM ? r->offset : r->id, r->bytes);
    } else {
        rc = run(c, f, &v);
    }
    if (rc == 1)
        return TURN_WAIT;
    ask_end(c);
    if (rc) {
        const char *text = v.why[0] ? v.why : NULL;
        if (!text && v.a.verb == WIRE_V_RENAME && asked)
            text = rename_text(rc);
        conn_refuse(c, f, rc, text);
    }
    return TURN_NEXT;
}
