/* The lock that every batch of a topic takes for a moment, to reserve its space, is one that looks again
 * before it sleeps. What lock was made how, the linker's --wrap of pthread_mutex_init tells.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"

enum { MADE = 4096 };

static struct {
    const pthread_mutex_t *lock;
    int type;
} made[MADE]; /* newest last */
static unsigned count;

int __real_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a)
{
    int type = PTHREAD_MUTEX_DEFAULT;
    if (a)
        assert_int_equal(pthread_mutexattr_gettype(a, &type), 0);
    if (count < MADE) {
        made[count].lock = m;
        made[count++].type = type;
    }
    return __real_pthread_mutex_init(m, a);
}

static int type_of(const pthread_mutex_t *m)
{
    for (unsigned i = count; i > 0; i--)
        if (made[i - 1].lock == m)
            return made[i - 1].type;
    fail_msg("a lock that nobody made");
    return -1;
}

static void looks_again(void **state)
{
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    for (int again = 0; again < 2; again++) { /* made, and recovered */
        struct topic *t = log_topic(f.log, id);
        assert_non_null(t);
        assert_int_equal(type_of(&t->fill_lock), PTHREAD_MUTEX_ADAPTIVE_NP);
        topic_put(t);
        fixture_reopen(&f);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looks_again),
    };
    return cmocka_run_group_tests_name("core brief", tests, NULL, NULL);
}
