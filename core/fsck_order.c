/* Whether it is told in which order the log took what stands (recovery).
 *
 * A record tells its session, its sequence and when its batch was whole. Not when the log took it: who
 * announced first may come later, by the place that the sequencer arranges an epoch by, for it waits for another
 * of its session, or because its worker slept. Extents tell who reserved first, not who was taken first; lines
 * of other topics and checkpoints tell nothing of it. So among several publishers the times go for the
 * order only where they are FSCK_SLACK apart; of one session its sequences do. What has no session may be of
 * many publishers, too, which none of it tells: there the times go, unless the places gainsay: those of an epoch
 * are taken from the lowest place up, and the later one has the lower place, which was reserved first.
 * Changes nothing but the marks.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_salvage.h"

static uint64_t extent_of(const struct pool *p, const struct side *s)
{
    return pool_extent_base(p, s->run0, s->order0);
}

/* Does it go on in the extent that the other one begins in? */
static bool goes_into(const struct pool *p, const struct side *s, const struct side *other)
{
    return s->run1 && pool_extent_base(p, s->run1, s->order1) == extent_of(p, other);
}

/* Was the place of b reserved before that of a? A topic fills one extent at a time: who stands first in one came
 * behind all of the extents before it. */
static bool is_reserved_before(const struct pool *p, const struct side *b, const struct side *a)
{
    uint64_t of_a = extent_of(p, a), of_b = extent_of(p, b);
    if (of_a == of_b)
        return b->run0 < a->run0;
    return goes_into(p, b, a) || (!goes_into(p, a, b) && a->run0 == of_a && b->run0 != of_b);
}

/* a stands before b in the order of their times. */
static bool is_close(const struct pool *p, const struct side *a, const struct side *b)
{
    if (b->time - a->time >= FSCK_SLACK)
        return false;
    if (a->session != b->session)
        return true;
    return a->session == 0 && a->run0 > b->run0 && is_reserved_before(p, b, a);
}

/* Where cuts between two neighbours tell nothing: for some x before it and y behind, x and y are close. Of each y
 * the first such x is found, which never goes back where y goes on. */
int fsck_close(const struct pool *p, const struct side *const *s, bool *close, size_t n)
{
    size_t *first = malloc((n + 1) * sizeof *first), low = 0, other = 0;
    if (!first)
        return -ENOMEM;
    for (size_t y = 0; y < n; y++) {
        while (s[y]->time - s[low]->time >= FSCK_SLACK)
            low++;
        other = other > low ? other : low + 1;
        while (other < y && s[other]->session == s[low]->session)
            other++;
        first[y] = y > 0 && is_close(p, s[y - 1], s[y]) ? y - 1 : y;
        if (s[low]->session != s[y]->session)
            first[y] = low;
        else if (other < y)
            first[y] = other;
        close[y] = false;
    }
    size_t least = n;
    for (size_t y = n; y-- > 1;) {
        least = first[y] < least ? first[y] : least;
        if (least < y)
            close[y] = close[y - 1] = true;
    }
    free(first);
    return 0;
}

/* By topic, of each in the order of their times, in which they stand. */
static int by_topic(const void *a, const void *b)
{
    const struct orphan *x = *(struct orphan *const *)a, *y = *(struct orphan *const *)b;
    if (x->s.topic != y->s.topic)
        return x->s.topic < y->s.topic ? -1 : 1;
    return x < y ? -1 : x > y;
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
        struct orphan *o = &f->orphan[i];
        if (!o->taken && o->s.topic != 0 && o->s.time > salvage_newer_than(v, o->s.topic))
            l->left[n++] = o;
    }
    if (n > 1)
        qsort(l->left, n, sizeof(struct orphan *), by_topic);
    for (size_t i = 0, k; rc == 0 && i < n; i += k) {
        for (k = 0; i + k < n && l->left[i + k]->s.topic == l->left[i]->s.topic; k++)
            l->s[k] = &l->left[i + k]->s;
        rc = fsck_close(&v->log->pool, l->s, l->close, k);
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
