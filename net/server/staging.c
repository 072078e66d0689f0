/* Staging: a worker's bounded pieces of memory for payload that trickles in (step 3).
 *
 * A batch reserves pool space when its first 64 KiB (or all of it) are here. Mostly they wait in the
 * socket and nothing is copied; when the socket alone may not hold them, they are collected in a
 * piece. Pieces are made on demand, kept, and never more than STAGING_PIECES: then connections wait
 * unread. A piece is held for 30 s at most (conn_tick).
 */
#include <stdlib.h>

#include "net/server/internal.h"

uint8_t *staging_take(struct worker *w)
{
    struct staging *s = &w->staging;
    if (s->free_count > 0)
        return s->free[--s->free_count];
    if (s->made == STAGING_PIECES)
        return NULL;
    uint8_t *piece = malloc(RESERVE_AT);
    if (piece)
        s->made++;
    return piece;
}

void staging_give(struct worker *w, uint8_t *piece)
{
    struct staging *s = &w->staging;
    s->free[s->free_count++] = piece;
    struct conn *c = TAILQ_FIRST(&w->unstaged);
    if (c) {
        conn_wait_end(c);
        conn_ready(c);
    }
}

void staging_destroy(struct worker *w)
{
    struct staging *s = &w->staging;
    while (s->free_count > 0)
        free(s->free[--s->free_count]);
}
