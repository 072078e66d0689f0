/* HELLO: version, token, and whether the client means this pool (step 1).
 *
 * The token is compared in constant time, and nothing is told about it but that it is wrong.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "net/server/internal.h"

static bool token_ok(const uint8_t *ours, const uint8_t *theirs, uint32_t n)
{
    unsigned differ = n != WIRE_TOKEN;
    for (uint32_t i = 0; i < WIRE_TOKEN; i++)
        differ |= ours[i] ^ theirs[i < n ? i : 0];
    return differ == 0;
}

static int check(const struct conn *c, const struct wire_frame *f, const uint8_t *body,
                 const char **why)
{
    const struct pool *pool = log_pool(c->worker->log);
    static const uint8_t none[16];
    struct wire_hello h;
    *why = "a HELLO of the wrong size";
    if (le32_get(f->length) < sizeof(h))
        return -EMBAR_EPROTO;
    memcpy(&h, body, sizeof(h));
    *why = "this port speaks embarfs' protocol; the first frame is HELLO";
    if (le32_get(h.magic) != WIRE_MAGIC)
        return -EMBAR_EPROTO;
    if (le16_get(h.version) < WIRE_VERSION || le16_get(h.oldest) > WIRE_VERSION)
        return -EMBAR_EVERSION;
    uint32_t token = le32_get(h.token);
    *why = "a HELLO of the wrong size";
    if (token > 64 || le32_get(f->length) != sizeof(h) + token)
        return -EMBAR_EPROTO;
    *why = "the token is missing or wrong; it stands in the daemon's token file";
    if (!c->local && (token == 0 || !token_ok(c->worker->server->token, body + sizeof(h), token)))
        return -EMBAR_EAUTH;
    *why = "features that this version does not have";
    if (le32_get(h.features) != 0)
        return -EMBAR_EPROTO;
    *why = "this is another pool, or the pool was restored, since the client was here last";
    if ((memcmp(h.uuid, none, 16) != 0 && memcmp(h.uuid, pool->uuid, 16) != 0) ||
        le64_get(h.incarnation) > pool->incarnation)
        return -EMBAR_EINCARNATION;
    return 0;
}

enum turn hello_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body)
{
    const struct pool *pool = log_pool(c->worker->log);
    const char *why;
    char version[160];
    if (c->hello) {
        conn_fail(c, -EMBAR_EPROTO, "a second HELLO");
        return TURN_WAIT;
    }
    int rc = check(c, f, body, &why);
    if (rc == 0 && !c->local)
        rc = conn_known(c, &why);
    if (rc == -EMBAR_EVERSION) {
        (void)snprintf(version, sizeof(version),
                       "this broker speaks version %u of the protocol, which the client does not: "
                       "use the release that belongs to it",
                       WIRE_VERSION);
        why = version;
    }
    if (rc) {
        conn_fail(c, rc, why);
        return TURN_WAIT;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct wire_welcome w = {
        .magic = le32_of(WIRE_MAGIC),
        .version = le16_of(WIRE_VERSION),
        .max_batch = le32_of(c->worker->server->max_batch),
        .max_messages = le32_of(MEDIA_MAX_MESSAGES),
        .window = le32_of(WIRE_WINDOW),
        .durability = le32_of((uint32_t)pool->durability),
        .incarnation = le64_of(pool->incarnation),
        .time = le64_of((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec)};
    memcpy(w.uuid, pool->uuid, sizeof(w.uuid));
    c->hello = true;
    conn_put(c, WIRE_HELLO, 0, le64_get(f->ref), &w, sizeof(w));
    return TURN_NEXT;
}
