/* Whether it is told in which order the log took what stands (recovery).
 *
 * A record tells its session and sequence, or its producer, and when its batch was whole. Not when the log took
 * it: who announced first may come later, by the place that the sequencer arranges an epoch by, for it waits for
 * another of its session, or because its worker slept. Extents tell who reserved first, not who was taken first;
 * lines of other topics and checkpoints tell nothing of it. So among several publishers the times go for the
 * order only where they are FSCK_SLACK apart and the log committed something between, by what the records say that
 * they are behind: a sequencer may stand still for as long. Of one session at order 5 its sequences go, at others it
 * may have come over several connections; of one producer's batches without a session their times: the sequencer
 * keeps that order.
 * Changes nothing but the marks.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_salvage.h"

/* Does something tell how they stand to each other, however close they are? */
static bool is_told(const struct side *a, const struct side *b)
{
    return a->session == b->session && a->producer == b->producer &&
           (a->session == 0 || (a->fifo && b->fifo));
}

/* least[i]: behind which entry those were announced, at least, that stand from the i-th on. */
static void least_make(const struct side *const *s, uint64_t *least, size_t n)
{
    uint64_t lowest = UINT64_MAX;
    for (size_t i = n; i-- > 0;) {
        uint64_t after = fsck_after((1ull << MEDIA_AFTER_BITS) + s[0]->after, s[i]);
        lowest = after < lowest ? after : lowest;
        least[i] = lowest;
    }
}

/* Where cuts between two neighbours tell nothing: for some x before it and y behind, x and y are close, and of
 * different publishers. Of each y the first such x is found, which never goes back where y goes on. */
static void close_mark(const struct side *const *s, size_t n, const uint64_t *least, size_t *first,
                       bool *close)
{
    size_t low = 0, other = 0;
    for (size_t y = 0; y < n; y++) {
        while (s[y]->time - s[low]->time >= FSCK_SLACK && fsck_after(least[y], s[low]) < least[y])
            low++;
        other = other > low ? other : low + 1;
        while (other < y && is_told(s[other], s[low]))
            other++;
        first[y] = y == low || is_told(s[low], s[y]) ? other < y ? other : y : low;
        close[y] = false;
    }
    size_t lowest = n;
    for (size_t y = n; y-- > 1;) {
        lowest = first[y] < lowest ? first[y] : lowest;
        if (lowest < y)
            close[y] = close[y - 1] = true;
    }
}

int fsck_close(const struct side *const *s, size_t n, bool *close)
{
    size_t *first = malloc((n + 1) * sizeof *first);
    uint64_t *least = malloc((n + 1) * sizeof *least);
    if (first && least && n > 0) {
        least_make(s, least, n);
        close_mark(s, n, least, first, close);
    }
    int rc = first && least ? 0 : -ENOMEM;
    free(first);
    free(least);
    return rc;
}

struct lists {
    struct orphan **left;
    const struct side **s;
    bool *close;
};

static int lists_close(const struct salvage *v, const struct lists *l)
{
    struct fsck *f = v->f;
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0; i < f->orphans; i++) {
        struct orphan *o = f->of_topic[i];
        if (!o->taken && o->s.topic != 0 && o->s.time > salvage_newer_than(v, o->s.topic))
            l->left[n++] = o;
    }
    for (size_t i = 0, k; rc == 0 && i < n; i += k) {
        for (k = 0; i + k < n && l->left[i + k]->s.topic == l->left[i]->s.topic; k++)
            l->s[k] = &l->left[i + k]->s;
        rc = fsck_close(l->s, k, l->close);
        /* Nor is the place known of what follows in the topic. */
        bool from_here = false;
        for (size_t m = 0; rc == 0 && m < k; m++) {
            from_here = from_here || l->close[m] || l->left[i + m]->close;
            l->left[i + m]->close = from_here;
        }
    }
    return rc;
}

int salvage_close(const struct salvage *v)
{
    size_t n = v->f->orphans + 1;
    struct lists l = {.left = malloc(n * sizeof(struct orphan *)),
                      .s = malloc(n * sizeof(struct side *)),
                      .close = malloc(n * sizeof(bool))};
    int rc = l.left && l.s && l.close ? lists_close(v, &l) : -ENOMEM;
    free(l.left);
    free(l.s);
    free(l.close);
    return rc;
}
