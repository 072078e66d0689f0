/* A broker that misbehaves on purpose: it keeps one topic and one session in memory, speaks the wire
 * protocol over a Unix socket, and breaks connections, fences and refuses as its script says. What
 * the real server does right is tested against the real one.
 */
#ifndef TESTS_PEER_H
#define TESTS_PEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_HELD   64u
#define PEER_WINDOW 16u /* batches that may be unacked */
#define PEER_LARGE  (256u << 10)
#define PEER_FDS    1024
#define PEER_LOOSE  4096u /* batches of a loose session */

struct peer_batch {
    uint64_t offset, message;
    uint32_t length, count, crc;
    bool behind;       /* crc came behind the payload */
    uint32_t *lengths; /* NULL: equal */
    unsigned char *data;
};

struct peer {
    char path[100]; /* of the socket; with tcp its host:port */
    bool tcp;       /* set before peer_start: on loopback instead of a Unix socket */
    const char *at; /* with tcp: this address instead */

    /* The script: set before a client comes. Counts are of PUBLISH frames, from 1; 0: never. */
    unsigned break_every; /* close instead of an ack at every so many; committed every other time */
    uint64_t fence_at; /* this sequence is lost once, and the session fenced, as after an order 5 */
    uint64_t refuse_at; /* this sequence is refused */
    uint32_t refuse_code;
    unsigned damage;            /* so many frames are called damaged, and the connection closed */
    void (*damaged)(void *arg); /* called then */
    void *arg;
    bool mute;               /* nothing is acked */
    unsigned hello_refusals; /* after the first two HELLOs, so many are answered ESHUTDOWN */
    unsigned cut_data;       /* every so many DATA frames only half of one is sent */
    bool loose;              /* order 2: batches are committed as they arrive, and acked by bits */
    unsigned lose_every;     /* loose: these sequences are lost the first time, and later their */
    uint64_t lose_below;     /* connection; up to here */
    /* Loose, by bit: these sequences never come; of them these do after all, at the fence, as batches
     * of one message. */
    uint64_t missing, late;
    /* Loose, what ACKs lie about: a batch that was lost on another connection; and at lie_at: one
     * that was never sent, bytes that are not there, words beyond their bound. */
    enum { LIE_NOT, LIE_OTHERS, LIE_UNSENT, LIE_LENGTH, LIE_WORDS } lie;
    uint64_t lie_at;
    unsigned older;    /* so many versions back it speaks */
    uint8_t topic_ack; /* what a topic gives to who leaves it the choice, plus 1; 0: 1 */
    /* These may be changed while it runs, under the lock; then `moved` is to be told. */
    uint64_t incarnation;
    bool silent; /* HELLO is not answered while it is */
    bool brief;  /* connections are closed behind the answer to OPEN or SUBSCRIBE */

    pthread_mutex_t lock; /* guards all below, and those three */
    pthread_cond_t moved;
    uint64_t session, committed, messages, next_session;
    uint32_t epoch;
    bool fenced, forgotten;
    unsigned hellos, frames, breaks, connections;
    uint64_t hello_ns[PEER_HELD]; /* when the first of them came: CLOCK_MONOTONIC */
    unsigned mismatches;          /* frames whose payload was another than their checksum says */
    uint64_t heard;               /* the mark that was told last */
    unsigned beyond;              /* batches further above it than the window allows */
    unsigned behind, before;      /* frames of more than PEER_LARGE with the checksum there */
    struct peer_batch *log;
    struct peer_batch held[PEER_HELD];
    uint32_t counts[PEER_LOOSE]; /* loose: messages of what is committed, by sequence */
    bool told[PEER_LOOSE];       /* a bit or the mark has said so */
    bool lost[PEER_LOOSE];
    bool cut[PEER_FDS]; /* by descriptor: broken after a loss */
    int lost_fd;        /* of the newest loss; valid while lost_at is not 0 */
    unsigned lost_frames;
    uint64_t prefix, lost_at;
    unsigned resent; /* batches that came again although they had been told */
    size_t batches;
    uint64_t end;

    int listener;
    pthread_t thread;
    int fds[256];
    pthread_t threads[256];
    unsigned count;
    bool stop;
};

void peer_start(struct peer *p);
void peer_stop(struct peer *p); /* and frees the log */
/* The log's bytes so far, malloc'd. */
unsigned char *peer_bytes(struct peer *p, size_t *n);

#endif
