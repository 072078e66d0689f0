/* The two places of each piece that the checkpoint names (recovery): the one that the state was not
 * loaded from must say the same. Reads only.
 */
#include <inttypes.h>
#include <string.h>

#include "core/fsck_state.h"

/* Both places: which is damaged, if any? `bytes` counts from each one's begin, and was checked where
 * the piece was loaded from. */
static bool differs(const struct pool *p, const struct extent *e, bool by_copy, uint64_t bytes,
                    struct fsck_range *place)
{
    uint64_t copy = e->base + checkpoint_room(e->size), at = by_copy ? e->base : copy;
    *place = (struct fsck_range){at, at + bytes};
    return memcmp(pool_at(p, e->base), pool_at(p, copy), bytes) != 0;
}

static const void *loaded(const struct pool *p, const struct extent *e, bool by_copy)
{
    return pool_at(p, e->base + (by_copy ? checkpoint_room(e->size) : 0));
}

static void manifest_pieces(struct fsck *f)
{
    const struct pool *p = &f->pool;
    const struct manifest *m = &f->log->manifest;
    for (size_t i = 0; i < m->count; i++) {
        const struct manifest_piece *piece = &m->piece[i];
        const struct media_manifest *h = loaded(p, piece->extent, piece->by_copy);
        struct fsck_range place;
        if (!differs(p, piece->extent, piece->by_copy, sizeof *h + le32_get(h->size), &place))
            continue;
        f->state_damaged = true;
        fsck_say(
            f,
            &(struct finding){.kind = FSCK_CHECKPOINT,
                              .severity = FSCK_WARNING,
                              .action = FSCK_REWRITE,
                              .place = place},
            piece->by_copy
                ? "Piece %zu of the checkpoint's names, attributes and sessions is damaged. Its "
                  "copy is whole."
                : "The copy of piece %zu of the checkpoint's names, attributes and sessions is "
                  "damaged. The piece itself is whole.",
            i + 1);
    }
}

static void table_pieces(struct fsck *f, struct topic *t)
{
    const struct pool *p = &f->pool;
    bool damaged = false;
    for (size_t i = 0; i < t->table.count; i++) {
        const struct table_piece *piece = &t->table.piece[i];
        const struct media_table *h = loaded(p, piece->extent, piece->by_copy);
        struct fsck_range place;
        if (!differs(p, piece->extent, piece->by_copy,
                     sizeof *h + le32_get(h->count) * sizeof(struct media_run), &place))
            continue;
        damaged = true;
        fsck_say(
            f,
            &(struct finding){.kind = FSCK_TABLE,
                              .severity = FSCK_WARNING,
                              .action = FSCK_REWRITE,
                              .id = t->id,
                              .place = place},
            piece->by_copy
                ? "A piece of the table that says where its messages stand is damaged. Its copy is "
                  "whole."
                : "The copy of a piece of the table that says where its messages stand is damaged. "
                  "The piece itself is whole.");
    }
    if (!damaged)
        return;
    f->state_damaged = true;
    table_rewrite(f->log, t);
}

void fsck_copies(struct fsck *f)
{
    manifest_pieces(f);
    for (struct topic *t = f->log->names.by_id; t; t = t->by_id.next)
        table_pieces(f, t);
}
