/* A topic's facts and settings as extended attributes, user.embar.* (step 9; settings are control
 * actions). Values are decimal text. Must never invent a name that is not in the table.
 *
 * user.embar.trim can only be set, and is not listed: a copy with all its attributes (cp -a) must
 * not trim what it has just copied.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "core/when.h"
#include "fs/fs.h"

#define PREFIX "user.embar."

enum fact {
    BASE,
    FIRST_OFFSET,
    ORDER,
    ACK,
    MESSAGES,
    FIRST_MESSAGE,
    NEXT_MESSAGE,
    END,
    ID,
    LAST_COMMIT,
    RETENTION_BYTES,
    RETENTION_AGE,
    WHEN_FULL,
    LISTED,
    TRIM = LISTED,
    FACTS
};

static const char *const names[FACTS] = {
    [BASE] = "base",
    [FIRST_OFFSET] = "first_offset",
    [ORDER] = "order",
    [ACK] = "ack",
    [MESSAGES] = "messages",
    [FIRST_MESSAGE] = "first_message",
    [NEXT_MESSAGE] = "next_message",
    [END] = "end",
    [ID] = "id",
    [LAST_COMMIT] = "last_commit",
    [RETENTION_BYTES] = "retention_bytes",
    [RETENTION_AGE] = "retention_age",
    [WHEN_FULL] = "when_full",
    [TRIM] = "trim",
};

static enum fact fact_of(const char *name)
{
    size_t n = strlen(PREFIX);
    int i = 0;
    if (strncmp(name, PREFIX, n) != 0)
        return FACTS;
    while (i < FACTS && strcmp(names[i], name + n) != 0)
        i++;
    return (enum fact)i;
}

/* The last batch's own time: touch changes the modification time. Without one, that is all there is. */
static uint64_t last_commit(struct fs *fs, const struct node_stat *st)
{
    struct topic *t = st->end > st->base ? log_topic(fs->log, st->id) : NULL;
    if (!t)
        return st->modified;
    struct batch_cursor c = {.offset = st->end - 1};
    struct batch_view v;
    uint64_t time = st->modified;
    if (topic_next(t, &c, &v) == 1) {
        time = v.time;
        read_release(&v.data);
    }
    topic_put(t);
    return time;
}

static uint64_t fact_value(struct fs *fs, enum fact fact, const struct node *node,
                           const struct node_stat *st)
{
    switch (fact) {
    case BASE: return node->base; /* of byte 0 of this very file, not of one opened later */
    case FIRST_OFFSET: return st->base;
    case ORDER: return st->order;
    case ACK: return st->ack;
    case MESSAGES: return st->messages - st->first;
    case FIRST_MESSAGE: return st->first;
    case NEXT_MESSAGE: return st->messages;
    case END: return st->end;
    case ID: return st->id;
    case LAST_COMMIT: return last_commit(fs, st);
    case RETENTION_BYTES: return st->keep_bytes;
    case RETENTION_AGE: return st->keep_age / 1000000000u;
    case WHEN_FULL:
    case TRIM:
    case FACTS: break;
    }
    return 0;
}

static void reply_value(fuse_req_t req, const char *value, size_t length, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(req, length);
    else if (size < length)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, length);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *node = node_of(fs, ino);
    enum fact fact = fact_of(name);
    struct node_stat st;
    /* Access lists and labels: who is told that there are none asks once, not for each file. */
    if (strncmp(name, "user.", 5) != 0) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    if (!is_topic_file(node->kind) || fact >= LISTED) {
        fuse_reply_err(req, ENODATA);
        return;
    }
    int rc = attr_log(fs, node, &st);
    if (rc < 0) {
        fuse_reply_err(req, embar_to_errno(rc));
        return;
    }
    char text[32];
    int n = fact == WHEN_FULL
                ? snprintf(text, sizeof text, "%s", st.policy ? "trim" : "block")
                : snprintf(text, sizeof text, "%" PRIu64, fact_value(fs, fact, node, &st));
    reply_value(req, text, (size_t)n, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    const struct node *node = node_of(fuse_req_userdata(req), ino);
    char list[LISTED * 32];
    size_t n = 0;
    for (int i = 0; node->kind == NODE_TOPIC && i < LISTED; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, PREFIX "%s", names[i]) + 1;
    reply_value(req, list, n, size);
}

/* "none" is 0: no bound. */
static int bytes_parse(const char *text, uint64_t *bytes)
{
    *bytes = 0;
    return strcmp(text, "none") == 0 || size_parse(text, bytes) == 0 ? 0 : -EINVAL;
}

/* "90" (seconds), "90s", "15m", "1h30m", "7d", "none": ns. */
static int age_parse(const char *text, uint64_t *ns)
{
    uint64_t seconds;
    const char *end = text;
    *ns = 0;
    if (strcmp(text, "none") == 0 || when_duration(text, ns))
        return 0;
    bool bare = when_digits(&end, &seconds) && *end == '\0';
    return bare && !__builtin_mul_overflow(seconds, 1000000000u, ns) ? 0 : -EINVAL;
}

static int digit_parse(const char *text, uint8_t *value)
{
    if (text[0] < '0' || text[0] > '9' || text[1] != '\0')
        return -EINVAL;
    *value = (uint8_t)(text[0] - '0');
    return 0;
}

/* What setting a fact asks of the log: 0, or a negative errno. */
static int setting(struct control *c, enum fact fact, const char *text)
{
    c->kind = MEDIA_C_ATTR;
    switch (fact) {
    case TRIM: c->kind = MEDIA_C_TRIM; return size_parse(text, &c->value) ? -EINVAL : 0;
    case ORDER: c->flags = MEDIA_A_ORDER; return digit_parse(text, &c->order);
    case ACK:
        c->flags = MEDIA_A_ACK;
        if (digit_parse(text, &c->ack))
            return -EINVAL;
        /* As the network: what the daemon cannot give is not promised to anybody. */
        return c->ack <= 2 && c->ack > FS_ACK_MAX ? -embar_to_errno(EMBAR_EACK) : 0;
    case RETENTION_BYTES: c->flags = MEDIA_A_BYTES; return bytes_parse(text, &c->value);
    case RETENTION_AGE: c->flags = MEDIA_A_AGE; return age_parse(text, &c->value2);
    case WHEN_FULL:
        c->flags = MEDIA_A_FULL;
        c->policy = strcmp(text, "trim") == 0;
        return c->policy || strcmp(text, "block") == 0 ? 0 : -EINVAL;
    case BASE:
    case FIRST_OFFSET:
    case MESSAGES:
    case FIRST_MESSAGE:
    case NEXT_MESSAGE:
    case END:
    case ID:
    case LAST_COMMIT: return -EPERM;
    case FACTS: break;
    }
    return -EOPNOTSUPP;
}

static void answer_setting(struct action *a)
{
    fuse_reply_err(a->req, embar_to_errno(a->commit.status));
}

static void set(fuse_req_t req, fuse_ino_t ino, enum fact fact, const char *text)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *node = node_of(fs, ino);
    struct control c = {.kind = MEDIA_C_ATTR};
    int rc = node->kind == NODE_TOPIC ? setting(&c, fact, text) : -EOPNOTSUPP;
    if (rc) {
        fuse_reply_err(req, -rc);
        return;
    }
    struct action *a = action_new(fs, req, c.kind, answer_setting);
    if (!a)
        return;
    c.id = node->id;
    c.completion = &a->completion;
    a->control = c;
    action_send(a);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags)
{
    char text[32];
    enum fact fact = fact_of(name);
    if (fact < LISTED && (flags & XATTR_CREATE)) {
        fuse_reply_err(req, EEXIST);
        return;
    }
    if (size >= sizeof text || memchr(value, '\0', size)) {
        fuse_reply_err(req, fact == FACTS ? EOPNOTSUPP : EINVAL);
        return;
    }
    memcpy(text, value, size);
    text[size] = '\0';
    set(req, ino, fact, text);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    enum fact fact = fact_of(name);
    if (fact == RETENTION_BYTES || fact == RETENTION_AGE)
        set(req, ino, fact, "0");
    else
        fuse_reply_err(req, fact >= LISTED ? ENODATA : EPERM);
}
