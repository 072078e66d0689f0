/* The client handle: options, the first connection, where to go at each later one.
 * Serves step 1 from the client's side. Must never fall back to another broker than it was told.
 */
#include "net/client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_MS   10000u
#define DEFAULT_RECONNECT_MS 60000u
#define MAX_PATH             1024u
#define BACKOFF_MIN          10u         /* ms */
#define OUTAGE_TELL          1000000000u /* ns: what is over sooner is no news */

const char *embar_version(void)
{
    return EMBAR_VERSION;
}

struct embar_client *client_ref(struct embar_client *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void client_put(struct embar_client *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (c->fd >= 0)
        close(c->fd);
    free(c->reply.body);
    free(c->source.server);
    free(c->source.token_file);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

int client_dial(struct embar_client *c, const atomic_bool *cancel, struct outage *o, int *fd,
                struct link_peer *peer, struct embar_error *err)
{
    struct address to;
    struct embar_error why = {.code = 0};
    int rc = address_find(&c->source, &to, &why);
    pthread_mutex_lock(&c->lock);
    bool met = c->peer.max_batch != 0; /* the first dial has nothing to compare with */
    struct link_peer known = c->peer;
    if (rc == 0)
        c->address = to;
    else
        to = c->address;
    pthread_mutex_unlock(&c->lock);
    if (rc < 0 && !met) {
        if (err)
            *err = why;
        return rc;
    }
    /* Nothing to be found now (a socket's file is away while its daemon starts): go where it was. */
    struct link_limit limit = client_limit(c, cancel, o);
    int sock;
    rc = link_dial(&to, &limit, &sock, err);
    if (rc < 0)
        return rc;
    rc = link_hello(sock, &to, met ? &known : NULL, peer, &limit, err);
    if (rc < 0) {
        close(sock);
        return rc;
    }
    *fd = sock;
    return 0;
}

uint64_t client_retry_at(unsigned *backoff_ms)
{
    unsigned ms = *backoff_ms == 0 ? BACKOFF_MIN : *backoff_ms * 2;
    *backoff_ms = ms < CLIENT_BACKOFF_MAX ? ms : CLIENT_BACKOFF_MAX;
    uint64_t now = clock_ns(), most = *backoff_ms * 1000000ull;
    /* The low digits of a clock are as good as drawn. */
    return now + most - (now * 0x9e3779b97f4a7c15u >> 32) % (most / 4);
}

static void tell(struct embar_client *c, const struct embar_error *why)
{
    char address[sizeof(c->address.name)];
    pthread_mutex_lock(&c->lock);
    memcpy(address, c->address.name, sizeof(address));
    pthread_mutex_unlock(&c->lock);
    c->outage(c->outage_arg, address, why);
}

void outage_begins(struct outage *o)
{
    (void)outage_due(o); /* the one before may be over */
    if (o->since == 0)
        o->since = clock_ns();
    o->up = 0;
}

void outage_lasts(struct outage *o, const struct embar_error *why)
{
    struct embar_client *c = o->client;
    if (o->since == 0 || o->up != 0 || o->told || !c->outage || clock_ns() - o->since < OUTAGE_TELL)
        return;
    o->told = true;
    tell(c, why);
}

void outage_pauses(struct outage *o)
{
    if (o->since != 0 && o->up == 0) /* else this is not the first one */
        o->up = clock_ns();
}

void outage_ends(struct outage *o)
{
    bool told = o->told;
    o->since = o->up = 0;
    o->told = false;
    if (told)
        tell(o->client, NULL);
}

uint64_t outage_due(struct outage *o)
{
    if (o->up == 0)
        return UINT64_MAX;
    if (clock_ns() - o->up < OUTAGE_TELL)
        return o->up + OUTAGE_TELL;
    outage_ends(o);
    return UINT64_MAX;
}

/* Who is connected to may say nothing for as long as a request may take. */
static void no_answer(void *arg)
{
    struct embar_error why;
    (void)embar_fail(&why, -ETIMEDOUT, "No answer has come yet.");
    outage_lasts(arg, &why);
}

struct link_limit client_limit(const struct embar_client *c, const atomic_bool *cancel,
                               struct outage *o)
{
    struct link_limit limit = link_within(c->timeout_ms, cancel);
    if (o && o->since != 0 && !o->told) {
        uint64_t least = clock_ns() + OUTAGE_TELL / 4; /* else it is told before it is asked */
        limit.slow_at = o->since + OUTAGE_TELL > least ? o->since + OUTAGE_TELL : least;
        limit.slow = no_answer;
        limit.slow_arg = o;
    }
    return limit;
}

int embar_connect(struct embar_client **client, const struct embar_options *opt,
                  struct embar_error *err)
{
    static const struct embar_options none;
    *client = NULL;
    if (!opt)
        opt = &none;
    if (opt->token_length > ADDRESS_TOKEN || (opt->token_length > 0 && !opt->token))
        return embar_fail(err, -EMBAR_EINVALID, "A token has 1 to %u bytes.", ADDRESS_TOKEN);
    struct embar_client *c = calloc(1, sizeof(*c));
    if (!c)
        return embar_fail(err, -ENOMEM, "No memory for a client");
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    c->fd = -1;
    c->timeout_ms = opt->timeout_ms ? opt->timeout_ms : DEFAULT_TIMEOUT_MS;
    c->reconnect_ms = opt->reconnect_ms ? opt->reconnect_ms : DEFAULT_RECONNECT_MS;
    c->outage = opt->outage;
    c->outage_arg = opt->outage_arg;
    c->source.mounts = "/proc/self/mounts";
    if ((opt->server && !(c->source.server = strdup(opt->server))) ||
        (opt->token_file && !(c->source.token_file = strdup(opt->token_file)))) {
        client_put(c);
        return embar_fail(err, -ENOMEM, "No memory for a client");
    }
    if (opt->token_length > 0)
        memcpy(c->source.token, opt->token, opt->token_length);
    c->source.token_length = opt->token_length;
    struct link_peer peer;
    int rc = client_dial(c, NULL, NULL, &c->fd, &peer, err);
    if (rc < 0) {
        client_put(c);
        return rc;
    }
    c->peer = peer;
    *client = c;
    return 0;
}

void embar_disconnect(struct embar_client *client)
{
    if (client)
        client_put(client);
}

void embar_client_info(const struct embar_client *client, struct embar_client_info *info)
{
    union {
        const struct embar_client *in;
        struct embar_client *out;
    } u = {.in = client}; /* only its lock is touched */
    memset(info, 0, sizeof(*info));
    pthread_mutex_lock(&u.out->lock);
    memcpy(info->address, client->address.name, sizeof(info->address));
    info->incarnation = client->peer.incarnation;
    memcpy(info->uuid, client->peer.uuid, sizeof(info->uuid));
    info->max_batch = client->peer.max_batch;
    info->max_messages = client->peer.max_messages;
    info->window = client->peer.window;
    info->durable_machine = client->peer.durable_machine;
    pthread_mutex_unlock(&u.out->lock);
}

int client_check_path(const char *path, size_t *length, struct embar_error *err)
{
    size_t n = path ? strnlen(path, MAX_PATH + 1) : 0;
    if (n == 0)
        return embar_fail(err, -EMBAR_ENAME, "The topic's name is empty");
    if (n > MAX_PATH)
        return embar_fail(err, -EMBAR_ENAME, "The path is longer than %u bytes", MAX_PATH);
    *length = n;
    return 0;
}
