/* Threads that take turns; see team.h. Must never let two run at once. */
#include "tests/crash/team.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

static _Thread_local unsigned self = TEAM_SIZE;

struct member {
    pthread_t thread;
    unsigned index;
    sem_t go, done; /* hand `call` and `arg` over, there and back */
    void (*call)(void *arg);
    void *arg;
};

struct team {
    struct member member[TEAM_SIZE];
};

static void *member_main(void *arg)
{
    struct member *m = arg;
    self = m->index;
    for (;;) {
        while (sem_wait(&m->go) != 0)
            ;
        if (!m->call)
            return NULL;
        m->call(m->arg);
        sem_post(&m->done);
    }
}

struct team *team_create(void)
{
    struct team *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    for (unsigned i = 0; i < TEAM_SIZE; i++) {
        struct member *m = &t->member[i];
        m->index = i;
        sem_init(&m->go, 0, 0);
        sem_init(&m->done, 0, 0);
        if (pthread_create(&m->thread, NULL, member_main, m) != 0)
            abort();
    }
    return t;
}

void team_destroy(struct team *t)
{
    for (unsigned i = 0; i < TEAM_SIZE; i++) {
        struct member *m = &t->member[i];
        m->call = NULL;
        sem_post(&m->go);
        pthread_join(m->thread, NULL);
        sem_destroy(&m->go);
        sem_destroy(&m->done);
    }
    free(t);
}

unsigned team_self(void)
{
    return self;
}

void team_call(struct team *t, unsigned member, void (*call)(void *arg), void *arg)
{
    struct member *m = &t->member[member % TEAM_SIZE];
    m->call = call;
    m->arg = arg;
    sem_post(&m->go);
    while (sem_wait(&m->done) != 0)
        ;
}
