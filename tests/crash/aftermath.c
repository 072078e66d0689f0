/* Life after recovery; see aftermath.h. Knows a log by its fingerprint: must never look at the media. */
#include "tests/crash/aftermath.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"

struct print {
    struct {
        uint32_t id, mode, crc, zero; /* no padding: compared as bytes */
        uint64_t base, end, first, messages;
    } node[LEDGER_NODES + 2];
    unsigned nodes, sessions;
    uint64_t session[LEDGER_SESSIONS + 1][4]; /* id, sequence, messages, epoch */
};

static bool content_crc(struct log *log, uint32_t id, uint32_t *crc)
{
    struct topic *t = log_topic(log, id);
    bool ok = t != NULL;
    for (uint64_t at = t ? topic_base(t) : 0; ok && at < topic_end(t);) {
        struct read_view v;
        ok = topic_read(t, at, 1 << 20, &v) == 0 && v.bytes > 0;
        for (int i = 0; ok && i < v.pieces; i++)
            *crc = crc32c(*crc, v.iov[i].iov_base, v.iov[i].iov_len);
        at += v.bytes;
        read_release(&v);
    }
    if (t)
        topic_put(t);
    return ok;
}

static bool print_take(struct log *log, const struct ledger *l, struct print *p)
{
    memset(p, 0, sizeof *p);
    for (uint32_t id = LOG_ROOT_ID + 1; id < l->next_id + 3; id++) {
        struct node_stat st;
        if (log_stat(log, id, &st) != 0)
            continue;
        p->node[p->nodes].id = id;
        p->node[p->nodes].mode = st.mode;
        p->node[p->nodes].base = st.base;
        p->node[p->nodes].end = st.end;
        p->node[p->nodes].first = st.first;
        p->node[p->nodes].messages = st.messages;
        if ((st.mode & 0170000u) == 0100000u && !content_crc(log, id, &p->node[p->nodes].crc))
            return false;
        p->nodes++;
    }
    for (unsigned i = 0; i < l->sessions; i++) {
        struct session_stat st;
        if (log_session(log, l->session[i].id, &st) == 0) {
            const uint64_t facts[4] = {st.id, st.sequence, st.messages, st.epoch};
            memcpy(p->session[p->sessions++], facts, sizeof facts);
        }
    }
    return true;
}

struct wait {
    struct completion completion;
    struct commit commit;
    bool done;
};

static void wait_done(struct completion *self, const struct commit *commit)
{
    struct wait *w = (struct wait *)self;
    w->commit = *commit;
    w->done = true;
}

/* One batch of one message; a session's as number `sequence`. 1: it was committed before. */
static int publish(struct log *log, struct topic *t, const struct session_stat *s,
                   uint64_t sequence, uint32_t length)
{
    char bytes[512];
    struct wait w = {.completion.done = wait_done};
    payload_fill(length, 0, bytes, length);
    struct batch b = {.topic = t,
                      .length = length,
                      .count = 1,
                      .equal = true,
                      .session = s ? s->id : 0,
                      .sequence = sequence,
                      .epoch = s ? s->epoch : 0,
                      .payload_crc = crc32c(0, bytes, length),
                      .completion = &w.completion};
    int rc = log_reserve(log, &b);
    if (rc)
        return rc;
    uint32_t n;
    for (uint32_t at = 0; at < length; at += n) {
        char *to = log_span(log, &b, at, &n);
        memcpy(to, bytes + at, n);
    }
    log_writeback(log, &b, 0, length);
    rc = log_announce(log_producer(log, 0), &b);
    if (rc) {
        log_abandon(log, &b);
        return rc;
    }
    epochs_run(log);
    if (!w.done)
        return -EMBAR_EFAULTED;
    return w.commit.status ? w.commit.status : w.commit.duplicate;
}

static bool publish_all(struct log *log, const struct ledger *l, uint64_t *random, char *why)
{
    for (unsigned i = 0; i < l->nodes; i++) {
        struct topic *t = l->node[i].is_dir ? NULL : log_topic(log, l->node[i].id);
        if (!t)
            continue;
        int rc = publish(log, t, NULL, 0, 1 + below(random, 500));
        for (unsigned k = 0; rc == 0 && k < l->sessions; k++) {
            struct session_stat st;
            if (l->session[k].topic == l->node[i].id &&
                log_session(log, l->session[k].id, &st) == 0)
                rc = publish(log, t, &st, st.sequence + 1, 1 + below(random, 100));
        }
        topic_put(t);
        if (rc && rc != -EMBAR_EFULL) {
            snprintf(why, 512, "publishing to topic %u after recovery: %d", l->node[i].id, rc);
            return false;
        }
    }
    return true;
}

/* What was committed is a duplicate, for ever; what was not is none. */
static bool resend_all(struct log *log, struct ledger *l, uint64_t *random, char *why)
{
    for (unsigned i = 0; i < l->sessions; i++) {
        const struct promise *p = &l->session[i];
        const struct node *n = ledger_node(l, p->topic);
        struct session_stat st;
        struct topic *t = log_topic(log, p->topic);
        if (!n || !t || log_session(log, p->id, &st) != 0) {
            snprintf(why, 512, "session %" PRIu64 " or its topic is gone", p->id);
            return false;
        }
        uint64_t sequence = p->sequence;
        int rc = sequence > 0 ? publish(log, t, &st, 1 + draw(random) % sequence, 9) : 1;
        for (unsigned k = 0; (rc == 1 || rc == -EMBAR_EFULL) && k < p->aheads; k++) {
            sequence = p->ahead[k].sequence;
            rc = publish(log, t, &st, sequence, 9);
        }
        bool ok = rc == 1 || rc == -EMBAR_EFULL;
        if (ok && n->order != 5) {
            do
                sequence = p->sequence + 1 + below(random, 1024);
            while (promise_has(p, sequence));
            rc = publish(log, t, &st, sequence, 9);
            ok = rc == 0 || rc == -EMBAR_EFULL;
        }
        topic_put(t);
        if (!ok) {
            snprintf(why, 512,
                     "session %" PRIu64 ", mark %" PRIu64 ": batch %" PRIu64 " sent again: %d",
                     p->id, p->sequence, sequence, rc);
            return false;
        }
    }
    return true;
}

static bool control(struct log *log, struct control c, char *why)
{
    struct commit commit = {0};
    int rc = log_control_wait(log, &c, &commit);
    if (rc == 0 || rc == -EMBAR_EFULL)
        return true;
    snprintf(why, 512, "control action %d after recovery: %d", (int)c.kind, rc);
    return false;
}

bool aftermath_use(struct log **log, const struct log_options *options, struct ledger *l,
                   uint64_t random, char *why)
{
    static struct print before, after;
    struct control make = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .order = 5};
    snprintf(make.name, sizeof make.name, "after");
    if (!resend_all(*log, l, &random, why) || !publish_all(*log, l, &random, why) ||
        !control(*log, make, why))
        return false;
    if (l->nodes > 1 && !control(*log,
                                 (struct control){.kind = MEDIA_C_RENAME,
                                                  .id = l->node[l->nodes - 1].id,
                                                  .parent = LOG_ROOT_ID,
                                                  .name = "renamed"},
                                 why))
        return false;
    if (chance(&random, 3) && log_checkpoint(*log) == 0 && !publish_all(*log, l, &random, why))
        return false;
    bool ok = print_take(*log, l, &before);
    if (chance(&random, 2))
        log_close(*log);
    else
        log_drop(*log, options->region);
    *log = NULL;
    struct embar_error err = {0};
    int rc = log_open(log, options, &err);
    if (rc || !ok) {
        snprintf(why, 512, "reopening after recovery: %d %.200s", rc, err.text);
        *log = rc ? NULL : *log;
        return false;
    }
    if (!print_take(*log, l, &after) || memcmp(&before, &after, sizeof before) != 0) {
        snprintf(why, 512, "reopened after recovery, the log is another one");
        return false;
    }
    return true;
}

bool aftermath_empty(struct log *log, struct ledger *l, char *why)
{
    struct node_stat st;
    /* Children before their directories: a few rounds. */
    for (unsigned round = 0; round < 8; round++)
        for (uint32_t id = l->next_id + 2; id > LOG_ROOT_ID; id--) {
            struct control c = {.kind = MEDIA_C_REMOVE, .id = id};
            if (log_stat(log, id, &st) == 0) {
                int rc = log_control_wait(log, &c, NULL);
                if (rc && rc != -ENOTEMPTY) {
                    snprintf(why, 512, "removing node %u: %d", id, rc);
                    return false;
                }
            }
        }
    for (unsigned i = 0; i < 2; i++) {
        int rc = log_checkpoint(log);
        if (rc) {
            snprintf(why, 512, "a checkpoint of an empty log: %d", rc);
            return false;
        }
    }
    /* One extent that topic 0 fills, one manifest. */
    const struct pool *p = log_pool(log);
    uint64_t block = 1ull << p->geo.block_shift, most = (block << p->geo.max_order) + block;
    struct log_stat now;
    log_stat_all(log, &now);
    if (now.topics != 0 || now.directories != 1 || now.used > most) {
        snprintf(why, 512,
                 "emptied, %" PRIu64 " topics, %" PRIu64 " directories and %" PRIu64
                 " bytes in use, %" PRIu64 " at most are explained",
                 now.topics, now.directories, now.used, most);
        return false;
    }
    return true;
}
