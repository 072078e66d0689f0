/* A few threads that take turns: a call runs on one of them while the caller waits. Drains cover
 * their own thread's write-backs only, so who does what matters; when does not, and runs repeat. */
#ifndef TESTS_CRASH_TEAM_H
#define TESTS_CRASH_TEAM_H

#define TEAM_SIZE 3u

struct team;

struct team *team_create(void);
void team_destroy(struct team *t);
/* Which one calls; TEAM_SIZE: none of them. */
unsigned team_self(void);
/* A member may call another one, which then has its turn. */
void team_call(struct team *t, unsigned member, void (*call)(void *arg), void *arg);

#endif
