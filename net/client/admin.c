/* Requests that are answered once: create, remove, rename, trim, list, stat.
 * Serves no step of a batch. One connection per client, one request at a time. Must never repeat a
 * request whose fate is unknown.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/media.h"
#include "net/client/client.h"

/* Is the kept connection still there? It carries nothing between requests. */
static bool alive(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* Send a request on the client's own connection. With text: its answer, NUL-terminated; *value is
 * then non-zero when there is more of it. Else value[0] and value[1] (may be NULL) are what OK
 * carries. */
static int ask(struct embar_client *c, struct wire_admin *a, const char *path, const char *second,
               char **text, uint64_t *value, struct embar_error *err)
{
    size_t n = path ? strlen(path) : 0, m = second ? strlen(second) : 0;
    if (n > MEDIA_MAX_PATH || m > MEDIA_MAX_PATH)
        return embar_fail(err, -EMBAR_ENAME, "The path is longer than %u bytes", MEDIA_MAX_PATH);
    a->path = le16_of((uint16_t)n);
    a->second = le16_of((uint16_t)m);
    /* Dialling takes the lock itself, to keep the address. Two threads may both dial: the second's
     * socket is used, the first's closed. */
    pthread_mutex_lock(&c->lock);
    while (c->fd < 0 || !alive(c->fd)) {
        if (c->fd >= 0)
            close(c->fd);
        c->fd = -1;
        pthread_mutex_unlock(&c->lock);
        int fd;
        struct link_peer peer;
        int rc = client_dial(c, NULL, NULL, &fd, &peer, err);
        if (rc < 0)
            return rc;
        pthread_mutex_lock(&c->lock);
        if (c->fd >= 0)
            close(c->fd);
        c->fd = fd;
    }
    union {
        const char *in;
        void *out;
    } p = {.in = path ? path : ""}, s = {.in = second ? second : ""}; /* sent, never written */
    struct iovec body[3] = {{a, sizeof(*a)}, {p.out, n}, {s.out, m}};
    struct link_limit limit = link_within(c->timeout_ms, NULL);
    struct link_reply *r = &c->reply;
    struct embar_error why;
    r->frame.type = 0;
    int rc = link_ask(c->fd, WIRE_ADMIN, 0, ++c->ref, body, 3, r, WIRE_MAX_TEXT, &limit, &why);
    if (rc == 0 && text) {
        *text = r->frame.type == WIRE_TEXT ? malloc(r->length + 1) : NULL;
        if (*text) {
            memcpy(*text, r->body, r->length);
            (*text)[r->length] = '\0';
            *value = r->frame.flags & WIRE_F_MORE;
        } else {
            rc = embar_fail(&why, r->frame.type == WIRE_TEXT ? -ENOMEM : -EMBAR_EPROTO,
                            "The answer could not be taken");
        }
    } else if (rc == 0 && r->frame.type == WIRE_OK && r->length >= sizeof(struct wire_ok)) {
        struct wire_ok ok;
        memcpy(&ok, r->body, sizeof(ok));
        if (value) {
            value[0] = le64_get(ok.value);
            value[1] = le64_get(ok.value2);
        }
    } else if (rc == 0) {
        rc = embar_fail(&why, -EMBAR_EPROTO, "The broker did not answer a request as such.");
    }
    if (rc < 0 && r->frame.type == WIRE_ERROR && path)
        link_name(&why, path);
    if (rc < 0 && r->frame.type != WIRE_ERROR && rc != -ENOMEM) {
        close(c->fd); /* whatever still comes on it would answer an older question */
        c->fd = -1;
    }
    pthread_mutex_unlock(&c->lock);
    if (rc < 0 && err)
        *err = why;
    return rc;
}

static uint8_t or_any(int value)
{
    return value < 0 ? (uint8_t)WIRE_ANY : (uint8_t)value;
}

int embar_create(struct embar_client *c, const char *topic, const struct embar_topic_options *opt,
                 struct embar_error *err)
{
    static const struct embar_topic_options defaults = EMBAR_TOPIC_OPTIONS;
    if (!opt)
        opt = &defaults;
    struct wire_admin a = {
        .verb = WIRE_V_CREATE,
        .order = or_any(opt->order),
        .ack = or_any(opt->ack),
        .flags = le16_of(opt->parents ? WIRE_A_PARENTS : 0),
        .mode = le32_of(opt->mode >= 0 ? (uint32_t)opt->mode : 0),
        .policy = (uint8_t)(opt->when_full > 0 ? opt->when_full : 0),
        .value = le64_of(opt->keep_bytes >= 0 ? (uint64_t)opt->keep_bytes : 0),
        .value2 = le64_of(opt->keep_ns >= 0 ? (uint64_t)opt->keep_ns : 0),
    };
    size_t n;
    int rc = client_check_path(topic, &n, err);
    return rc < 0 ? rc : ask(c, &a, topic, NULL, NULL, NULL, err);
}

int embar_set(struct embar_client *c, const char *path, const struct embar_topic_options *opt,
              struct embar_error *err)
{
    unsigned flags =
        (opt->order >= 0 ? MEDIA_A_ORDER : 0) | (opt->ack >= 0 ? MEDIA_A_ACK : 0) |
        (opt->mode >= 0 ? MEDIA_A_MODE : 0) | (opt->keep_bytes >= 0 ? MEDIA_A_BYTES : 0) |
        (opt->keep_ns >= 0 ? MEDIA_A_AGE : 0) | (opt->when_full >= 0 ? MEDIA_A_FULL : 0);
    struct wire_admin a = {.verb = WIRE_V_ATTR,
                           .order = (uint8_t)opt->order,
                           .ack = (uint8_t)opt->ack,
                           .policy = (uint8_t)opt->when_full,
                           .flags = le16_of((uint16_t)flags),
                           .mode = le32_of((uint32_t)opt->mode),
                           .value = le64_of((uint64_t)opt->keep_bytes),
                           .value2 = le64_of((uint64_t)opt->keep_ns)};
    size_t n;
    if (flags == 0)
        return embar_fail(err, -EMBAR_EINVALID, "No setting was given");
    int rc = client_check_path(path, &n, err);
    return rc < 0 ? rc : ask(c, &a, path, NULL, NULL, NULL, err);
}

int embar_mkdir(struct embar_client *c, const char *path, bool parents, struct embar_error *err)
{
    struct wire_admin a = {.verb = WIRE_V_MKDIR,
                           .order = WIRE_ANY,
                           .ack = WIRE_ANY,
                           .flags = le16_of(parents ? WIRE_A_PARENTS : 0)};
    size_t n;
    int rc = client_check_path(path, &n, err);
    return rc < 0 ? rc : ask(c, &a, path, NULL, NULL, NULL, err);
}

int embar_remove(struct embar_client *c, const char *path, struct embar_error *err)
{
    struct wire_admin a = {.verb = WIRE_V_REMOVE};
    size_t n;
    int rc = client_check_path(path, &n, err);
    return rc < 0 ? rc : ask(c, &a, path, NULL, NULL, NULL, err);
}

int embar_rename(struct embar_client *c, const char *path, const char *to, struct embar_error *err)
{
    struct wire_admin a = {.verb = WIRE_V_RENAME};
    size_t n;
    int rc = client_check_path(path, &n, err);
    if (rc == 0)
        rc = client_check_path(to, &n, err);
    return rc < 0 ? rc : ask(c, &a, path, to, NULL, NULL, err);
}

int embar_trim(struct embar_client *c, const char *topic, enum embar_from from, uint64_t value,
               uint64_t *base, uint64_t *bytes, struct embar_error *err)
{
    struct wire_admin a = {.verb = WIRE_V_TRIM, .from = (uint8_t)from, .value = le64_of(value)};
    uint64_t told[2] = {0, 0};
    size_t n;
    int rc = client_check_path(topic, &n, err);
    if (rc == 0)
        rc = ask(c, &a, topic, NULL, NULL, told, err);
    if (rc == 0 && base)
        *base = told[0];
    if (rc == 0 && bytes)
        *bytes = told[1];
    return rc;
}

/* Append a page to the list so far; *last gets the id to go on after. */
static int join_page(json_t *all, const char *page, uint64_t *last, struct embar_error *err)
{
    json_t *more = json_loads(page, 0, NULL);
    size_t n = json_array_size(more); /* 0 also for what is no array */
    int rc = 0;
    if (!json_is_array(more) || json_array_extend(all, more) < 0)
        rc = embar_fail(err, -EMBAR_EPROTO, "The broker's list is not the JSON array it must be.");
    else if (n > 0)
        *last = (uint64_t)json_integer_value(json_object_get(json_array_get(more, n - 1), "id"));
    json_decref(more);
    return rc;
}

int embar_list(struct embar_client *c, const char *path, char **json, struct embar_error *err)
{
    uint64_t more = 0, last = 0;
    char *page;
    int rc = ask(c, &(struct wire_admin){.verb = WIRE_V_LIST}, path, NULL, &page, &more, err);
    if (rc < 0 || !more) {
        *json = rc < 0 ? NULL : page;
        return rc;
    }
    json_t *all = json_array();
    rc = join_page(all, page, &last, err);
    free(page);
    while (rc == 0 && more) {
        struct wire_admin a = {.verb = WIRE_V_LIST, .value = le64_of(last)};
        rc = ask(c, &a, path, NULL, &page, &more, err);
        if (rc == 0) {
            rc = join_page(all, page, &last, err);
            free(page);
        }
    }
    *json = rc == 0 ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    if (rc == 0 && !*json)
        rc = embar_fail(err, -ENOMEM, "No memory for the list");
    return rc;
}

int embar_stat(struct embar_client *c, const char *path, char **json, struct embar_error *err)
{
    uint64_t more;
    return ask(c, &(struct wire_admin){.verb = WIRE_V_STAT}, path, NULL, json, &more, err);
}
