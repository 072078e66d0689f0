/* `embar dump`: a topic's bytes from a pool, reading only. Serves step 9 without a daemon.
 * Must never write to the pool.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "net/cmd/cmd.h"
#include "net/cmd/pool_topic.h"

#define PIECE (4u << 20) /* bytes read at once */
#define LOOKS 100u       /* at a piece */

struct dump_args {
    const char *arg[2];
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct dump_args *a = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num >= 2)
            argp_error(state, "a pool and a topic are enough: what is \"%s\"?", arg);
        a->arg[state->arg_num] = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "name the pool and the topic.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Bytes at `at`, at most `max`, into `to`: how many, or why not. A server that goes on meanwhile may have
 * given their place away (log_settled): then the pool is opened again. */
static ssize_t piece(struct pool_topic *pt, const struct dump_args *a, uint64_t at, char *to,
                     size_t max, struct embar_error *err)
{
    uint32_t id = topic_id(pt->topic);
    for (unsigned i = 0; i < LOOKS; i++) {
        struct read_view v;
        int rc = topic_read(pt->topic, at, max, &v);
        size_t n = 0;
        for (int k = 0; rc == 0 && k < v.pieces; n += v.iov[k++].iov_len)
            memcpy(to + n, v.iov[k].iov_base, v.iov[k].iov_len);
        read_release(&v);
        int settled = log_settled(pt->log);
        if (settled == 0)
            return rc ? embar_fail(err, rc, "Reading at offset %llu failed", (unsigned long long)at)
                      : (ssize_t)n;
        pool_topic_close(pt);
        rc = pool_topic_open(pt, NULL, a->arg[0], a->arg[1], true, err);
        if (rc)
            return rc;
        if (topic_id(pt->topic) != id)
            return embar_fail(err, -EMBAR_EGONE, "%s", a->arg[1]);
    }
    return embar_fail(err, -EMBAR_EBUSY,
                      "The pool changes faster than offset %llu can be read: read it through its "
                      "server.",
                      (unsigned long long)at);
}

struct copied {
    const char *name;
    struct pool_topic *pt;
    const struct dump_args *a;
};

static int copy_out(void *arg)
{
    const char *name = ((const struct copied *)arg)->name;
    struct pool_topic *pt = ((const struct copied *)arg)->pt;
    const struct dump_args *a = ((const struct copied *)arg)->a;
    uint64_t at = topic_base(pt->topic), end = topic_end(pt->topic);
    struct embar_error err;
    char *bytes = malloc(PIECE);
    if (!bytes) {
        (void)embar_fail(&err, -ENOMEM, NULL);
        return cmd_fail(name, &err);
    }
    int status = CMD_OK;
    while (at < end && status == CMD_OK) {
        ssize_t n = piece(pt, a, at, bytes, end - at < PIECE ? end - at : PIECE, &err);
        if (n < 0) {
            status = cmd_fail(name, &err);
            break;
        }
        int rc = write_out(bytes, (size_t)n);
        if (rc == -EPIPE || n == 0)
            break; /* the reader has what it wanted */
        if (rc < 0) {
            cmd_say(name, "Writing to standard output failed: %s.", strerror(-rc));
            status = CMD_FAILURE;
        }
        at += (size_t)n;
    }
    free(bytes);
    return status;
}

int cmd_dump(int argc, char **argv)
{
    const struct argp argp = {
        .parser = parse,
        .args_doc = "POOL TOPIC",
        .doc = "Write the bytes of a topic to standard output, straight from a pool (a file or a "
               "device) and without changing it.\v"
               "While a daemon serves the pool, what it commits meanwhile is not seen.",
    };
    struct dump_args a = {.arg = {NULL, NULL}};
    cmd_parse(&argp, argc, argv, &a);
    signal(SIGPIPE, SIG_IGN); /* a write says it too, and ends us quietly */
    struct embar_error err;
    struct pool_topic pt;
    if (pool_topic_open(&pt, NULL, a.arg[0], a.arg[1], true, &err) < 0)
        return cmd_fail(argv[0], &err);
    struct copied c = {.name = argv[0], .pt = &pt, .a = &a};
    int status = cmd_guarded(argv[0], &pt.region, copy_out, &c);
    pool_topic_close(&pt);
    return status;
}
