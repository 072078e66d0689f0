/* Start and stop of the network front end; its address and its facts.
 *
 * Order of stopping: the flag, then every worker is woken and joined (each finishes what was
 * announced, worker.c), then listeners and memory go. The log is closed by whoever opened it,
 * after that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net/server/internal.h"

#define WORKERS_CHOSEN 8u  /* more than that move no more bytes through one sequencer */
#define FILES_KEPT     64u /* descriptors for everything that is not a connection */

static unsigned workers_wanted(const struct server_options *opt)
{
    unsigned n = opt->workers ? opt->workers : topology_processors();
    if (!opt->workers && n > WORKERS_CHOSEN)
        n = WORKERS_CHOSEN;
    if (n > SERVER_WORKERS)
        n = SERVER_WORKERS;
    unsigned producers = log_producers(opt->log);
    unsigned left = producers > opt->first_producer ? producers - opt->first_producer : 0;
    return n < left ? n : left;
}

static uint32_t connections_allowed(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r))
        return 256;
    if (r.rlim_cur < r.rlim_max) {
        struct rlimit more = {r.rlim_max, r.rlim_max};
        if (more.rlim_cur > SERVER_CONNECTIONS + 4096u)
            more.rlim_cur = SERVER_CONNECTIONS + 4096u;
        if (more.rlim_cur > r.rlim_cur && setrlimit(RLIMIT_NOFILE, &more) == 0)
            r = more;
    }
    if (r.rlim_cur >= SERVER_CONNECTIONS + FILES_KEPT)
        return SERVER_CONNECTIONS;
    return r.rlim_cur > 2 * FILES_KEPT ? (uint32_t)r.rlim_cur - FILES_KEPT : FILES_KEPT;
}

static int start(struct server *s, struct embar_error *err)
{
    int rc = staging_new(&s->staging, s->opt.staging, err);
    if (rc == 0 && s->opt.listen)
        rc = listener_tcp(s, err);
    if (rc == 0 && s->opt.unix_path)
        rc = listener_unix(s, err);
    for (unsigned i = 0; rc == 0 && i < s->workers; i++)
        rc = worker_open(&s->worker[i], err);
    for (unsigned i = 0; rc == 0 && i < s->workers; i++)
        rc = worker_start(&s->worker[i], err);
    return rc;
}

int server_start(struct server **out, const struct server_options *opt, struct embar_error *err)
{
    *out = NULL;
    if (opt->listen && !opt->token)
        return embar_fail(err, -EMBAR_EINVALID, "a TCP listener needs a token.");
    unsigned workers = workers_wanted(opt);
    if (workers == 0)
        return embar_fail(err, -EMBAR_EINVALID,
                          "the pool has no pending ring left for the network; make it with more "
                          "producers.");
    struct server *s = aligned_alloc(64, (sizeof(*s) + 63) / 64 * 64);
    if (!s)
        return embar_fail(err, -ENOMEM, "cannot start the network front end");
    memset(s, 0, sizeof(*s));
    slab_init(&s->conns, sizeof(struct conn));
    s->opt = *opt;
    s->log = opt->log;
    s->max_batch = (uint32_t)log_pool(opt->log)->max_batch;
    s->max_connections = connections_allowed();
    s->uid = (uint32_t)geteuid();
    s->gid = (uint32_t)getegid();
    s->unix_fd = -1;
    s->workers = workers;
    if (opt->token)
        memcpy(s->token, opt->token, WIRE_TOKEN);
    for (unsigned i = 0; i < workers; i++) {
        struct worker *w = &s->worker[i];
        w->server = s;
        w->log = s->log;
        w->index = i;
        w->producer = log_producer(s->log, opt->first_producer + i);
        w->epoll_fd = w->timer_fd = w->listen_fd = w->box.wake_fd = -1;
        space_init(w); /* before another one runs, which looks at it */
    }
    int rc = start(s, err);
    if (rc) {
        server_stop(s);
        return rc;
    }
    *out = s;
    return 0;
}

void server_stop(struct server *s)
{
    if (!s)
        return;
    atomic_store_explicit(&s->stop, true, memory_order_release);
    for (unsigned i = 0; i < s->workers; i++)
        if (s->worker[i].started)
            worker_wake(&s->worker[i]);
    for (unsigned i = 0; i < s->workers; i++)
        if (s->worker[i].started)
            pthread_join(s->worker[i].thread, NULL);
    /* Whoever ran the epoch may still be about to wake the worker that took its last mail. */
    log_quiesce(s->log);
    for (unsigned i = 0; i < s->workers; i++)
        worker_destroy(&s->worker[i]);
    listener_close(s);
    staging_free(s->staging);
    slab_end(&s->conns);
    free(s);
}

const char *server_address(const struct server *s)
{
    return s->address;
}

static uint64_t read_count(atomic_uint_fast64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

void server_stat(struct server *s, struct server_stat *st)
{
    *st = (struct server_stat){.workers = s->workers,
                               .staging = staging_size(s->staging),
                               .staged = staging_used(s->staging)};
    for (unsigned i = 0; i < s->workers; i++) {
        struct counters *c = &s->worker[i].count;
        st->connections += read_count(&c->connections);
        st->channels += read_count(&c->channels);
        st->subscriptions += read_count(&c->subscriptions);
        st->waiting += read_count(&c->waiting);
        st->moved += read_count(&c->moved);
        st->accepted += read_count(&c->accepted);
        st->refused += read_count(&c->refused);
        st->put_off += read_count(&c->put_off);
        st->errors += read_count(&c->errors);
        st->batches += read_count(&c->batches);
        st->bytes_in += read_count(&c->bytes_in);
        st->duplicates += read_count(&c->duplicates);
        st->acks += read_count(&c->acks);
        st->bytes_out += read_count(&c->bytes_out);
    }
}
