/* Sending payload without a copy (step 2 from the client's side).
 *
 * With MSG_ZEROCOPY the kernel sends from the batch's own pages and says on the socket's error queue
 * when it is done with them; until then the batch is pinned: its callbacks are not told and its buffer is not
 * used again. Where the kernel says that it copied after all (loopback, and whatever lies behind a
 * device that cannot gather) this costs more than it saves, and is switched off for the publisher,
 * unless its caller insists. Small sends are copied in any case, and so are headers and lengths, whose memory
 * is used again sooner.
 *
 * When a connection is closed its pins are dropped: what of it the kernel may still send is not stored if its
 * bytes change, for it is a duplicate or does not match its checksum.
 *
 * Only the connections' owner comes here. Must never leave a pin behind, nor fail because the kernel
 * refuses: then it copies.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <linux/errqueue.h> /* wants struct timespec */

#include "net/client/publisher.h"

#define RING 1024u /* sends that are not completed, a connection */

void pub_zero_open(struct pub_conn *c)
{
    struct embar_publisher *p = c->pub;
    int one = 1;
    c->zero = false;
    if (p->opt.zerocopy == EMBAR_ZEROCOPY_NEVER || p->zero_copied)
        return;
    /* A Unix socket and an old kernel refuse. */
    if (setsockopt(c->fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) != 0)
        return;
    c->zero_ring = calloc(RING, sizeof(*c->zero_ring));
    c->zero_first = c->zero_next = 0;
    c->zero = c->zero_ring != NULL;
}

bool pub_zero_may(const struct pub_conn *c)
{
    return c->zero && !c->pub->zero_copied && c->zero_next - c->zero_first < RING;
}

ssize_t pub_zero_write(struct pub_conn *c, const struct iovec *iov, int pieces)
{
    struct embar_publisher *p = c->pub;
    struct pub_batch *b = c->writing;
    ssize_t n = link_write(c->fd, iov, pieces, MSG_ZEROCOPY);
    if (n == -ENOBUFS) /* too many are under way for this user's limits */
        return link_write(c->fd, iov, pieces, 0);
    if (n <= 0)
        return n;
    c->zero_ring[c->zero_next++ % RING] = b;
    pthread_mutex_lock(&p->lock);
    b->pins++;
    p->info.zerocopies++;
    pthread_mutex_unlock(&p->lock);
    return n;
}

/* The sends of these numbers are done. Under the lock. */
static void unpin(struct pub_conn *c, uint32_t low, uint32_t high)
{
    for (uint32_t i = low; c->zero_next - i <= RING && i != c->zero_next; i++) {
        struct pub_batch **b = &c->zero_ring[i % RING];
        if (*b) { /* NULL: told before */
            (*b)->pins--;
            *b = NULL;
        }
        if (i == high)
            break;
    }
    while (c->zero_first != c->zero_next && !c->zero_ring[c->zero_first % RING])
        c->zero_first++;
}

/* One message of the error queue. False: there is none. */
static bool take_one(struct pub_conn *c)
{
    struct embar_publisher *p = c->pub;
    union {
        char room[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_in6))];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_control = &control, .msg_controllen = sizeof(control)};
    if (recvmsg(c->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
        return false;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        struct sock_extended_err e;
        if (h->cmsg_len < CMSG_LEN(sizeof(e)))
            continue;
        memcpy(&e, CMSG_DATA(h), sizeof(e));
        if (e.ee_origin != SO_EE_ORIGIN_ZEROCOPY || e.ee_errno != 0)
            continue;
        pthread_mutex_lock(&p->lock);
        unpin(c, e.ee_info, e.ee_data);
        if (e.ee_code & SO_EE_CODE_ZEROCOPY_COPIED) {
            p->info.zerocopies_copied += e.ee_data - e.ee_info + 1;
            p->zero_copied = p->opt.zerocopy == EMBAR_ZEROCOPY_AUTO;
        }
        pthread_mutex_unlock(&p->lock);
    }
    return true;
}

void pub_zero_read(struct pub_conn *c)
{
    bool any = false;
    while (c->fd >= 0 && c->zero_ring && c->zero_first != c->zero_next && take_one(c))
        any = true;
    if (any)
        pub_tell(c->pub, NULL);
}

void pub_zero_close(struct pub_conn *c)
{
    struct embar_publisher *p = c->pub;
    if (!c->zero_ring)
        return;
    pthread_mutex_lock(&p->lock);
    if (c->zero_first != c->zero_next)
        unpin(c, c->zero_first, c->zero_next - 1);
    pthread_mutex_unlock(&p->lock);
    free(c->zero_ring);
    c->zero_ring = NULL;
    c->zero = false;
}
