/* Order, commit, ack, fence, crash, restart and takeover as a model (DESIGN I2 to I7, section 10;
 * steps 6 to 9). README.md says which function each action stands for and what is left out.
 *
 * One or two brokers, each a host of its own with a claim line, a ring of index lines and a cache
 * that writes a stored line back at any moment, or never. One session of N batches. A batch that
 * may have been sent arrives at whichever broker serves, at any moment, in any order, any number
 * of times, acked or not, under its old epoch or the new one: whatever a publisher with several
 * connections and lost acks could do, so that publishers, sockets and acks need no state here.
 *
 * Checked whenever a line reaches the media and whenever somebody is told: who opens the pool now
 * finds all that anybody was told, at its number (I3, I6, I7); whenever somebody is told: batches
 * are told once, in order, whole, and none of a fenced epoch (I4, I5).
 *
 * Each macro below takes one rule away: the checker must then find a violation (tests/model/run).
 *   NO_DRAIN     entries are told before they are drained             index_harden
 *   NO_REHARDEN  what recovery found in a cache is not drained        log_serve
 *   OWN_RING     of this, only the broker's own ring is drained       log_serve
 *   NO_CHAIN     entries are taken whatever they continue             index_decode
 *   NO_RISE      and whatever their terms (with NO_CHAIN only)        next_entry
 *   NO_PART      the first half of a split batch counts alone         replay_one
 *   NO_FOLD      an open forgets the session                          fold_batch in recovery
 *   NO_EPOCH     a batch of a fenced epoch is taken                   order
 *   NO_HOLD      a batch is taken before the one that it follows      hold
 *   EARLY_ACK    a duplicate is acked before the first is drained     tell
 *   NO_LOOK      claims are not read again between drain and telling  section 10
 *   NO_CLAIM     the rings are read before the claim stands           section 10
 *   NO_SEAL      what was recovered is told before the term's entry   log_serve
 *   GREEDY       where histories part, the higher next term is taken  next_entry
 *   EARLY_MARK   the watermark is written before the claims are read  seq_epoch
 * and with ORDER 2, where batches are taken as they come:
 *   NO_WINDOW    only the mark is known, not what was taken above it   session_taken
 *   NO_AHEAD     the same after an open                               checkpoint, recovery
 */
#ifndef BROKERS
#define BROKERS 2
#endif
#ifndef N
#define N 2 /* batches of the session */
#endif
#ifndef TERMS
#define TERMS 2 /* opens in all */
#endif
#ifndef DEATHS
#define DEATHS 1 /* brokers or hosts killed in all */
#endif
#ifndef FENCES
#define FENCES 0 /* fences in all */
#endif
#ifndef SPLIT
#define SPLIT 0 /* 1: batch N stands in two runs, so it takes two entries */
#endif

#ifndef ORDER
#define ORDER 5
#endif

#ifndef TORN
#define TORN 0 /* 1: an opener reads line by line while others write */
#endif
#ifndef HOSTS
#define HOSTS BROKERS /* 1: both brokers on one host, whose cache they share */
#endif
#define HOST(b) ((b) % HOSTS)

/* Longest history: each batch once, an entry a term, the fences. Entry n of ring b is at AT(b, n);
 * places number 0 stay empty. */
#ifdef NO_FOLD
#define LEN (N * TERMS + SPLIT + TERMS + FENCES)
#elif defined(NO_WINDOW) || defined(NO_AHEAD)
#define LEN (3 * N + SPLIT + TERMS + FENCES)
#else
#define LEN (N + SPLIT + TERMS + FENCES)
#endif
#define LINES    (BROKERS * (LEN + 1))
#define AT(b, n) ((b) * (LEN + 1) + (n))

/* What an entry is: a batch, by sequence and epoch, or one of those below. */
#define NONE          0
#define BATCH(s, e)   ((s) + N * ((e) - 1))
#define SEQUENCE(v)   (((v) - 1) % N + 1)
#define EPOCH(v)      (((v) - 1) / N + 1)
#define IS_BATCH(v)   ((v) != NONE && (v) < PART)
#define IS_SPLIT(v)   (SPLIT && IS_BATCH(v) && SEQUENCE(v) == N)
#define PART          13 /* second half of a split batch */
#define FENCE         14
#define TERM          15

/* What is taken of a session: at order 5 its last sequence; at order 2 bit s for sequence s, N <= 3. */
#if ORDER == 5
#define HAS(t, s)    ((s) <= (t))
#define WITH(t, s)   (s)
#define WITHIN(t, u) ((t) <= (u))
#define FENCED(t)    (t)
#define FULL         N
#else
#define LOW(s)       ((1 << ((s) + 1)) - 2)
#define BIT(t, s)    (((t) >> (s)) & 1)
#define WITH(t, s)   ((t) | (1 << (s)))
#define WITHIN(t, u) (((t) & ~(u)) == 0)
#define FENCED(t)    ((t) >= 8 -> 14 : ((t) >= 4 -> 6 : ((t) >= 2 -> 2 : 0)))
#define FULL         LOW(N)
#define GAP(t)       (((t) & ((t) + 2)) != 0)
#define MARK(t)      (BIT(t, 1) == 0 -> 0 : (BIT(t, 2) == 0 -> 2 : (BIT(t, 3) == 0 -> 6 : 14)))
#ifdef NO_WINDOW
#define HAS(t, s)    BIT(MARK(t), s)
#else
#define HAS(t, s)    BIT(t, s)
#endif
#endif

/* Index lines on the media. The chained CRC is modelled by the term of the entry before: a number
 * and a term name one entry, since each term is one broker's and is used once. */
byte mval[LINES];
byte mterm[LINES];
byte mprev[LINES];

/* The same lines in their owner's cache, while stored and not written back. */
byte sval[LINES];
byte sterm[LINES];
byte sprev[LINES];

byte claim[BROKERS]; /* claim lines: the term under which a broker serves */
byte last_term;      /* terms given out: compare-and-swap over hosts */
byte deaths;

/* What anybody was told: the value at each number, how far, and what follows from it. */
byte seen[LEN + 2];
byte seen_end;
byte done;   /* sequences told, as HAS says */
byte fences; /* told */
#ifdef EARLY_MARK
byte mark; /* the watermark line, as soon as it may stand */
#endif

/* Scratch of one d_step, no part of a state. */
hidden byte i, n, b, at, to, pick, top;
hidden byte vval[LINES], vterm[LINES], vprev[LINES]; /* the lines as one host reads them */
hidden byte lead[LINES];                             /* highest term that a line leads to */
hidden byte wval[LEN + 2], wnext, wterm, wlast, wepoch; /* what a walk along the chain found */

/* ---- Reading the rings -------------------------------------------------------------------- */

#ifdef NO_CHAIN
#define CHAINED(at, before) true
#else
#define CHAINED(at, before) (vprev[at] == before)
#endif
#ifdef NO_RISE
#define RISES(at, before) true
#else
#define RISES(at, before) (vterm[at] >= before)
#endif
#define CONTINUES(at, before) (vval[at] != NONE && CHAINED(at, before) && RISES(at, before))

/* A host reads its own lines through its own cache, all others from the media. */
inline view(host)
{
    i = 0;
    do
    :: i < LINES ->
        if
        :: HOST(i / (LEN + 1)) == host && sval[i] != NONE ->
            vval[i] = sval[i]; vterm[i] = sterm[i]; vprev[i] = sprev[i]
        :: else ->
            vval[i] = mval[i]; vterm[i] = mterm[i]; vprev[i] = mprev[i]
        fi;
        i++
    :: else -> break
    od
}

/* Where histories part, the right one is that which leads to the highest term: its broker read the
 * rings last, and all that it tells stands behind its choice. Greedily taking the higher of the
 * two next terms is wrong: that may be the late line of one who was superseded before it drained. */
inline leads()
{
    n = LEN;
    do
    :: n > 0 ->
        b = 0;
        do
        :: b < BROKERS ->
            at = AT(b, n);
            lead[at] = vterm[at];
            top = false;
            i = 0;
            do
            :: n < LEN && i < BROKERS ->
                to = AT(i, n + 1);
                if
                :: CONTINUES(to, vterm[at]) ->
                    top = top || vval[to] == PART;
                    if
                    :: lead[to] > lead[at] -> lead[at] = lead[to]
                    :: else
                    fi
                :: else
                fi;
                i++
            :: else -> break
            od;
#ifndef NO_PART
            if
            :: IS_SPLIT(vval[at]) && !top -> lead[at] = 0 /* half a batch leads nowhere */
            :: else
            fi;
#endif
            if
            :: vval[at] == NONE -> lead[at] = 0
            :: else
            fi;
#ifdef GREEDY
            if
            :: lead[at] > vterm[at] -> lead[at] = vterm[at]
            :: else
            fi;
#endif
            b++
        :: else -> break
        od;
        n--
    :: else -> break
    od
}

/* recover(): along the chain to its first break; the session is the fold of what stands there.
 * latest: read at this moment, so all that was told must be there. */
inline walk(latest)
{
    leads();
    wnext = 1; wterm = 0; wlast = 0; wepoch = 1;
    do
    :: wnext <= LEN ->
        pick = LINES;
        top = 0;
        b = 0;
        do
        :: b < BROKERS ->
            at = AT(b, wnext);
            if
            :: CONTINUES(at, wterm) && lead[at] > top -> top = lead[at]; pick = at
            :: else
            fi;
            b++
        :: else -> break
        od;
        if
        :: pick == LINES -> break /* the cut */
        :: else
        fi;
        if
        :: vval[pick] == FENCE -> wepoch++; wlast = FENCED(wlast)
        :: IS_BATCH(vval[pick]) -> wlast = WITH(wlast, SEQUENCE(vval[pick]))
        :: else
        fi;
        wval[wnext] = vval[pick];
        wterm = vterm[pick];
        assert(!latest || wnext > seen_end || seen[wnext] == vval[pick]); /* I3, I6, I7 */
        wnext++
    :: else -> break
    od;
    assert(!latest || wnext > seen_end); /* I3: all that was told is found */
#ifdef EARLY_MARK
    assert(!latest || wnext > mark) /* else recovery reports damage where none is */
#endif
}

/* Whoever opens the pool now, reading only, on a host that has nothing cached. */
inline check()
{
    view(HOSTS);
    walk(true)
}

/* ---- Writing ------------------------------------------------------------------------------ */

inline write_back(line)
{
    printf("line %d of ring %d reaches the media\n", line % (LEN + 1), line / (LEN + 1));
    mval[line] = sval[line]; mterm[line] = sterm[line]; mprev[line] = sprev[line];
    sval[line] = NONE; sterm[line] = 0; sprev[line] = 0
}

/* index_harden(): entries [from, till) of ring r. */
inline harden(r, from, till)
{
    n = from;
    do
    :: n < till ->
        if
        :: sval[AT(r, n)] != NONE -> write_back(AT(r, n))
        :: else
        fi;
        n++
    :: else -> break
    od
}

/* What recovery found in the caches of its host is about to be built upon. */
inline harden_recovered()
{
    b = 0;
    do
    :: b < BROKERS ->
        if
#ifdef OWN_RING
        :: b == me -> harden(b, 1, next)
#else
        :: HOST(b) == HOST(me) -> harden(b, 1, next)
#endif
        :: else
        fi;
        b++
    :: else -> break
    od;
    check()
}

/* entry_put(). What is printed makes the story of a violation; the checker itself is silent. */
inline put(v)
{
    assert(next <= LEN);
    if
    :: v == TERM -> printf("broker %d, term %d: entry %d: its term\n", me, term, next)
    :: v == FENCE -> printf("broker %d, term %d: entry %d: a fence\n", me, term, next)
    :: v == PART -> printf("broker %d, term %d: entry %d: second half\n", me, term, next)
    :: else ->
        printf("broker %d, term %d: entry %d: batch %d, epoch %d\n", me, term, next, SEQUENCE(v),
               EPOCH(v))
    fi;
    sval[AT(me, next)] = v; sterm[AT(me, next)] = term; sprev[AT(me, next)] = prev;
    hist[next] = v;
    prev = term;
    next++
}

/* batch_entries() */
inline put_batch(v)
{
    put(v);
    last = WITH(last, SEQUENCE(v));
    if
    :: IS_SPLIT(v) -> put(PART)
    :: else
    fi
}

/* tell(), after the fold: acks and readers, who see one end, in one step (steps 8 and 9). */
inline tell()
{
    n = first;
    do
    :: n < next ->
        assert(n <= seen_end + 1);
        if
        :: n <= seen_end -> assert(seen[n] == hist[n])
        :: else ->
            if
            :: IS_BATCH(hist[n]) ->
#if ORDER == 5
                assert(SEQUENCE(hist[n]) == done + 1); /* I4, I5 */
#else
                assert(!BIT(done, SEQUENCE(hist[n]))); /* I4 */
#endif
                assert(EPOCH(hist[n]) == fences + 1);
                assert(!IS_SPLIT(hist[n]) || hist[n + 1] == PART);
                done = WITH(done, SEQUENCE(hist[n]))
            :: hist[n] == FENCE -> fences++; done = FENCED(done)
            :: else
            fi;
            printf("broker %d, term %d: tells entry %d\n", me, term, n);
            seen[n] = hist[n];
            seen_end = n
        fi;
        hist[n] = NONE;
        n++
    :: else -> break
    od;
    first = next;
    assert(WITHIN(last, done)); /* what duplicates hear */
    check()
}

/* A stored line may leave a cache at any moment. */
active proctype caches()
{
    byte line;
    do
    :: atomic {
           line = 1;
           do
           :: line < LINES - 1 -> line++
           :: sval[line] != NONE -> break
           :: line == LINES - 1 && sval[line] == NONE -> break
           od;
           d_step {
               if
               :: sval[line] != NONE -> write_back(line); check()
               :: else
               fi;
               line = 0
           }
       }
    od
}

/* ---- A broker ----------------------------------------------------------------------------- */

#if BROKERS == 1
#define SUPERSEDED false
#else
#define SUPERSEDED (claim[1 - me] > term)
#endif

inline forget()
{
    n = 1;
    do
    :: n <= LEN -> hist[n] = NONE; n++
    :: else -> break
    od;
    term = 0; next = 0; first = 0; prev = 0; last = 0; epoch = 0; held = 0;
    base = 0
}

/* The process alone is killed: its host keeps the cache, and its successor on that host reads
 * through it. Or the host loses power: what was not written back is gone. (Where brokers share a
 * host, check() sees what a loss of power would leave.) */
inline die()
{
    printf("broker %d, term %d: dies\n", me, term);
    deaths++;
    if
    :: true
#if HOSTS == BROKERS
    :: d_step {
           n = 1;
           do
           :: n <= LEN ->
               sval[AT(me, n)] = NONE; sterm[AT(me, n)] = 0; sprev[AT(me, n)] = 0;
               n++
           :: else -> break
           od
       }
#endif
    fi;
    d_step { forget() }
}

/* Line by line, while others write (TORN), or all at once, which leaves far fewer states. */
inline recovered()
{
#if TORN
    line = 1;
    do
    :: atomic {
           line < LINES ->
           d_step {
               if
               :: HOST(line / (LEN + 1)) == HOST(me) && sval[line] != NONE ->
                   rval[line] = sval[line]; rterm[line] = sterm[line]; rprev[line] = sprev[line]
               :: else ->
                   rval[line] = mval[line]; rterm[line] = mterm[line]; rprev[line] = mprev[line]
               fi;
               line++
           }
       }
    :: line == LINES -> break
    od;
    skip; /* a d_step may not be jumped into */
#endif
    d_step {
#if TORN
        n = 0;
        do
        :: n < LINES ->
            vval[n] = rval[n]; vterm[n] = rterm[n]; vprev[n] = rprev[n];
            rval[n] = NONE; rterm[n] = 0; rprev[n] = 0;
            n++
        :: else -> break
        od;
        line = 0;
        walk(false);
#else
        view(HOST(me));
        walk(true);
#endif
        next = wnext; prev = wterm; last = wlast; epoch = wepoch;
        first = (seen_end < next -> seen_end + 1 : next);
        printf("broker %d, term %d: found entries up to %d\n", me, term, next - 1);
        n = first;
        do
        :: n < next -> hist[n] = wval[n]; n++
        :: else -> break
        od
#ifdef NO_FOLD
        ;
        last = 0
#endif
#ifdef NO_AHEAD
        ;
        last = MARK(last)
#endif
    }
}

#ifdef NO_EPOCH
#define TAKES(e) true
#else
#define TAKES(e) (e == epoch)
#endif
#ifdef NO_WINDOW
#define ROOM (next < first + N) /* what is taken twice is told before the ring is full */
#else
#define ROOM true
#endif
#ifdef EARLY_ACK
#define DUPLICATE_WAITS false
#else
#define DUPLICATE_WAITS true
#endif

proctype broker(byte me)
{
    byte term, next, first, prev, last, epoch;
    byte base; /* first entry that is not drained */
    byte held; /* a batch that waits for the one before it */
    byte s, e;
    byte hist[LEN + 2]; /* what is to be told: [first, next) */
#if TORN
    byte rval[LINES], rterm[LINES], rprev[LINES], line; /* the rings as far as they were read */
#endif

closed:
    /* Both are alike: the first to open is called 0. */
    atomic { last_term < TERMS && (last_term > 0 || me == 0) -> last_term++; term = last_term };
#ifdef NO_CLAIM
    recovered();
    claim[me] = term;
#else
    claim[me] = term; /* claim_write(): stored, written back, drained */
    recovered();
#endif
    if
    :: atomic { deaths < DEATHS -> die(); goto closed }
    :: true
    fi;
#ifdef NO_SEAL
    d_step { tell() };
#endif
    /* log_serve(), seq_term() */
    d_step {
#ifndef NO_REHARDEN
        harden_recovered();
#endif
        base = next;
        put(TERM)
    };
    goto commit;

serve:
    if
    :: atomic { /* order() of a batch that was announced */
           last != FULL && ROOM ->
           s = 1;
           do
           :: s < N -> s++
           :: break
           od;
           e = 1;
           do
           :: e <= fences -> e++
           :: break
           od;
           d_step {
               if
               :: !TAKES(e) /* refuse(): EMBAR_EFENCED */
               :: TAKES(e) && HAS(last, s) ->
                   /* A duplicate: it hears the mark, after the epoch's drain if there is one. */
                   assert(WITHIN(last, done) || (next > first && DUPLICATE_WAITS))
#if ORDER != 5
               :: TAKES(e) && !HAS(last, s) -> put_batch(BATCH(s, e))
#else
#ifndef NO_HOLD
               :: TAKES(e) && s > last + 1 -> held = BATCH(s, e) /* hold() */
#else
               :: TAKES(e) && s > last + 1 -> put_batch(BATCH(s, e))
#endif
               :: TAKES(e) && s == last + 1 ->
                   put_batch(BATCH(s, e));
                   if /* take_held() */
                   :: held != NONE && SEQUENCE(held) == last + 1 -> put_batch(held); held = NONE
                   :: held != NONE && SEQUENCE(held) <= last -> held = NONE
                   :: else
                   fi
#endif
               fi;
               s = 0; e = 0
           }
       }
    :: d_step { /* order_expire(): the gap lasts too long */
#if ORDER == 5
           held != NONE && next == first && epoch <= FENCES ->
#else
           GAP(last) && next == first && epoch <= FENCES -> /* asked for: nothing is held */
#endif
           held = NONE;
           base = next;
           put(FENCE);
           last = FENCED(last);
           epoch++
       };
       goto commit
    :: atomic { deaths < DEATHS -> die(); goto closed }
    fi;
    if
    :: goto serve /* an epoch takes what is announced; one that is empty needs no drain */
    :: next > first -> base = first
    fi;

commit:
    if
    :: atomic { deaths < DEATHS -> die(); goto closed }
    :: true
    fi;
#ifndef NO_DRAIN
    d_step { harden(me, base, next); base = 0; check() };
#endif
#ifdef EARLY_MARK
    d_step { mark = (next - 1 > mark -> next - 1 : mark); check() };
#endif
    if
    :: atomic { deaths < DEATHS -> die(); goto closed }
    :: true
    fi;
#ifndef NO_LOOK
    /* Superseded: nobody is told, and the broker may open again. */
    if
    :: d_step { SUPERSEDED -> printf("broker %d: superseded\n", me); forget() }; goto closed
    :: !SUPERSEDED
    fi;
#endif
    d_step { tell() };
    goto serve
}

init
{
    atomic {
        run broker(0);
#if BROKERS == 2
        run broker(1)
#endif
    }
}
