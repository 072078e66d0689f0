/* The publishers of a crash run, and what all its actors share. */
#ifndef TESTS_CRASH_PUBLISH_H
#define TESTS_CRASH_PUBLISH_H

#include "tests/crash/trial.h"

struct job {
    struct trial *run;
    struct flight *flight;
    int rc;
};

/* An action was acked; the one in flight (trial.control) was committed as entry `number`, or refused. */
void trial_remember(struct trial *r, const struct op *op);
void trial_settled(struct trial *r, int status, uint64_t number);

/* The topic, which is kept open until it is removed. */
struct topic *trial_topic(struct trial *r, uint32_t id);
/* Let go of what is done and of what is removed. */
void trial_tidy(struct trial *r);

struct node *some_node(struct trial *r, bool dir);
struct flight *flight_in(struct trial *r, enum flight_state state);
unsigned flights_in(const struct trial *r, enum flight_state state);

/* Reserve a batch, NULL: refused; store and announce it; give it back; run epochs. */
struct flight *publish_reserve(struct trial *r);
void publish_announce(struct trial *r, struct flight *f);
void publish_abandon(struct trial *r, struct flight *f);
void publish_commit(struct trial *r);
/* Would the announcement find room in its ring? */
bool publish_room(const struct trial *r, const struct flight *f);

#endif
