/* What .embar/status, metrics and token say: texts made when they are opened (step 9). */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/dax.h"
#include "fs/fs.h"
#include "net/server/server.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static void uuid_text(const uint8_t uuid[16], char text[37])
{
    char *to = text;
    for (int i = 0; i < 16; i++) {
        to += snprintf(to, 3, "%02x", uuid[i]);
        if (i == 3 || i == 5 || i == 7 || i == 9)
            *to++ = '-';
    }
    *to = '\0';
}

static void add_address(struct fs *fs, json_t *o)
{
    const char *colon = strrchr(fs->listen, ':');
    json_object_set_new(o, "listen", *fs->listen ? json_string(fs->listen) : json_null());
    json_object_set_new(o, "port", colon ? number(strtoull(colon + 1, NULL, 10)) : json_null());
    json_object_set_new(o, "socket", *fs->socket ? json_string(fs->socket) : json_null());
}

static void add_pool(struct fs *fs, json_t *o)
{
    const struct pool *pool = log_pool(fs->log);
    char uuid[37];
    uuid_text(pool->uuid, uuid);
    json_object_set_new(o, "pool", json_string(fs->region.spec));
    json_object_set_new(o, "uuid", json_string(uuid));
    json_object_set_new(o, "incarnation", number(pool->incarnation));
    json_object_set_new(
        o, "durability",
        json_string(fs->region.durability == MEDIA_DURABLE_MACHINE ? "machine" : "process"));
    json_object_set_new(o, "persistence", json_string(persistence_name(fs->region.persistence)));
    json_object_set_new(o, "flush", json_string(fs->region.flush.ops->name));
}

char *status_json(struct fs *fs)
{
    struct log_stat st;
    log_stat_all(fs->log, &st);
    json_t *o = json_object();
    json_object_set_new(o, "version", json_string(EMBAR_VERSION));
    json_object_set_new(o, "pid", number((uint64_t)getpid()));
    json_object_set_new(o, "mountpoint", json_string(fs->mountpoint));
    add_address(fs, o);
    add_pool(fs, o);
    json_object_set_new(o, "uptime", number((now_ns() - fs->started) / 1000000000u));
    struct server_stat net;
    server_stat(fs->server, &net);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"max_batch", log_pool(fs->log)->max_batch},
        {"term", st.term},
        {"slot", st.slot},
        {"topics", st.topics},
        {"directories", st.directories},
        {"sessions", st.sessions},
        {"size", st.size},
        {"data", st.data},
        {"used", st.used},
        {"free", st.free},
        {"committed", st.committed},
        {"durable", st.durable},
        {"synced", st.synced},
        {"recovered", st.recovered},
        {"recovery_ns", st.recovery_ns},
        {"connections", net.connections},
        {"put_off", net.put_off},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        json_object_set_new(o, numbers[i].name, number(numbers[i].value));
    char cause[LOG_CAUSE_SIZE];
    const char *why = log_cause(fs->log, cause, sizeof cause);
    json_object_set_new(o, "faulted", json_boolean(st.faulted));
    json_object_set_new(o, "fault", why ? json_string(why) : json_null());
    char *text = json_dumps(o, JSON_INDENT(2));
    json_decref(o);
    char *line = NULL;
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    return line;
}

struct metric {
    const char *name, *type, *help;
    uint64_t value;
};

static uint64_t get(const atomic_uint_fast64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static void print_metrics(FILE *out, const struct metric *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fprintf(out, "# HELP embar_%s %s\n# TYPE embar_%s %s\nembar_%s %" PRIu64 "\n", m[i].name,
                m[i].help, m[i].name, m[i].type, m[i].name, m[i].value);
}

static void log_metrics(struct fs *fs, FILE *out)
{
    struct log_stat st;
    log_stat_all(fs->log, &st);
    const struct metric list[] = {
        {"pool_bytes", "gauge", "Size of the pool.", st.size},
        {"pool_used_bytes", "gauge", "Bytes in extents that hold something.", st.used},
        {"pool_reserved_bytes", "gauge", "Bytes reserved for batches under way.", st.reserved},
        {"pool_free_bytes", "gauge", "Bytes free for new extents.", st.free},
        {"committed", "counter", "Number of the newest committed entry.", st.committed},
        {"durable", "counter", "Number of the newest durable entry.", st.durable},
        {"epochs_total", "counter", "Epochs since the pool was opened.", st.epochs},
        {"batches_total", "counter", "Batches committed since the pool was opened.", st.batches},
        {"messages_total", "counter", "Messages committed since the pool was opened.", st.messages},
        {"bytes_total", "counter", "Payload committed since the pool was opened.", st.bytes},
        {"duplicates_total", "counter", "Resent batches recognised.", st.duplicates},
        {"held_total", "counter", "Batches that waited for an earlier one.", st.held},
        {"fenced_total", "counter", "Sessions fenced because a batch never came.", st.fenced},
        {"trims_total", "counter", "Trims, by hand and by retention.", st.trims},
        {"trimmed_bytes_total", "counter", "Payload bytes that trims gave up.", st.trimmed},
        {"moves_total", "counter", "Blocks of the pool cleared for a batch that found no place.",
         st.moves},
        {"moved_bytes_total", "counter", "Payload bytes moved for that.", st.moved},
        {"topics", "gauge", "Topics.", st.topics},
        {"sessions", "gauge", "Publisher sessions.", st.sessions},
        {"faulted", "gauge", "1 when the pool failed while in use.", st.faulted},
    };
    print_metrics(out, list, sizeof list / sizeof list[0]);
}

static void server_metrics(struct fs *fs, FILE *out)
{
    struct server_stat st;
    server_stat(fs->server, &st);
    const struct metric list[] = {
        {"net_connections", "gauge", "Connections.", st.connections},
        {"net_channels", "gauge", "Publishers and subscriptions on them.", st.channels},
        {"net_waiting", "gauge", "Connections that wait for space or memory.", st.waiting},
        {"net_accepted_total", "counter", "Connections accepted.", st.accepted},
        {"net_refused_total", "counter", "Connections over a bound, or without a proper greeting.",
         st.refused},
        {"net_put_off_total", "counter", "Times that no descriptor was left for a new connection.",
         st.put_off},
        {"net_errors_total", "counter", "Connections closed for what the peer did.", st.errors},
    };
    print_metrics(out, list, sizeof list / sizeof list[0]);
}

static void mount_metrics(struct fs *fs, FILE *out)
{
    const struct fs_counters *c = &fs->count;
    const struct metric list[] = {
        {"fs_reads_total", "counter", "Reads of topics and streams.", get(&c->reads)},
        {"fs_read_bytes_total", "counter", "Bytes they were given.", get(&c->read_bytes)},
        {"fs_writes_total", "counter", "Writes to topics.", get(&c->writes)},
        {"fs_write_bytes_total", "counter", "Bytes they brought.", get(&c->write_bytes)},
        {"fs_parked_total", "counter", "Writes that had to wait for space.", get(&c->parked)},
        {"fs_parked", "gauge", "Writes that wait for space now.", get(&c->parked_now)},
        {"fs_parked_tries_total", "counter", "Times that a waiting write looked for space.",
         get(&c->park_tries)},
        {"fs_no_space_total", "counter", "Writes that waited in vain.", get(&c->no_space)},
        {"fs_interrupted_total", "counter", "Waiting writes interrupted.", get(&c->interrupted)},
        {"fs_lost_fragments_total", "counter",
         "Unfinished last lines that could not be published at close.", get(&c->lost_fragments)},
        {"fs_held_bytes", "gauge", "Buffers of unfinished lines.", get(&c->held_bytes)},
        {"fs_open_files", "gauge", "Open files.", get(&c->open_files)},
        {"fs_locks", "gauge", "Locks of open files.", get(&fs->locks.count)},
        {"fs_lock_waits", "gauge", "Requests that wait for one.", get(&fs->locks.waiting)},
        {"fs_notifications_total", "counter", "Poll notifications.", get(&c->notifications)},
    };
    print_metrics(out, list, sizeof list / sizeof list[0]);
}

char *status_metrics(struct fs *fs)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    log_metrics(fs, out);
    server_metrics(fs, out);
    mount_metrics(fs, out);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

char *status_token(struct fs *fs)
{
    char *text;
    return asprintf(&text, "%s\n", fs->token) < 0 ? NULL : text;
}
