/* The wire format's sizes and offsets, asserted, and the checks that both sides share (step 2).
 *
 * Knows no sockets. Must never trust a field: every length goes through 64-bit arithmetic and a
 * bound before anyone uses it.
 */
#include "net/wire.h"

#include <stddef.h>

#include "core/crc.h"
#include "embar/error.h"

#define SIZE(type, n)       _Static_assert(sizeof(struct type) == (n), #type " size")
#define AT(type, field, at) _Static_assert(offsetof(struct type, field) == (at), #type "." #field)

SIZE(wire_frame, 16);
AT(wire_frame, length, 0);
AT(wire_frame, type, 4);
AT(wire_frame, flags, 5);
AT(wire_frame, channel, 6);
AT(wire_frame, ref, 8);
SIZE(wire_hello, 40);
AT(wire_hello, version, 4);
AT(wire_hello, oldest, 6);
AT(wire_hello, features, 8);
AT(wire_hello, token, 12);
AT(wire_hello, incarnation, 16);
AT(wire_hello, uuid, 24);
SIZE(wire_welcome, 64);
AT(wire_welcome, version, 4);
AT(wire_welcome, max_batch, 8);
AT(wire_welcome, max_messages, 12);
AT(wire_welcome, window, 16);
AT(wire_welcome, durability, 20);
AT(wire_welcome, incarnation, 24);
AT(wire_welcome, uuid, 32);
AT(wire_welcome, time, 48);
SIZE(wire_open, 24);
AT(wire_open, epoch, 8);
AT(wire_open, mode, 12);
AT(wire_open, order, 13);
AT(wire_open, ack, 14);
AT(wire_open, create, 15);
AT(wire_open, path, 16);
SIZE(wire_opened, 48);
AT(wire_opened, sequence, 8);
AT(wire_opened, messages, 16);
AT(wire_opened, end, 24);
AT(wire_opened, epoch, 32);
AT(wire_opened, topic, 36);
AT(wire_opened, order, 40);
AT(wire_opened, ack, 41);
SIZE(wire_publish, 48);
AT(wire_publish, count, 8);
AT(wire_publish, payload, 12);
AT(wire_publish, payload_crc, 16);
AT(wire_publish, lengths_crc, 20);
AT(wire_publish, epoch, 24);
AT(wire_publish, crc, 28);
AT(wire_publish, zero, 32);
SIZE(wire_sum, 4);
SIZE(wire_ack, 32);
AT(wire_ack, messages, 8);
AT(wire_ack, offset, 16);
AT(wire_ack, epoch, 24);
AT(wire_ack, words, 28);
SIZE(wire_close, 8);
SIZE(wire_subscribe, 24);
AT(wire_subscribe, limit, 8);
AT(wire_subscribe, from, 16);
AT(wire_subscribe, follow, 17);
AT(wire_subscribe, path, 18);
SIZE(wire_subscribed, 48);
AT(wire_subscribed, message, 8);
AT(wire_subscribed, base, 16);
AT(wire_subscribed, end, 24);
AT(wire_subscribed, topic, 32);
AT(wire_subscribed, incarnation, 40);
SIZE(wire_data, 48);
AT(wire_data, message, 8);
AT(wire_data, time, 16);
AT(wire_data, count, 24);
AT(wire_data, payload, 28);
AT(wire_data, crc, 32);
AT(wire_data, whole, 36);
SIZE(wire_end, 16);
AT(wire_end, message, 8);
SIZE(wire_admin, 32);
AT(wire_admin, from, 1);
AT(wire_admin, order, 2);
AT(wire_admin, ack, 3);
AT(wire_admin, policy, 4);
AT(wire_admin, flags, 6);
AT(wire_admin, mode, 8);
AT(wire_admin, path, 12);
AT(wire_admin, second, 14);
AT(wire_admin, value, 16);
AT(wire_admin, value2, 24);
SIZE(wire_ok, 16);
AT(wire_ok, value2, 8);
SIZE(wire_error, 32);
AT(wire_error, epoch, 4);
AT(wire_error, sequence, 8);
AT(wire_error, messages, 16);
AT(wire_error, text, 24);

struct wire_frame wire_frame_of(enum wire_type type, unsigned flags, uint16_t channel, uint64_t ref,
                                uint32_t length)
{
    return (struct wire_frame){.length = le32_of(length),
                               .type = (uint8_t)type,
                               .flags = (uint8_t)flags,
                               .channel = le16_of(channel),
                               .ref = le64_of(ref)};
}

uint64_t wire_batch_size(bool equal, uint32_t count, uint32_t payload)
{
    if (count == 0 || payload == 0 || count > payload || (equal && payload % count != 0))
        return UINT64_MAX;
    return (equal ? 0 : 4 * (uint64_t)count) + payload;
}

uint32_t wire_publish_crc(const struct wire_frame *f, const struct wire_publish *p)
{
    struct wire_publish copy = *p;
    copy.crc = le32_of(0);
    return crc32c(crc32c(0, f, sizeof(*f)), &copy, sizeof(copy));
}

static bool all_zero(const uint8_t *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

int wire_publish_check(const struct wire_frame *f, const struct wire_publish *p, uint32_t max_batch,
                       uint32_t max_messages, const char **why)
{
    bool equal = f->flags & WIRE_F_EQUAL, sum = f->flags & WIRE_F_SUM;
    uint32_t count = le32_get(p->count), payload = le32_get(p->payload);
    *why = "the checksum of a batch header does not match";
    if (le32_get(p->crc) != wire_publish_crc(f, p))
        return -EMBAR_ECRC;
    *why = "a batch header has unknown flags or a non-zero reserved field";
    if ((f->flags & ~(WIRE_F_EQUAL | WIRE_F_SUM)) || !all_zero(p->zero, sizeof(p->zero)))
        return -EMBAR_EPROTO;
    *why = "a batch has its checksum both in its header and behind its payload";
    if (sum && le32_get(p->payload_crc) != 0)
        return -EMBAR_EPROTO;
    *why = "a batch is above the size told at the handshake";
    if (payload > max_batch || count > max_messages)
        return -EMBAR_ETOOBIG;
    *why = "a batch is empty, has more messages than bytes, or its equal parts leave a remainder";
    uint64_t size = wire_batch_size(equal, count, payload);
    if (size == UINT64_MAX)
        return -EMBAR_EINVALID;
    *why = "a batch's frame length contradicts its counts";
    if (le32_get(f->length) != sizeof(*p) + size + (sum ? sizeof(struct wire_sum) : 0))
        return -EMBAR_EPROTO;
    *why = "a batch has the sequence number 0";
    if (le64_get(p->sequence) == 0)
        return -EMBAR_EINVALID;
    /* The media keeps 48 bits. */
    *why = "a batch's sequence number is above 2^48";
    if (le64_get(p->sequence) >> 48)
        return -EMBAR_EINVALID;
    *why = "";
    return 0;
}

int wire_ack_check(const struct wire_ack *a, size_t length)
{
    uint32_t words = le32_get(a->words);
    return words <= WIRE_AHEAD && length == sizeof(*a) + 8 * (size_t)words ? 0 : -EMBAR_EPROTO;
}

int wire_data_check(const struct wire_frame *f, const struct wire_data *d, uint32_t max_batch,
                    uint32_t max_messages)
{
    bool equal = f->flags & WIRE_F_EQUAL;
    uint32_t count = le32_get(d->count), payload = le32_get(d->payload);
    if ((f->flags & ~WIRE_F_EQUAL) || payload > max_batch || count > max_messages)
        return -EMBAR_EPROTO;
    /* Unlike a batch, the rest of one may consist of empty messages. */
    if (count == 0 || (equal && payload % count != 0))
        return -EMBAR_EPROTO;
    uint64_t size = sizeof(*d) + (equal ? 0 : 4 * (uint64_t)count) + payload;
    return le32_get(f->length) == size ? 0 : -EMBAR_EPROTO;
}
