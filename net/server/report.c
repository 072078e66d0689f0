/* Facts in JSON: a topic, the broker, a session, the list of topics (ADMIN's answers).
 *
 * The fields are promised by net/PROTOCOL.md. An answer is bounded: a list comes in pages, and the
 * place where the next one begins is the id of the last element, from which the walk finds its way
 * again without state here.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/dax.h"
#include "net/server/internal.h"

#define LIST_PAGE (256u << 10)

static json_int_t num(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (json_int_t)v;
}

/* Takes the object. */
static int answer(struct conn *c, const struct wire_frame *f, json_t *o)
{
    if (!o)
        return -ENOMEM;
    size_t n = json_dumpb(o, NULL, 0, JSON_COMPACT);
    char *buf = n > 0 && n <= WIRE_MAX_TEXT ? malloc(sizeof(struct wire_frame) + n) : NULL;
    if (buf)
        json_dumpb(o, buf + sizeof(struct wire_frame), n, JSON_COMPACT);
    json_decref(o);
    return buf ? conn_text(c, f, buf, (uint32_t)n, false) : -ENOMEM;
}

static json_t *path_of(struct log *log, uint32_t id)
{
    char path[MEDIA_MAX_PATH + 1];
    if (log_path(log, id, path, sizeof(path)))
        path[0] = '\0';
    const char *p = path[0] == '/' ? path + 1 : path;
    return json_string(p);
}

static json_t *node_json(struct log *log, const struct node_stat *st)
{
    json_t *path = path_of(log, st->id);
    if (!path)
        return NULL;
    if (S_ISDIR(st->mode))
        return json_pack("{s:I, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", num(st->id), "path",
                         path, "type", "directory", "mode", num(st->mode & 07777u), "uid",
                         num(st->uid), "gid", num(st->gid), "created", num(st->created), "modified",
                         num(st->modified), "children", num(st->children));
    return json_pack("{s:I, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                     "s:I, s:I, s:I, s:s, s:I}",
                     "id", num(st->id), "path", path, "type", "topic", "order", num(st->order),
                     "ack", num(st->ack), "mode", num(st->mode & 07777u), "uid", num(st->uid),
                     "gid", num(st->gid), "base", num(st->base), "end", num(st->end), "first",
                     num(st->first), "next", num(st->messages), "messages",
                     num(st->messages - st->first), "batches", num(st->batches), "created",
                     num(st->created), "modified", num(st->modified), "keep_bytes",
                     num(st->keep_bytes), "keep_age", num(st->keep_age), "policy",
                     st->policy ? "trim" : "block", "generation", num(st->generation));
}

int report_topic(struct conn *c, const struct wire_frame *f, const struct node_stat *st)
{
    return answer(c, f, node_json(c->worker->log, st));
}

static json_t *pool_json(const struct log *log, const struct log_stat *st)
{
    char cause[LOG_CAUSE_SIZE];
    const char *why = log_cause(log, cause, sizeof(cause));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:s*}", "size", num(st->size), "data",
                     num(st->data), "used", num(st->used), "reserved", num(st->reserved), "free",
                     num(st->free), "faulted", (int)st->faulted, "fault", why);
}

static json_t *log_json(const struct log_stat *st)
{
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:I, s:I, s:I, "
        "s:I, s:I, s:I}",
        "committed", num(st->committed), "durable", num(st->durable), "synced", num(st->synced),
        "checkpoint", num(st->checkpoint), "epochs", num(st->epochs), "batches", num(st->batches),
        "messages", num(st->messages), "bytes", num(st->bytes), "topics", num(st->topics),
        "directories", num(st->directories), "sessions", num(st->sessions), "max_sessions",
        num(st->max_sessions), "recovered", num(st->recovered), "recovery_ns", num(st->recovery_ns),
        "duplicates", num(st->duplicates), "held", num(st->held), "fenced", num(st->fenced),
        "trims", num(st->trims), "trimmed", num(st->trimmed), "moves", num(st->moves), "moved",
        num(st->moved), "term", num(st->term), "slot", num(st->slot));
}

static json_t *server_json(struct server *s)
{
    struct server_stat st;
    server_stat(s, &st);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                     "s:I, s:I, s:I}",
                     "address", server_address(s), "workers", num(st.workers), "connections",
                     num(st.connections), "accepted", num(st.accepted), "refused", num(st.refused),
                     "put_off", num(st.put_off), "errors", num(st.errors), "channels",
                     num(st.channels), "subscriptions", num(st.subscriptions), "batches",
                     num(st.batches), "bytes_in", num(st.bytes_in), "bytes_out", num(st.bytes_out),
                     "duplicates", num(st.duplicates), "acks", num(st.acks), "waiting",
                     num(st.waiting), "staging", num(st.staging), "staged", num(st.staged), "moved",
                     num(st.moved));
}

int report_broker(struct conn *c, const struct wire_frame *f)
{
    struct server *s = c->worker->server;
    const struct pool *pool = log_pool(s->log);
    struct log_stat st;
    struct timespec now;
    char uuid[33];
    log_stat_all(s->log, &st);
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < 16; i++) {
        uuid[2 * i] = "0123456789abcdef"[pool->uuid[i] >> 4];
        uuid[2 * i + 1] = "0123456789abcdef"[pool->uuid[i] & 15];
    }
    uuid[32] = '\0';
    return answer(
        c, f,
        json_pack("{s:s, s:i, s:s, s:I, s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "version",
                  EMBAR_VERSION, "protocol", (int)WIRE_VERSION, "uuid", uuid, "incarnation",
                  num(pool->incarnation), "durability",
                  pool->durability == MEDIA_DURABLE_MACHINE ? "machine" : "process", "persistence",
                  persistence_name(pool->region->persistence), "flush", pool->flush->ops->name,
                  "time", num((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec), "pool",
                  pool_json(s->log, &st), "log", log_json(&st), "server", server_json(s)));
}

int report_session(struct conn *c, const struct wire_frame *f, uint64_t id)
{
    struct session_stat st;
    int rc = log_session(c->worker->log, id, &st);
    if (rc)
        return rc;
    if (c->uid != 0 && c->uid != c->worker->server->uid && c->uid != st.principal)
        return -EMBAR_EAUTH;
    return answer(c, f,
                  json_pack("{s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I}", "id", num(st.id), "topic",
                            num(st.topic), "path", path_of(c->worker->log, st.topic), "epoch",
                            num(st.epoch), "sequence", num(st.sequence), "messages",
                            num(st.messages), "time", num(st.time), "principal",
                            num(st.principal)));
}

/* The next node of the walk below `top`, depth first, children by id. 1: *cur moved on; 0: done. */
static int next_node(const struct conn *c, uint32_t top, struct node_stat *cur)
{
    struct log *log = c->worker->log;
    struct node_stat st;
    if (S_ISDIR(cur->mode) && may(c, cur, 5) && log_list(log, cur->id, 0, &st, 1) == 1) {
        *cur = st;
        return 1;
    }
    while (cur->id != top && cur->id != LOG_ROOT_ID) {
        uint32_t parent = cur->parent;
        if (log_list(log, parent, cur->id, &st, 1) == 1) {
            *cur = st;
            return 1;
        }
        if (log_stat(log, parent, cur))
            return 0;
    }
    return 0;
}

/* A page that grows; a frame header's room stands first. */
struct page {
    char *buf;
    size_t size, capacity;
};

static int page_add(struct page *p, json_t *o)
{
    if (!o)
        return -ENOMEM;
    size_t n = json_dumpb(o, NULL, 0, JSON_COMPACT);
    if (p->size + n + 2 > p->capacity) {
        size_t capacity = 2 * p->capacity + n + 2;
        char *buf = realloc(p->buf, capacity);
        if (!buf) {
            json_decref(o);
            return -ENOMEM;
        }
        p->buf = buf;
        p->capacity = capacity;
    }
    if (p->buf[p->size - 1] != '[')
        p->buf[p->size++] = ',';
    json_dumpb(o, p->buf + p->size, n, JSON_COMPACT);
    p->size += n;
    json_decref(o);
    return 0;
}

int report_list(struct conn *c, const struct wire_frame *f, uint32_t top, uint32_t after,
                bool directories)
{
    struct log *log = c->worker->log;
    struct page p = {.capacity = 4096};
    struct node_stat cur;
    int rc = log_stat(log, after ? after : top, &cur);
    if (rc)
        return rc == -EMBAR_EGONE ? -ENOENT : rc;
    p.buf = malloc(p.capacity);
    if (!p.buf)
        return -ENOMEM;
    p.size = sizeof(struct wire_frame);
    p.buf[p.size++] = '[';
    bool more = false;
    while (next_node(c, top, &cur)) {
        if (S_ISDIR(cur.mode) && !directories)
            continue;
        rc = page_add(&p, node_json(log, &cur));
        if (rc) {
            free(p.buf);
            return rc;
        }
        if (p.size >= LIST_PAGE) {
            struct node_stat look = cur;
            more = next_node(c, top, &look);
            break;
        }
    }
    p.buf[p.size++] = ']'; /* page_add keeps room for it */
    return conn_text(c, f, p.buf, (uint32_t)(p.size - sizeof(struct wire_frame)), more);
}
