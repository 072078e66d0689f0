/* See told.h. */
#include "told.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "net/wire.h"

struct embar_client *connect_to(const struct peer *p, unsigned reconnect_ms)
{
    struct embar_client *c;
    struct embar_error err = {.code = 0};
    static const char token[WIRE_TOKEN]; /* the peer takes any */
    struct embar_options o = {.server = p->path, .reconnect_ms = reconnect_ms};
    if (p->tcp) {
        o.token = token;
        o.token_length = sizeof(token);
    }
    if (embar_connect(&c, &o, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

struct embar_publisher *open_on(struct embar_client *c, const struct embar_publisher_options *o)
{
    struct embar_publisher *pub;
    struct embar_error err = {.code = 0};
    if (embar_publisher_open(&pub, c, "a/topic", o, &err) < 0)
        fail_msg("%s", err.text);
    return pub;
}

void on_done(void *arg, const struct embar_error *err)
{
    struct one *o = arg;
    if (err)
        o->told->code = err->code;
    o->times++;
    atomic_fetch_add(err ? &o->told->bad : &o->told->good, 1);
    if (atomic_fetch_add(&o->told->next, 1) != o->number)
        o->told->disorder = true;
}

size_t message(char *buf, unsigned i)
{
    /* Lengths from 1 to a few hundred bytes, all different enough. */
    int n = sprintf(buf, "%u:", i);
    memset(buf + n, 'a' + (int)(i % 26), i * 7919 % 301);
    n += (int)(i * 7919 % 301);
    buf[n++] = '\n';
    return (size_t)n;
}

void publish_all(struct embar_publisher *pub, struct told *told, struct one *ones, unsigned count)
{
    char buf[512];
    for (unsigned i = 0; i < count; i++) {
        ones[i] = (struct one){told, i, 0};
        int rc = embar_publish(pub, buf, message(buf, i), on_done, &ones[i]);
        if (rc < 0)
            fail_msg("message %u: %s", i, embar_strerror(rc));
    }
}

void wait_for_bytes(struct peer *p, size_t want)
{
    time_t end = time(NULL) + 120;
    size_t n;
    do {
        struct timespec nap = {.tv_nsec = 1000000};
        nanosleep(&nap, NULL);
        free(peer_bytes(p, &n));
    } while (n < want && time(NULL) < end);
    assert_int_equal(n, want);
}

void break_connections(struct peer *p)
{
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < p->count; i++)
        shutdown(p->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p->lock);
}
