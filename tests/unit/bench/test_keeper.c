/* The keeper: what it was told is gone after an orderly stop, and after its owner was killed. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bench/clock.h"
#include "tests/bench/keeper.h"

#define DEADLINE_NS UINT64_C(30000000000)

static int is_gone(const char *path)
{
    struct stat st;
    return stat(path, &st) < 0 && errno == ENOENT;
}

/* A pipe whose writing end only the child holds: its end of file is the child's end. */
static pid_t start_child(int fd[2])
{
    assert_int_equal(pipe(fd), 0);
    pid_t pid = proc_fork();
    if (pid == 0) {
        (void)close(fd[0]);
        for (;;)
            (void)pause();
    }
    (void)close(fd[1]);
    return pid;
}

static void orderly_stop_leaves_nothing(void **state)
{
    (void)state;
    char dir[128];
    char file[160];
    char byte;
    int fd[2];
    assert_int_equal(keeper_start(), 0);
    assert_int_equal(keeper_make_directory(dir, sizeof(dir), 0), 0);
    (void)snprintf(file, sizeof(file), "%s/file", dir);
    FILE *f = fopen(file, "we");
    assert_non_null(f);
    (void)fputs("text", f);
    (void)fclose(f);
    pid_t pid = start_child(fd);
    assert_true(pid > 0);
    keeper_stop();
    assert_true(is_gone(dir));
    assert_int_equal(read(fd[0], &byte, 1), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    (void)close(fd[0]);
}

static void what_is_forgotten_stays(void **state)
{
    (void)state;
    char dir[128];
    assert_int_equal(keeper_start(), 0);
    assert_int_equal(keeper_make_directory(dir, sizeof(dir), 0), 0);
    keeper_forget_path(dir);
    keeper_stop();
    assert_false(is_gone(dir));
    assert_int_equal(rmdir(dir), 0);
}

static void killed_owner_leaves_nothing(void **state)
{
    (void)state;
    int told[2];
    char dir[128] = {0};
    assert_int_equal(pipe(told), 0);
    pid_t owner = fork();
    assert_true(owner >= 0);
    if (owner == 0) {
        if (keeper_start() || keeper_make_directory(dir, sizeof(dir), 0))
            _exit(1);
        pid_t child = proc_fork();
        if (child == 0)
            for (;;)
                (void)pause();
        if (write(told[1], dir, sizeof(dir)) != (ssize_t)sizeof(dir))
            _exit(1);
        for (;;)
            (void)pause();
    }
    (void)close(told[1]);
    assert_int_equal(read(told[0], dir, sizeof(dir)), sizeof(dir));
    assert_false(is_gone(dir));
    assert_int_equal(kill(owner, SIGKILL), 0);
    assert_int_equal(waitpid(owner, NULL, 0), owner);
    /* The pipe ends when owner, child and keeper have all ended. */
    char byte;
    assert_int_equal(read(told[0], &byte, 1), 0);
    uint64_t deadline = clock_ns() + DEADLINE_NS;
    while (!is_gone(dir) && clock_ns() < deadline)
        clock_sleep(1000000);
    assert_true(is_gone(dir));
    (void)close(told[0]);
}

static void waiting_has_a_deadline(void **state)
{
    (void)state;
    int fd[2];
    int status;
    assert_int_equal(keeper_start(), 0);
    pid_t pid = start_child(fd);
    assert_int_equal(proc_wait(pid, 1, &status), -ETIMEDOUT);
    proc_end(pid, 1000);
    assert_int_equal(waitpid(pid, &status, 0), -1); /* reaped */
    assert_int_equal(errno, ECHILD);
    keeper_stop();
    (void)close(fd[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orderly_stop_leaves_nothing),
        cmocka_unit_test(what_is_forgotten_stays),
        cmocka_unit_test(killed_owner_leaves_nothing),
        cmocka_unit_test(waiting_has_a_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
