/* Writing batches to a publisher's connection (step 2 from the client's side).
 *
 * The payload's checksum is taken where it is cheapest: of each piece just before that piece is sent,
 * so that the copy into the socket finds it in the cache. A batch of one piece has it in the frame's
 * header; a larger one behind the payload. Once known it stays with the batch, in whose header
 * it stands when the batch is sent again: the same bytes have the same checksum, and others are refused.
 *
 * Only the connections' owner comes here. Must never send a byte that is not in the sum, nor leave a frame
 * half written but by closing.
 */
#include "net/client/publisher.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "core/crc.h"

#define WRITE_PIECES 64           /* iovecs a sendmsg */
#define ZERO_MIN     (64u << 10)  /* below it a copy is cheaper than a completion */
#define SUM_PIECE    (256u << 10) /* what stays in the cache until it is copied */

/* Sum the next piece of the payload. */
static void sum_piece(struct pub_conn *c)
{
    struct pub_batch *b = c->writing;
    size_t room = SUM_PIECE;
    while (room > 0 && c->summed < b->length) {
        const struct iovec *iov = &b->iov[c->sum_iov];
        size_t n = iov->iov_len - c->sum_at;
        if (n > room)
            n = room;
        c->sum = crc32c_cold(c->sum, (const char *)iov->iov_base + c->sum_at, n);
        c->summed += n;
        c->sum_at += n;
        room -= n;
        if (c->sum_at == iov->iov_len) {
            c->sum_iov++;
            c->sum_at = 0;
        }
    }
    if (c->summed == b->length) {
        b->crc = c->sum;
        b->summed = true;
        c->behind.payload_crc = le32_of(b->crc);
    }
}

/* The frame's header for a batch just taken. */
static void begin_frame(struct pub_conn *c, uint32_t epoch)
{
    struct pub_batch *b = c->writing;
    size_t lengths = b->equal ? 0 : b->count * sizeof(le32);
    c->sum = 0;
    c->sum_iov = 0;
    c->sum_at = 0;
    c->summed = 0;
    if (!b->summed && b->length <= SUM_PIECE)
        sum_piece(c);
    bool behind = !b->summed;
    if (!behind)
        c->summed = b->length;
    c->tail = behind ? sizeof(c->behind) : 0;
    unsigned flags = (b->equal ? WIRE_F_EQUAL : 0) | (behind ? WIRE_F_SUM : 0);
    memset(&c->head, 0, sizeof(c->head));
    c->head.frame =
        wire_frame_of(WIRE_PUBLISH, flags, PUB_CHANNEL, b->sequence,
                      (uint32_t)(sizeof(c->head.publish) + lengths + b->length + c->tail));
    c->head.publish.sequence = le64_of(b->sequence);
    c->head.publish.count = le32_of(b->count);
    c->head.publish.payload = le32_of(b->length);
    c->head.publish.payload_crc = le32_of(behind ? 0 : b->crc);
    c->head.publish.lengths_crc = le32_of(lengths > 0 ? crc32c(0, b->lengths, lengths) : 0);
    c->head.publish.epoch = le32_of(epoch);
    c->head.publish.crc = le32_of(wire_publish_crc(&c->head.frame, &c->head.publish));
    c->written = 0;
}

/* Append what of piece lies behind the first *skip bytes. */
static int add_piece(struct iovec *iov, int n, void *base, size_t length, size_t *skip)
{
    if (*skip >= length) {
        *skip -= length;
        return n;
    }
    iov[n] = (struct iovec){(char *)base + *skip, length - *skip};
    *skip = 0;
    return n + 1;
}

/* What is left of the frame being written, as far as it is summed and one call takes it. *zero: it is
 * payload only, and may be sent without a copy. */
static int rest_of_frame(struct pub_conn *c, struct iovec iov[WRITE_PIECES], bool *zero, int *flags)
{
    struct pub_batch *b = c->writing;
    size_t skip = c->written;
    int n = add_piece(iov, 0, &c->head, sizeof(c->head), &skip);
    if (!b->equal)
        n = add_piece(iov, n, b->lengths, b->count * sizeof(*b->lengths), &skip);
    *zero = b->length >= ZERO_MIN && pub_zero_may(c);
    if (*zero && n > 0) {
        *zero = false;
        *flags = MSG_MORE;
        return n; /* by themselves: they are copied */
    }
    if (skip == c->summed && !b->summed)
        sum_piece(c); /* all that was summed is written */
    size_t left = c->summed;
    *zero &= left - skip >= ZERO_MIN;
    for (int i = 0; i < b->pieces && left > 0 && n < WRITE_PIECES; i++) {
        size_t length = b->iov[i].iov_len < left ? b->iov[i].iov_len : left;
        n = add_piece(iov, n, b->iov[i].iov_base, length, &skip);
        left -= length;
    }
    if (!*zero && left == 0 && c->summed == b->length && c->tail > 0 && n < WRITE_PIECES)
        n = add_piece(iov, n, &c->behind, c->tail, &skip);
    return n;
}

int pub_conn_write(struct pub_conn *c)
{
    struct embar_publisher *p = c->pub;
    if (c->fd < 0 || c->blocked)
        return 0;
    if (!c->writing) {
        pthread_mutex_lock(&p->lock);
        struct pub_batch *b = p->failed.code ? NULL : pub_take(p, c);
        uint32_t epoch = p->info.epoch;
        pthread_mutex_unlock(&p->lock);
        if (!b)
            return 0;
        c->writing = b;
        begin_frame(c, epoch);
    }
    struct iovec iov[WRITE_PIECES];
    bool zero;
    int flags = 0, pieces = rest_of_frame(c, iov, &zero, &flags);
    ssize_t n = zero ? pub_zero_write(c, iov, pieces) : link_write(c->fd, iov, pieces, flags);
    if (n == -EAGAIN) {
        c->blocked = true;
        return 0;
    }
    if (n < 0)
        return (int)n;
    c->written += (size_t)n;
    if (c->written == sizeof(struct wire_frame) + le32_get(c->head.frame.length))
        pub_written(p, c, true);
    return 1;
}

bool pub_conn_pump(struct pub_conn *c)
{
    int rc = pub_conn_write(c);
    if (rc >= 0)
        return rc > 0;
    pub_conn_read(c); /* the broker's reason may still be there to be read */
    if (c->fd >= 0) {
        struct embar_error why;
        (void)embar_fail(&why, rc, "The connection to the broker broke (%s).", strerror(-rc));
        pub_lost(c, &why);
    }
    return true;
}
