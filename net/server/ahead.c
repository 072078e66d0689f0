/* What a channel's session has committed ahead of its mark: the bits of an ACK (step 9).
 *
 * At orders 0 and 2 a batch is committed as it arrives, though one before it is still missing. Its
 * publisher hears of it at once, by a bit behind the mark, so that it neither waits nor sends it
 * again. Bits are kept for batches that came over this very channel, in a ring by sequence that
 * holds exactly the window above the mark; the ring is made when the first bit is due.
 *
 * Must never say a bit for a batch whose commit was not told, nor fail one for want of memory: then
 * its ack waits for the mark.
 */
#include <stdlib.h>

#include "net/server/internal.h"

#define WORD(sequence) ((sequence) / 64 % WIRE_AHEAD)
#define BIT(sequence)  (1ull << ((sequence) % 64))

_Static_assert(WIRE_WINDOW % 64 == 0 && WIRE_AHEAD * 64 == WIRE_WINDOW, "whole words");

void ahead_set(struct channel *ch, uint64_t sequence)
{
    if (sequence <= ch->mark || sequence - ch->mark > WIRE_WINDOW)
        return;
    if (!ch->ahead)
        ch->ahead = calloc(WIRE_AHEAD, sizeof(*ch->ahead));
    if (!ch->ahead || (ch->ahead[WORD(sequence)] & BIT(sequence)))
        return;
    ch->ahead[WORD(sequence)] |= BIT(sequence);
    ch->ahead_count++;
}

void ahead_pass(struct channel *ch, uint64_t mark)
{
    /* What lies a window above the old mark or more has no bit. */
    for (uint64_t s = ch->mark + 1; ch->ahead_count > 0 && s <= mark; s++) {
        if (!(ch->ahead[WORD(s)] & BIT(s)))
            continue;
        ch->ahead[WORD(s)] &= ~BIT(s);
        ch->ahead_count--;
    }
    ch->mark = mark;
}

unsigned ahead_words(const struct channel *ch, le64 words[WIRE_AHEAD])
{
    unsigned n = 0;
    uint64_t first = ch->mark + 1;
    unsigned shift = first % 64;
    for (unsigned i = 0; ch->ahead_count > 0 && i < WIRE_AHEAD; i++) {
        uint64_t low = ch->ahead[WORD(first + 64ull * i)];
        uint64_t high = ch->ahead[WORD(first + 64ull * i + 64)];
        uint64_t v = shift ? low >> shift | high << (64 - shift) : low;
        words[i] = le64_of(v);
        if (v)
            n = i + 1;
    }
    return n;
}
