/* Checkpoint, trim, move and the reuse of places as a model (DESIGN I2, I3, I7; step 8). README.md says which
 * function each action stands for and what is left out.
 *
 * One server with one topic, whose batches 1 to N each take one of P places. Its ring has K index
 * lines, so that nothing goes on without checkpoints; a checkpoint adds a piece, in a place of its own, to
 * those it goes on from or takes them in, and a root of two lines into the older of two areas. A
 * publisher takes free places and fills them at any moment, also while the server checkpoints. Each line
 * that is stored leaves the cache at any moment, or never; the server is killed (and its host keeps the
 * cache) or its host loses power at any moment. Another host looks: it recovers from the media, copies a
 * batch a while later, and then asks whether its copy is right.
 *
 * Checked whenever a line reaches the media: who recovers now finds every batch that anybody was told
 * of and that no trim asks for, each in a place that holds it. While the server waits: what is taken is
 * what is live or named by the newest root. And a copy that is called right is right.
 *
 * Each macro below takes one rule away: the checker must then find a violation (tests/model/run).
 *   EARLY_FREE    what a trim frees is free before its entry is drained    seq_control
 *   NO_PAYLOAD    an entry is written before its payload is drained        log_announce
 *   NO_PIECE      a root is written before its piece is drained            checkpoint_begin
 *   EARLY_RETIRE  what a root names no more is free before it is drained   checkpoint_end
 *   EARLY_RING    ring lines are given away before it is                   checkpoint_end
 *   SAME_AREA     a root is written over the newest one                    root_older
 *   SKIP_TRIM     a checkpoint leaves out that the base moved              manifest_touch
 *   SKIP_RUN      or what came first since the last one                    table_plan
 *   DROP_PIECE    pieces that the new one goes on from are retired         table_plan
 *   NO_RETIRE     what was retired is never free                           checkpoint_end
 *   NO_HARDEN     a root found in the cache is built upon as it is         checkpoint_harden
 *   NO_REHARDEN   so are entries                                           log_serve
 *   BLIND         the other host does not ask                              log_settled
 *   ASK_FIRST     or before it copies                                      log_settled
 *   NO_COPY       a move's entry is written before its copy is drained     move_run
 *   EARLY_MOVE    what a move frees is free before its entry is drained    seq_move
 *   KEEP_MOVED    a checkpoint keeps pieces that name the old place        table_rewrite
 *   NO_MOVED      a move behind what was recovered is overlooked           log_settled
 *   NO_CONTROL    a trim behind what was recovered is overlooked           log_settled
 *   NO_ROUND      so is that the ring went round                           at_end
 */
#ifndef N
#define N 3 /* batches in all */
#endif
#ifndef PLACES
#define PLACES 3
#endif
#ifndef LINES
#define LINES 2 /* of the ring */
#endif
#ifndef ROOTS
#define ROOTS 2 /* checkpoints in all */
#endif
#ifndef MOVES
#define MOVES 0 /* in all */
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef LOOKS
#define LOOKS 0
#endif

/* What an entry says: batch s in place p, its move there, or a trim to batch b. What a place holds: a batch,
 * or piece g. */
#define BATCH(s, p) ((s) * 8 + (p))
#define MOVE(s, p)  (64 + (s) * 8 + (p))
#define IS_MOVE(v)  ((v) >= 64 && (v) < 128)
#define TRIM(b)     (128 + (b))
#define IS_TRIM(v)  ((v) >= 128)
#define SERIAL(v)   (((v) % 64) / 8)
#define PLACE(v)    ((v) % 8)
#define PIECE(g)    (16 + (g))
#define NOBODY      PLACES

#define AT(n)    ((n) % LINES)
#define LOC(g, s) ((g) * (N + 1) + (s))
#define HAS(set, i) (((set) >> (i)) & 1)

/* On the media, and stored and not drained: places, ring lines, the two lines of each root. */
byte mp[PLACES], sp[PLACES];
byte mnum[LINES], mval[LINES], mterm[LINES], mprev[LINES];
byte snum[LINES], sval[LINES], sterm[LINES], sprev[LINES];
byte mroot[4], sroot[4];

/* What roots and pieces say, by their number, which stands for the checksum: nothing of one was ever
 * another's. Piece g has batches [pfrom, gend); the one before it has those below. */
byte gens;
byte gnum[ROOTS + 1], gterm[ROOTS + 1], gbase[ROOTS + 1], gend[ROOTS + 1];
byte pplace[ROOTS + 1], pfrom[ROOTS + 1], pbefore[ROOTS + 1];
byte ploc[(ROOTS + 1) * (N + 1)];

/* The server, while it is up. */
bool up;
byte term, prev, next, floor, base, end; /* next: entry number; floor: the newest root's */
byte loc[N + 2];
byte used;   /* places that are not free, a bit each */
byte chain;  /* pieces that the newest root names, a bit each */
byte newest; /* root */
bool moved;  /* some batch that its pieces tell of */
byte taken;  /* place that the publisher fills, or NOBODY; */
bool ready;  /* and has drained */

byte told_base, told_end, asked; /* batches [told_base, told_end) are promised, but for those below `asked` */
byte deaths, moves;

/* Scratch of one d_step, no part of a state. */
hidden byte i, j, g, e;
hidden byte vp[PLACES], vnum[LINES], vval[LINES], vterm[LINES], vprev[LINES], vroot[4];
hidden byte wbase, wend, wnum, wterm, wfloor, wroot, wchain, wmoved, wloc[N + 2];

/* ---- Recovery ----------------------------------------------------------------------------- */

/* As the media are, or through the cache of the server's host. */
inline view(cached)
{
    i = 0;
    do
    :: i < PLACES -> vp[i] = (cached && sp[i] -> sp[i] : mp[i]); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < LINES ->
        if
        :: cached && snum[i] ->
            vnum[i] = snum[i]; vval[i] = sval[i]; vterm[i] = sterm[i]; vprev[i] = sprev[i]
        :: else ->
            vnum[i] = mnum[i]; vval[i] = mval[i]; vterm[i] = mterm[i]; vprev[i] = mprev[i]
        fi;
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < 4 -> vroot[i] = (cached && sroot[i] -> sroot[i] : mroot[i]); i++
    :: else -> break
    od
}

/* checkpoint_newest(), manifest_load(), table_load(): from the newest whole root, all its pieces. */
inline load()
{
    wroot = 0; wbase = 1; wend = 1; wnum = 0; wterm = 0; wchain = 0;
    i = 0;
    do
    :: i < 4 ->
        if
        :: vroot[i] == vroot[i + 1] && vroot[i] > wroot -> wroot = vroot[i]
        :: else
        fi;
        i = i + 2
    :: else -> break
    od;
    if
    :: wroot > 0 ->
        wbase = gbase[wroot]; wend = gend[wroot]; wnum = gnum[wroot]; wterm = gterm[wroot];
        g = wroot;
        e = wend;
        do
        :: g > 0 && (g == wroot || e > wbase) ->
            assert(vp[pplace[g]] == PIECE(g)); /* all that a root names is there */
            wchain = wchain | (1 << g);
            i = pfrom[g];
            do
            :: i < e -> wloc[i] = ploc[LOC(g, i)]; i++
            :: else -> break
            od;
            e = pfrom[g];
            g = pbefore[g]
        :: else -> break
        od
    :: else
    fi;
    wmoved = 0;
    wfloor = wnum
}

/* recover(): along the chain to its first break. */
inline replay()
{
    do
    :: vnum[AT(wnum + 1)] == wnum + 1 && vprev[AT(wnum + 1)] == wterm ->
        wnum++;
        wterm = vterm[AT(wnum)];
        if
        :: IS_TRIM(vval[AT(wnum)]) -> wbase = vval[AT(wnum)] - 128
        :: IS_MOVE(vval[AT(wnum)]) ->
            assert(SERIAL(vval[AT(wnum)]) >= wbase && SERIAL(vval[AT(wnum)]) < wend);
            wloc[SERIAL(vval[AT(wnum)])] = PLACE(vval[AT(wnum)]);
            wmoved = (wroot > 0 && SERIAL(vval[AT(wnum)]) < gend[wroot] -> 1 : wmoved)
        :: else ->
            assert(SERIAL(vval[AT(wnum)]) == wend);
            wloc[wend] = PLACE(vval[AT(wnum)]);
            wend++
        fi
    :: else -> break
    od
}

/* Nothing that is promised is missing, and each batch's place holds it. */
inline check_found()
{
    i = wbase;
    do
    :: i < wend -> assert(vp[wloc[i]] == i); i++
    :: else -> break
    od;
    assert(wend >= told_end);
    assert(wbase >= told_base && wbase <= asked)
}

/* Whoever opens the pool on a host that has nothing cached, now: what a loss of power would leave. */
inline check()
{
    view(false);
    load();
    replay();
    check_found()
}

/* What is not free is live, named by the newest root, or being filled. */
inline check_leak()
{
    j = 0;
    i = base;
    do
    :: i < end -> j = j | (1 << loc[i]); i++
    :: else -> break
    od;
    i = 1;
    do
    :: i <= gens ->
        if
        :: HAS(chain, i) -> j = j | (1 << pplace[i])
        :: else
        fi;
        i++
    :: else -> break
    od;
    if
    :: taken != NOBODY -> j = j | (1 << taken)
    :: else
    fi;
    assert(used == j)
}

/* ---- Lines that leave the cache ------------------------------------------------------------ */

inline place_out(p)
{
    printf("place %d reaches the media, with %d\n", p, sp[p]);
    mp[p] = sp[p]; sp[p] = 0
}

inline line_out(l)
{
    printf("line %d reaches the media, with entry %d\n", l, snum[l]);
    mnum[l] = snum[l]; mval[l] = sval[l]; mterm[l] = sterm[l]; mprev[l] = sprev[l];
    snum[l] = 0; sval[l] = 0; sterm[l] = 0; sprev[l] = 0
}

inline root_out(l)
{
    printf("half %d of area %d reaches the media, with root %d\n", l % 2, l / 2, sroot[l]);
    mroot[l] = sroot[l]; sroot[l] = 0
}

active proctype caches()
{
    byte l;
    do
    :: atomic {
           l = 0;
           do
           :: l < PLACES + LINES + 3 -> l++
           :: break
           od;
           if
           :: l < PLACES && sp[l] -> d_step { place_out(l); l = 0; check() }
           :: l >= PLACES && l < PLACES + LINES && snum[l - PLACES] ->
               d_step { l = l - PLACES; line_out(l); l = 0; check() }
           :: l >= PLACES + LINES && sroot[l - PLACES - LINES] ->
               d_step { l = l - PLACES - LINES; root_out(l); l = 0; check() }
           fi
       }
    od
}

/* ---- The publisher -------------------------------------------------------------------------- */

/* log_reserve(), the payload, log_announce(): beside all that the server does. */
#define IS_FREE(p) ((p) < PLACES && !HAS(used, p))

inline fill(p)
{
    printf("batch %d is stored in place %d\n", end, p);
    used = used | (1 << (p));
    taken = p;
    sp[p] = end;
    ready = false
}

#define MAY_FILL (up && taken == NOBODY && end <= N)

active proctype publisher()
{
    do
    :: d_step { MAY_FILL && IS_FREE(0) -> fill(0) }
    :: d_step { MAY_FILL && IS_FREE(1) -> fill(1) }
    :: d_step { MAY_FILL && IS_FREE(2) -> fill(2) }
#if PLACES > 3
    :: d_step { MAY_FILL && IS_FREE(3) -> fill(3) }
#endif
    :: d_step {
           up && taken != NOBODY && !ready ->
#ifndef NO_PAYLOAD
           if
           :: sp[taken] -> place_out(taken); check()
           :: else
           fi;
#endif
           ready = true
       }
    od
}

/* ---- The server ----------------------------------------------------------------------------- */

/* entry_put() */
inline put(v)
{
    printf("term %d: entry %d: %d\n", term, next, v);
    snum[AT(next)] = next; sval[AT(next)] = v; sterm[AT(next)] = term; sprev[AT(next)] = prev;
    prev = term;
    next++
}

/* index_harden() */
inline harden_ring()
{
    j = 0;
    do
    :: j < LINES ->
        if
        :: snum[j] -> line_out(j)
        :: else
        fi;
        j++
    :: else -> break
    od
}

inline harden_roots()
{
    j = 0;
    do
    :: j < 4 ->
        if
        :: sroot[j] -> root_out(j)
        :: else
        fi;
        j++
    :: else -> break
    od
}

/* The process is killed, or its host loses power. */
inline die()
{
    printf("the server dies\n");
    deaths++;
    d_step {
        up = false; ready = false; taken = NOBODY;
        i = 0;
        do
        :: i < N + 2 -> loc[i] = 0; i++
        :: else -> break
        od;
        term = 0; prev = 0; next = 0; floor = 0; base = 0; end = 0; used = 0; chain = 0; newest = 0;
        moved = false;
        b = 0; q = 0; r = 0; retired = 0
    };
    if
    :: true
    :: d_step {
           printf("and its host\n");
           i = 0;
           do
           :: i < PLACES -> sp[i] = 0; i++
           :: else -> break
           od;
           i = 0;
           do
           :: i < LINES -> snum[i] = 0; sval[i] = 0; sterm[i] = 0; sprev[i] = 0; i++
           :: else -> break
           od;
           i = 0;
           do
           :: i < 4 -> sroot[i] = 0; i++
           :: else -> break
           od;
           i = 0
       }
    fi
}

/* topic_trim(): the places of what is below `to` are free. */
inline free_below(to)
{
    i = base;
    do
    :: i < to -> used = used & ~(1 << loc[i]); i++
    :: else -> break
    od;
    i = 0
}

/* table_plan(), manifest_plan(): what the new piece tells of and which it stands on; the rest retires. */
inline plan(merge)
{
    gens++;
    gnum[gens] = next - 1; gterm[gens] = prev; gbase[gens] = base; gend[gens] = end;
#ifdef SKIP_TRIM
    if
    :: newest > 0 -> gbase[gens] = gbase[newest]
    :: else
    fi;
#endif
    pplace[gens] = q;
    used = used | (1 << q);
    retired = chain;
    pfrom[gens] = gbase[gens];
    if
    :: !merge && newest > 0 && gend[newest] > gbase[gens] ->
        pfrom[gens] = gend[newest];
        pbefore[gens] = newest;
        g = newest;
        e = gend[newest];
        do /* those that say something of what is kept, stay */
        :: g > 0 && e > gbase[gens] ->
#ifndef DROP_PIECE
            retired = retired & ~(1 << g);
#endif
            e = pfrom[g];
            g = pbefore[g]
        :: else -> break
        od
    :: else
    fi;
    i = pfrom[gens];
#ifdef SKIP_RUN
    i = (newest > 0 && i < end -> i + 1 : i);
#endif
    do
    :: i < end -> ploc[LOC(gens, i)] = loc[i]; i++
    :: else -> break
    od;
    chain = (chain & ~retired) | (1 << gens);
    sp[q] = PIECE(gens);
    printf("checkpoint %d, as of entry %d, its piece in place %d, batches [%d, %d)\n", gens, next - 1, q,
           gbase[gens], end)
}

/* checkpoint_end(): retired pieces, by number, are free. */
inline free_retired()
{
#ifndef NO_RETIRE
    i = 1;
    do
    :: i <= gens ->
        if
        :: HAS(retired, i) -> used = used & ~(1 << pplace[i])
        :: else
        fi;
        i++
    :: else -> break
    od;
#endif
    retired = 0
}

#ifdef KEEP_MOVED
#define PIECES_HOLD true
#else
#define PIECES_HOLD (!moved)
#endif
#define ROOM (next - floor <= LINES)

active proctype server()
{
    byte b, q, r, retired;
    taken = NOBODY;
    told_base = 1; told_end = 1; asked = 1;

open:
    /* recover(), then log_serve(): what was found in the cache is drained before it is built upon. */
    skip; /* a d_step may not be jumped into */
    d_step {
        view(true);
        load();
        replay();
        check_found();
        term = deaths + 1;
        prev = wterm; next = wnum + 1; floor = wfloor; base = wbase; end = wend;
        chain = wchain; newest = wroot; moved = wmoved;
        used = 0;
        i = base;
        do
        :: i < end -> loc[i] = wloc[i]; used = used | (1 << loc[i]); i++
        :: else -> break
        od;
        i = 1;
        do
        :: i <= gens ->
            if
            :: HAS(chain, i) -> used = used | (1 << pplace[i])
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    };
    if
    :: atomic { deaths < DEATHS -> die(); goto open }
    :: true
    fi;
    d_step {
#ifndef NO_HARDEN
        harden_roots();
#endif
#ifndef NO_REHARDEN
        harden_ring();
#endif
        check();
        told_base = base; told_end = end; asked = base;
        up = true;
        printf("up, with batches [%d, %d)\n", base, end);
        check()
    };

serve:
    skip;
    d_step { check_leak() };
    if
    :: d_step { ready && ROOM -> put(BATCH(end, taken)) };
       if
       :: atomic { deaths < DEATHS -> die(); goto open }
       :: true
       fi;
       d_step {
           harden_ring();
           loc[end] = taken;
           taken = NOBODY;
           ready = false;
           end++;
           told_end = end;
           check()
       }
    :: atomic {
           base < end && ROOM ->
           b = base + 1;
           do
           :: b < end -> b++
           :: break
           od;
           d_step {
               asked = b;
               put(TRIM(b));
#ifdef EARLY_FREE
               free_below(b)
#endif
           }
       };
       if
       :: atomic { deaths < DEATHS -> die(); goto open }
       :: true
       fi;
       d_step {
           harden_ring();
#ifndef EARLY_FREE
           free_below(b);
#endif
           i = base;
           do
           :: i < b -> loc[i] = 0; i++
           :: else -> break
           od;
           base = b;
           told_base = b;
           b = 0;
           check()
       }
#if MOVES > 0
    :: atomic { /* copied and drained, and then moved by an entry */
           moves < MOVES && base < end && ROOM && used != (1 << PLACES) - 1 ->
           if
           :: IS_FREE(0) -> q = 0
           :: IS_FREE(1) -> q = 1
           :: IS_FREE(2) -> q = 2
           :: IS_FREE(3) -> q = 3
           fi;
           b = base;
           do
           :: b + 1 < end -> b++
           :: break
           od;
           d_step {
               printf("the copy of batch %d is stored in place %d\n", b, q);
               moves++;
               used = used | (1 << q);
               sp[q] = b
           }
       };
       d_step {
#ifndef NO_COPY
           if
           :: sp[q] -> place_out(q); check()
           :: else
           fi;
#endif
           put(MOVE(b, q));
#ifdef EARLY_MOVE
           used = used & ~(1 << loc[b])
#endif
       };
       if
       :: atomic { deaths < DEATHS -> die(); goto open }
       :: true
       fi;
       d_step {
           harden_ring();
#ifndef EARLY_MOVE
           used = used & ~(1 << loc[b]);
#endif
           loc[b] = q;
           moved = moved || (newest > 0 && b < gend[newest]);
           b = 0; q = 0;
           check()
       }
#endif
    :: atomic {
           gens < ROOTS && next - 1 > floor && used != (1 << PLACES) - 1 ->
           if
           :: IS_FREE(0) -> q = 0
           :: IS_FREE(1) -> q = 1
           :: IS_FREE(2) -> q = 2
           :: IS_FREE(3) -> q = 3
           fi;
           if
           :: d_step { plan(true) }
           :: d_step { newest > 0 && PIECES_HOLD -> plan(false) }
           fi;
#ifdef EARLY_RETIRE
           d_step { free_retired() };
#endif
#ifdef EARLY_RING
           floor = next - 1
#endif
       };
       if
       :: atomic { deaths < DEATHS -> die(); goto open }
       :: true
       fi;
       d_step {
#ifndef NO_PIECE
           if
           :: sp[q] == PIECE(gens) -> place_out(q); check()
           :: else
           fi;
#endif
           /* root_older(): the area that is not the newest one's */
           r = (newest > 0 && (sroot[0] == newest || (sroot[0] == 0 && mroot[0] == newest)) -> 2 : 0);
#ifdef SAME_AREA
           r = 2 - r;
#endif
           sroot[r] = gens; sroot[r + 1] = gens
       };
#ifdef EARLY_RING
       /* a commit in between is what would take them: one is as good as many */
       if
       :: d_step { ready && next - floor <= LINES -> put(BATCH(end, taken)); harden_ring();
                   loc[end] = taken; taken = NOBODY; ready = false; end++; told_end = end; check() }
       :: true
       fi;
#endif
       if
       :: atomic { deaths < DEATHS -> die(); goto open }
       :: true
       fi;
       d_step {
           harden_roots();
           newest = gens;
           moved = false;
           floor = gnum[gens];
           free_retired();
           q = 0; r = 0;
           check()
       }
    :: atomic { deaths < DEATHS -> die(); goto open }
    fi;
    goto serve
}

/* ---- Another host --------------------------------------------------------------------------- */

#if LOOKS > 0
active proctype looker()
{
    byte looks, rnum, rterm, s, at, copy;
    bool settled;
again:
    do
    :: looks < LOOKS ->
        atomic { /* log_open(), for reading only, and a batch of those that are there */
            d_step {
                view(false);
                load();
                replay();
                rnum = wnum; rterm = wterm; s = wbase; at = wend
            };
            if
            :: s == at -> s = 0; at = 0; rnum = 0; rterm = 0; goto again
            :: else
            fi;
            do
            :: s + 1 < at -> s++
            :: break
            od;
            d_step { at = wloc[s]; looks++ }
        };
#ifndef ASK_FIRST
        copy = mp[at];
#endif
        d_step { /* log_settled() */
            view(false);
            settled = true;
            do
            :: vnum[AT(rnum + 1)] == rnum + 1 && vprev[AT(rnum + 1)] == rterm ->
                rnum++;
                rterm = vterm[AT(rnum)];
                if
#ifndef NO_CONTROL
                :: IS_TRIM(vval[AT(rnum)]) -> settled = false
#endif
#ifndef NO_MOVED
                :: IS_MOVE(vval[AT(rnum)]) -> settled = false
#endif
                :: else
                fi
            :: else -> break
            od;
#ifndef NO_ROUND
            if
            :: vnum[AT(rnum + 1)] > rnum + 1 -> settled = false
            :: else
            fi;
#endif
#ifdef BLIND
            settled = true;
#endif
        };
#ifdef ASK_FIRST
        copy = mp[at];
#endif
        d_step {
            printf("the other host has batch %d from place %d: %d, %d\n", s, at, copy, settled);
            assert(!settled || copy == s);
            copy = 0; at = 0; s = 0; rnum = 0; rterm = 0; settled = false
        }
    :: else -> break
    od
}
#endif
