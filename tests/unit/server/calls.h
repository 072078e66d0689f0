/* What a server's threads receive and send, as a log, and a hold on them before a receive: what the tests of
 * turns stand on. By the linker's --wrap of recvmsg and sendmsg, of which the tester's own go through.
 */
#ifndef TESTS_UNIT_SERVER_CALLS_H
#define TESTS_UNIT_SERVER_CALLS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/server/rig.h"

enum {
    TURN = 64 << 10,  /* net/server/internal.h: TURN_SHARED */
    GREEDY = 2 << 20, /* bytes of a batch, of which a socket holds some */
    AHEAD = 16 << 10, /* that a receive brings of the next batch */
    CALLS = 20000,    /* later ones are not noted */
};

struct call {
    pthread_t who;
    int fd;
    bool out;
    uint16_t channel; /* of the first frame sent */
    size_t n;
};

extern struct call calls[CALLS]; /* as of the newest look() */
extern unsigned call_count;
extern uint8_t payload[GREEDY];

/* The thread that calls is the tester, whose calls are its own. */
void calls_init(void);
void calls_forget(void);
void look(void);
/* From any thread of the server's: something that is no call of either kind, by a number below 0. */
void calls_note(int instead, size_t n);
/* The first of a descriptor's from there on; there must be one. */
unsigned next_of(int fd, bool out, unsigned from);

/* Let the server receive so often before it is held; and wait until it is. */
void let(unsigned receives);
void hold_after(unsigned receives);
/* What is sent there goes nowhere, and counts as sent. 0: no descriptor. */
void to_nowhere(int one, int other);

/* Of one worker, whose ticks never come. */
struct rig one_worker(void);
/* A connection that has a topic open; its descriptor at the server is that of the newest call. */
int opened(const struct rig *r, const char *path, int *theirs);

#endif
