/* One crash run: a log at work on a modelled memory, what is promised of it, and what is in flight.
 *
 * Shared by the harness's files: workload.c drives the log and keeps the promises, shots.c takes
 * and recovers images, verify.c compares, aftermath.c uses what was recovered. One thread at a time
 * does anything: the workers of team.c only make drains belong to different threads.
 */
#ifndef TESTS_CRASH_TRIAL_H
#define TESTS_CRASH_TRIAL_H

#include "tests/crash/ledger.h"
#include "tests/crash/medium.h"
#include "tests/crash/team.h"

#define FLIGHTS   24u
#define PRODUCERS 2u

enum flight_state { FLIGHT_FREE, FLIGHT_RESERVED, FLIGHT_ANNOUNCED, FLIGHT_DONE };

struct flight {
    struct completion completion; /* first: done() gets it */
    struct trial *run;
    struct batch batch;
    struct entry_batch m;
    uint32_t topic;
    unsigned producer;
    uint64_t announced; /* order of announcing */
    enum flight_state state;
    unsigned found; /* verify.c: how many were found before, plus one; 0: it was not */
};

/* An acked action, for what a machine crash may take back on an ordinary file. */
struct op {
    uint64_t number, last; /* entries */
    bool is_batch;
    uint32_t topic;
    struct entry_batch batch;
    struct control control;
};

struct visible {
    uint32_t id;
    uint64_t end;
    struct topic *topic;
};

/* A reply on its way: what it shows may not change, whatever is trimmed meanwhile. */
#define PINS 3u
struct pin {
    struct read_view view;
    bool held;
    uint32_t topic, crc;
};

struct counts {
    uint64_t images, points, nested, used, emptied, closed, damaged, looks, overtaken, lives, kills,
        operations, batches, controls;
    uint64_t seeds, refused, syncs, retained, moved, moments, pins;
    uint64_t checked; /* by fsck */
    uint64_t behind;  /* images of lives in which something had been moved */
};

enum death { ALIVE, POWER, KILL };

struct trial {
    uint64_t seed, random, shots; /* workload's and images' numbers */
    uint64_t image_limit;
    unsigned verbose;
    struct counts *counts;
    struct team *team;

    struct medium medium, second; /* second: for crashes of recoveries */
    struct region region;
    struct log_options options;
    uint8_t boot[16];
    struct log *log; /* NULL while it is being opened */
    bool was_off;    /* the machine was, when it is being opened */
    bool stutters;   /* dies soon, again and again; images show recoveries only */
    bool hosts;      /* another host looks now and then */
    bool looking;    /* it does */
    unsigned steps;  /* of ours, since it began; */
    uint32_t hurry;  /* one step in so many lines that it invalidates */
    bool sparse;     /* few images and long lives */
    bool formatting; /* inside of pool_format */
    bool brim;       /* little space, most topics with retention, nobody else trims */
    bool packed;     /* at the brim: small batches that stay stand in the way of large ones */
    bool packing;    /* it is being made so: nobody dies, and few images are taken; */
    bool filling;    /* small batches of all topics until it is full */
    bool crowded;    /* that was done in this life */
    bool moving;     /* a large batch waits: images are taken often; */
    uint32_t large;  /* its topic */
    bool pressed;    /* not even retention found space: some must go by hand */
    bool between;    /* somebody flushes and others have their turn, or may not */
    bool aside;      /* the background thread is at work, without the role but for moments */
    unsigned busy;   /* who flushes; TEAM_SIZE: nobody */
    struct pin pins[PINS];
    bool fresh;           /* not opened yet: short, and much depends on it */
    uint8_t old_uuid[16]; /* of the pool that is formatted over, */
    char *old;            /* and its bytes */

    struct lists lists;
    struct ledger now;    /* acked */
    struct ledger synced; /* ordinary file: acked when it was last synced */
    struct op *ops;       /* acked since */
    size_t op_count, op_capacity;
    struct flight flight[FLIGHTS];
    uint64_t announced;
    struct control control;               /* in flight when `controlling` */
    bool controlling, expiring;           /* expiring: a fence that nobody asked for */
    struct visible visible[LEDGER_NODES]; /* topics in use; what readers had seen when it died */
    unsigned visibles;
    struct topic *open; /* removed, and still open: written on, and nothing of it is promised */
    uint32_t serial;
    uint64_t live_limit; /* payload bytes kept */

    bool torn;             /* some life began with lines that were not stored whole */
    enum death death;      /* then nothing that happens counts any more */
    uint64_t dies_in;      /* events */
    uint64_t root_drained; /* generation of the newest root at the last drain */
    char *next;            /* what is left of the memory */

    bool failed;
    char why[512];
};

/* Note a violation; only the first is kept. */
void trial_fail(struct trial *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* workload.c: one random operation; give back what is reserved and commit what is announced; that and
 * a clean close. Each may die in between. */
void workload_step(struct trial *r);
void workload_settle(struct trial *r);
void workload_close(struct trial *r);

/* meanwhile.c: others have their turns while somebody flushes; a reply is begun or ends; all end, looked at or
 * not; what the background thread does without the role, or nearly so, while others go on. */
enum aside { ASIDE_CHECKPOINT, ASIDE_SYNC, ASIDE_RETENTION };
void meanwhile_turn(void *arg);
void meanwhile_pin(struct trial *r);
void meanwhile_unpin(struct trial *r, bool look);
void meanwhile_aside(struct trial *r, enum aside what);
/* workload.c: trim, create or remove something; what retention trimmed is promised from now on. */
void workload_control(struct trial *r);
void workload_trims(struct trial *r);
/* A member that is not busy. */
unsigned trial_member(struct trial *r);
/* chance.c: the time of the trial, and how it passes. */
uint64_t chance_now(void);
void chance_pass(uint64_t ns);

/* lives.c: live and die until `image_limit` images were taken. `old`: bytes of a pool that is
 * formatted over, or NULL; the last memory is left there. */
void trial_lives(struct trial *r, char *old);

/* shots.c: told by the medium at its events; now: between events. */
void shots_event(void *arg, enum shadow_event event, uint64_t number);
void shots_now(struct trial *r);
/* witness.c: the log was closed; entry `number` was acked, and its thread has drained since. What the
 * pool says of itself must hold in every image. */
void witness_closed(struct trial *r);
void witness_damage(struct trial *r, uint64_t number);
/* Each piece that the log's checkpoint names stands twice: fsck alone reads the second one. */
bool witness_copies(const struct log *log);
/* Once a checkpoint is through, the copy of its root is on the media, too. */
bool witness_root(const struct log *log, const struct region *media);
/* A check of what a crash left finds nothing that is damaged. It takes lines to be stored whole. Writes
 * nothing. */
bool witness_unharmed(struct region *region, const uint8_t *boot, char *why, size_t size);
/* One bit of what the pool knows about itself is another one. */
void witness_flip(struct trial *r);
/* two_hosts.c: another host looks, while nothing happens, and while the run goes on. */
void hosts_glance(struct trial *r);
void hosts_damage(struct trial *r, uint64_t number);
void hosts_look(struct trial *r);
/* Options for opening an image. */
struct log_options trial_options(const struct trial *r, struct region *region, const uint8_t *boot);

/* Run epochs, also where only the background thread would. */
void epochs_run(struct log *log);
/* Let go of a log without writing anything. */
void log_drop(struct log *log, struct region *region);

#endif
