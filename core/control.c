/* Control actions: is one lawful now, and how it stands on the media (steps 7 and 8).
 *
 * Validation is the sequencer's: between it and the fold of the action nothing else is folded, so
 * what was lawful stays lawful. Changes nothing but the action itself.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log_state.h"

/* Bytes that the longest path below d adds to d's own. At most MEDIA_MAX_PATH / 2 deep. */
static size_t path_below(struct names *n, const struct topic *d)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < d->child_count; i++) {
        const struct topic *t = names_id(n, d->children[i]);
        size_t length = t ? 1u + t->name_length + path_below(n, t) : 0;
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* May a node that reaches `below` bytes further be called c->name in directory c->parent? */
static int validate_place(struct log *log, const struct control *c, size_t below,
                          struct topic **parent)
{
    struct names *n = &log->names;
    size_t length = strnlen(c->name, sizeof c->name);
    int rc = name_check(c->name, length);
    if (rc)
        return rc;
    if (c->parent == LOG_ROOT_ID && strcmp(c->name, ".embar") == 0)
        return -EMBAR_ERESERVED;
    struct topic *d = names_id(n, c->parent);
    if (!d || topic_deleted(d))
        return -ENOENT;
    if (!names_is_dir(d))
        return -ENOTDIR;
    size_t path = length + below;
    for (const struct topic *up = d; up && up->id != LOG_ROOT_ID; up = names_id(n, up->key.parent))
        path += up->name_length + 1u;
    if (path > MEDIA_MAX_PATH)
        return -ENAMETOOLONG;
    *parent = d;
    return 0;
}

static int validate_create(struct log *log, struct control *c)
{
    struct names *n = &log->names;
    struct topic *parent;
    int rc = validate_place(log, c, 0, &parent);
    if (rc)
        return rc;
    struct topic *there = names_child(n, c->parent, c->name, strlen(c->name));
    if (there) {
        c->id = there->id;
        return -EEXIST;
    }
    if (n->topics + n->directories >= n->limit || n->next_id == UINT32_MAX)
        return -EMBAR_ELIMIT;
    if (c->kind == MEDIA_C_CREATE && c->order != 0 && c->order != 2 && c->order != 5)
        return -EMBAR_EINVALID;
    if (c->ack > 2 || c->policy > 1)
        return -EMBAR_EINVALID;
    c->id = n->next_id;
    /* A directory with the set-group-id bit hands its group down. */
    if (parent->mode & S_ISGID) {
        c->gid = parent->gid;
        c->mode |= c->kind == MEDIA_C_MKDIR ? (unsigned)S_ISGID : 0u;
    }
    c->mode = (c->mode & 07777u) | (c->kind == MEDIA_C_MKDIR ? S_IFDIR : S_IFREG);
    c->time = now_realtime();
    return 0;
}

static int validate_remove(const struct topic *t)
{
    if (t->id == LOG_ROOT_ID)
        return -EBUSY;
    return names_is_dir(t) && t->child_count > 0 ? -ENOTEMPTY : 0;
}

static int validate_rename(struct log *log, struct control *c, const struct topic *t)
{
    struct names *n = &log->names;
    struct topic *parent;
    c->time = now_realtime();
    if (t->id == LOG_ROOT_ID)
        return -EBUSY;
    int rc = validate_place(log, c, path_below(n, t), &parent);
    if (rc)
        return rc;
    for (const struct topic *up = parent; up; up = names_id(n, up->key.parent))
        if (up == t)
            return -EINVAL; /* into itself */
    const struct topic *there = names_child(n, c->parent, c->name, strlen(c->name));
    if (there == t)
        return c->flags & LOG_RENAME_NOREPLACE ? -EEXIST : 1;
    c->value = 0;
    if (!there)
        return 0;
    if (c->flags & LOG_RENAME_NOREPLACE)
        return -EEXIST;
    if (names_is_dir(there) != names_is_dir(t))
        return names_is_dir(there) ? -EISDIR : -ENOTDIR;
    /* What holds data is not overwritten: sed -i and its like would lose what was appended since
     * they read it. Who means to remove it says so. */
    if (topic_end(there) > topic_base(there))
        return -EPERM;
    c->value = there->id;
    return validate_remove(there);
}

int control_attr(const struct topic *t, struct control *c)
{
    c->altered = now_realtime();
    if ((c->flags & (MEDIA_A_ORDER | MEDIA_A_ACK | MEDIA_A_BYTES | MEDIA_A_AGE | MEDIA_A_FULL)) &&
        names_is_dir(t))
        return -EISDIR;
    if ((c->flags & MEDIA_A_ORDER) && c->order != 0 && c->order != 2 && c->order != 5)
        return -EMBAR_EINVALID;
    if (((c->flags & MEDIA_A_ACK) && c->ack > 2) || ((c->flags & MEDIA_A_FULL) && c->policy > 1))
        return -EMBAR_EINVALID;
    return 0;
}

static int validate_trim(struct topic *t, struct control *c)
{
    if (names_is_dir(t))
        return -EISDIR;
    if (c->value > topic_end(t))
        return -EMBAR_EINVALID;
    uint64_t at, message;
    int rc = topic_boundary(t, c->value, &at, &message);
    if (rc)
        return rc;
    c->value = at;
    c->value2 = message;
    c->altered = now_realtime();
    c->end = topic_end(t);
    c->messages = t->last_message_end;
    return at <= topic_base(t) ? 1 : 0;
}

static int validate_session(struct log *log, struct control *c)
{
    if (c->kind == MEDIA_C_OPEN) {
        c->time = now_realtime();
        return session_room(log, c->uid);
    }
    struct session *s = session_find(log, c->value);
    if (!s)
        return -EMBAR_ESESSION;
    uint32_t step = c->taken ? (1u << LOG_EPOCH_GAPS) - s->epoch % (1u << LOG_EPOCH_GAPS) : 1;
    if (s->epoch > UINT32_MAX - step && c->kind == MEDIA_C_FENCE)
        return -EMBAR_ELIMIT;
    c->epoch = s->epoch + step;
    return 0;
}

int control_validate(struct log *log, struct control *c)
{
    struct topic *t = NULL;
    switch (c->kind) {
    case MEDIA_C_REMOVE:
    case MEDIA_C_RENAME:
    case MEDIA_C_ATTR:
    case MEDIA_C_TRIM:
    case MEDIA_C_OPEN:
        t = names_id(&log->names, c->id);
        if (!t || topic_deleted(t))
            return -ENOENT;
        break;
    default: break;
    }
    switch (c->kind) {
    case MEDIA_C_MKDIR:
    case MEDIA_C_CREATE: return validate_create(log, c);
    case MEDIA_C_REMOVE: c->time = now_realtime(); return validate_remove(t);
    case MEDIA_C_RENAME: return validate_rename(log, c, t);
    case MEDIA_C_ATTR: return control_attr(t, c);
    case MEDIA_C_TRIM: return validate_trim(t, c);
    case MEDIA_C_OPEN:
        if (names_is_dir(t))
            return -EISDIR;
        return validate_session(log, c);
    case MEDIA_C_FENCE:
    case MEDIA_C_CLOSE: return validate_session(log, c);
    }
    return -EMBAR_EINVALID;
}

void control_encode(struct media_control *m, const struct control *c)
{
    *m = (struct media_control){
        .kind = le16_of((uint16_t)c->kind),
        .name_length = le16_of((uint16_t)strnlen(c->name, MEDIA_MAX_NAME)),
        .id = le32_of(c->id),
        .parent = le32_of(c->parent),
        .mode = le32_of(c->mode),
        .uid = le32_of(c->uid),
        .gid = le32_of(c->gid),
        .flags = le16_of(c->flags),
        .order = c->order,
        .ack = c->ack,
        .epoch = le32_of(c->epoch),
        .value = le64_of(c->value),
        .value2 = le64_of(c->value2),
        .time = le64_of(c->time),
        .policy = c->policy,
        .altered = le64_of(c->altered),
        .number = le64_of(c->number),
        .end = le64_of(c->end),
        .messages = le64_of(c->messages),
    };
}

int control_decode(const void *payload, size_t size, struct control *c)
{
    struct media_control m;
    if (size < sizeof m)
        return -EMBAR_ECORRUPT;
    memcpy(&m, payload, sizeof m);
    size_t length = le16_get(m.name_length);
    if (length > MEDIA_MAX_NAME || size != sizeof m + length)
        return -EMBAR_ECORRUPT;
    *c = (struct control){
        .kind = (enum media_control_kind)le16_get(m.kind),
        .id = le32_get(m.id),
        .parent = le32_get(m.parent),
        .mode = le32_get(m.mode),
        .uid = le32_get(m.uid),
        .gid = le32_get(m.gid),
        .flags = le16_get(m.flags),
        .order = m.order,
        .ack = m.ack,
        .epoch = le32_get(m.epoch),
        .value = le64_get(m.value),
        .value2 = le64_get(m.value2),
        .time = le64_get(m.time),
        .policy = m.policy,
        .altered = le64_get(m.altered),
        .number = le64_get(m.number),
        .end = le64_get(m.end),
        .messages = le64_get(m.messages),
    };
    memcpy(c->name, (const char *)payload + sizeof m, length);
    if (length > 0 && name_check(c->name, length))
        return -EMBAR_ECORRUPT;
    return 0;
}
