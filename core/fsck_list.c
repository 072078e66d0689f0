/* Batches that nothing names, topic by topic (recovery): who asks for those of one topic, or for the copies of one
 * batch, does not go through all of them. In the order of their times, as all of them stand. Reads only.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_state.h"

static int by_topic(const void *a, const void *b)
{
    const struct orphan *x = *(struct orphan *const *)a, *y = *(struct orphan *const *)b;
    if (x->s.topic != y->s.topic)
        return x->s.topic < y->s.topic ? -1 : 1;
    return x < y ? -1 : x > y;
}

static bool is_beside(const struct orphan *a, const struct orphan *b)
{
    return a->s.topic == b->s.topic && b->s.time - a->s.time < FSCK_SLACK;
}

/* Those from the i-th on that one publisher sent to one topic, nobody else between: how many they are. */
static size_t alone_mark(struct fsck *f, size_t i)
{
    struct orphan **of = f->of_topic;
    const struct side *s = &of[i]->s;
    size_t end = i + 1;
    while (end < f->orphans && of[end]->s.topic == s->topic && of[end]->s.session == s->session &&
           of[end]->s.producer == s->producer)
        end++;
    for (size_t k = i; k < end; k++)
        of[k]->alone = s->session && of[k]->s.fifo && (i == 0 || !is_beside(of[i - 1], of[k])) &&
                       (end == f->orphans || !is_beside(of[k], of[end]));
    return end - i;
}

int fsck_lists_make(struct fsck *f)
{
    size_t n = f->orphans + f->twins;
    f->of_topic = malloc((n + 1) * sizeof(struct orphan *));
    if (!f->of_topic)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        f->of_topic[i] = &f->orphan[i];
    if (f->orphans > 1)
        qsort(f->of_topic, f->orphans, sizeof(struct orphan *), by_topic);
    if (f->twins > 1)
        qsort(f->of_topic + f->orphans, f->twins, sizeof(struct orphan *), by_topic);
    for (size_t i = 0, k; i < f->orphans; i += k)
        k = alone_mark(f, i);
    return 0;
}

bool fsck_comes_next(const struct orphan *a, const struct side *b)
{
    return a->alone && b->fifo && a->s.session == b->session && a->s.sequence + 1 == b->sequence;
}

/* The first that is not of a topic before `topic`, nor of this one and from before `time`. */
static size_t list_find(struct orphans all, uint32_t topic, uint64_t time)
{
    size_t low = 0, high = all.count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct side *s = &all.at[mid]->s;
        if (s->topic < topic || (s->topic == topic && s->time < time))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct orphans list_of(struct orphans all, uint32_t topic)
{
    size_t from = list_find(all, topic, 0);
    size_t to = topic < UINT32_MAX ? list_find(all, topic + 1, 0) : all.count;
    return (struct orphans){all.at + from, to - from};
}

struct orphans fsck_orphans_of(const struct fsck *f, uint32_t topic)
{
    return list_of((struct orphans){f->of_topic, f->of_topic ? f->orphans : 0}, topic);
}

struct orphans fsck_twins_of(const struct fsck *f, uint32_t topic)
{
    return list_of((struct orphans){f->of_topic + f->orphans, f->twins}, topic);
}

size_t orphans_find(struct orphans of, uint64_t time)
{
    return of.count > 0 ? list_find(of, of.at[0]->s.topic, time) : 0;
}

struct orphans orphans_at(struct orphans of, uint64_t time)
{
    size_t from = orphans_find(of, time), to = from;
    while (to < of.count && of.at[to]->s.time == time)
        to++;
    return (struct orphans){of.at + from, to - from};
}

bool fsck_same_batch(const struct side *a, const struct side *b)
{
    return a->time == b->time && a->topic == b->topic && a->sequence == b->sequence &&
           a->producer == b->producer && a->length == b->length && a->payload_crc == b->payload_crc;
}

const struct orphan *fsck_as_named(const struct fsck *f, const struct orphan *o)
{
    if (o->named == 0)
        return o;
    struct orphans twins = orphans_at(fsck_twins_of(f, o->s.topic), o->s.time);
    for (size_t i = 0; i < twins.count; i++)
        if (twins.at[i]->named == o->named && fsck_same_batch(&twins.at[i]->s, &o->s))
            return twins.at[i];
    return o;
}
