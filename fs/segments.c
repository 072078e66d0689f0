/* .embar/segments/<topic>/<offset>: sealed pieces of a topic, for those who read the same bytes over
 * and over (step 9). What stands at an offset never changes, so the kernel may keep these in its
 * page cache and map them, which it may not with a file that grows.
 *
 * The piece of slot k is the messages that begin in [k, k + 1) * SEGMENT_SIZE; its name is the log offset
 * of the first, which is in that slot, too. It is there once a later message is, and until a trim
 * reaches it.
 *
 * Must never answer a read short: the kernel fills up a page with zeros and keeps it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "fs/fs.h"

#define SEGMENT_SIZE (16u << 20)
_Static_assert(SEGMENT_SIZE >= MEDIA_MAX_BATCH, "a message reaches into the next slot at most");

/* The first message that begins at or behind `at`: where, and the time of its batch. -ENOENT when
 * none has yet. */
static int message_from(struct topic *t, uint64_t at, uint64_t *offset, uint64_t *time)
{
    struct batch_cursor c = {.offset = at};
    struct batch_view v;
    uint32_t index;
    uint64_t length = 0;
    int rc = topic_next(t, &c, &v);
    if (rc <= 0)
        return rc ? rc : -ENOENT;
    rc = view_message(&v, at, &index, offset);
    if (rc == 0 && *offset < at) {
        rc = view_bytes(&v, index, index + 1, &length);
        *offset += length;
    }
    *time = v.time;
    read_release(&v.data);
    return rc;
}

struct piece {
    uint64_t begin, end, time;
};

static int piece_of(struct topic *t, uint64_t slot, struct piece *p)
{
    uint64_t time;
    int rc = message_from(t, slot * SEGMENT_SIZE, &p->begin, &time);
    if (rc == 0)
        rc = message_from(t, (slot + 1) * SEGMENT_SIZE, &p->end, &p->time);
    return rc ? rc : p->begin < p->end ? 0 : -ENOENT;
}

static int piece_lookup(struct fs *fs, const struct node *parent, const char *name,
                        struct node **out)
{
    char *end, again[24];
    uint64_t offset = strtoull(name, &end, 10);
    struct piece p;
    (void)snprintf(again, sizeof again, "%020" PRIu64, offset);
    if (*end || strcmp(name, again) != 0)
        return -ENOENT;
    struct topic *t = log_topic(fs->log, parent->id);
    if (!t)
        return -ENOENT;
    int rc = piece_of(t, offset / SEGMENT_SIZE, &p);
    topic_put(t);
    if (rc || p.begin != offset)
        return rc == -EMBAR_ECORRUPT || rc == -EMBAR_EFAULTED ? rc : -ENOENT;
    *out = node_get_segment(&fs->nodes, parent->id, p.begin, p.end - p.begin, p.time);
    return *out ? 0 : -ENOMEM;
}

int segments_lookup(struct fs *fs, const struct node *parent, const char *name, struct node **out)
{
    struct node_stat st;
    size_t n = strlen(name);
    if (parent->kind == NODE_SEGMENTS)
        return piece_lookup(fs, parent, name, out);
    int rc = n > MEDIA_MAX_NAME ? -ENOENT : log_lookup(fs->log, parent->id, name, n, &st);
    if (rc)
        return rc == -EMBAR_ENAME || rc == -EMBAR_ERESERVED ? -ENOENT : rc;
    *out = node_get(&fs->nodes, S_ISDIR(st.mode) ? NODE_SEGMENTS_DIR : NODE_SEGMENTS, st.id, 0);
    return *out ? 0 : -ENOMEM;
}

int segments_list(struct fs *fs, const struct node *dir, uint64_t from,
                  bool (*add)(void *arg, const char *name, uint64_t next), void *arg)
{
    struct topic *t = log_topic(fs->log, dir->id);
    if (!t)
        return -ENOENT;
    uint64_t slot = topic_base(t) / SEGMENT_SIZE, last = topic_end(t) / SEGMENT_SIZE;
    char name[24];
    struct piece p;
    bool room = true;
    for (slot = slot > from ? slot : from; room && slot < last; slot++)
        if (piece_of(t, slot, &p) == 0) { /* what is damaged is left out, what is trimmed is gone */
            (void)snprintf(name, sizeof name, "%020" PRIu64, p.begin);
            room = add(arg, name, slot + 1);
        }
    topic_put(t);
    return 0;
}

void segment_read(struct handle *h, fuse_req_t req, size_t size, off_t off)
{
    uint64_t at = off < 0 || (uint64_t)off > h->length ? h->length : (uint64_t)off;
    size_t n = h->length - at < size ? (size_t)(h->length - at) : size;
    char *text = malloc(n ? n : 1);
    size_t copied = 0;
    int rc = text ? copy_bytes(h, text, h->base + at, n, &copied) : -ENOMEM;
    if (rc == 0 && copied < n)
        rc = -EMBAR_ECORRUPT;
    count_add(&h->fs->count.reads, 1);
    if (rc) {
        fuse_reply_err(req, embar_to_errno(rc));
    } else {
        count_add(&h->fs->count.read_bytes, n);
        fuse_reply_buf(req, text, n);
    }
    free(text);
}
