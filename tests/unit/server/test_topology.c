/* What the server thinks of the machine: lists of processors, control groups' limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/server/topology.h"

static void lists(void **state)
{
    (void)state;
    cpu_set_t before, two, got;
    struct embar_error err;
    struct pin pin;
    assert_int_equal(pin_parse("auto", &pin, &err), 0);
    assert_int_equal(pin.kind, PIN_AUTO);
    assert_int_equal(pin_parse("none", &pin, &err), 0);
    assert_false(pin_choose(&pin, 0, NULL, &got));
    static const char *const bad[] = {"", "x", "0,", ",0", "1-0", "0-", "-1", "0 ", "0;1", "99999"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(pin_parse(bad[i], &pin, &err), -EMBAR_EINVALID);
        assert_non_null(strstr(err.text, "--pin"));
    }
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    unsigned cpu[2], n = 0;
    for (unsigned i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &before))
            cpu[n++] = i;
    if (n < 2)
        skip();
    CPU_ZERO(&two);
    CPU_SET(cpu[0], &two);
    CPU_SET(cpu[1], &two);
    assert_int_equal(sched_setaffinity(0, sizeof(two), &two), 0);
    assert_in_range(topology_processors(), 1, 2);
    char text[32];
    snprintf(text, sizeof(text), "%u,%u", cpu[1], cpu[0]);
    assert_int_equal(pin_parse(text, &pin, &err), 0);
    char many[8 * (PIN_MAX + 1)] = "";
    for (unsigned i = 0; i < PIN_MAX; i++)
        snprintf(many + strlen(many), 8, "%u,", cpu[0] % 1000);
    snprintf(many + strlen(many), 8, "%u", cpu[0] % 1000);
    struct pin crowd;
    assert_int_equal(pin_parse(many, &crowd, &err), -EMBAR_EINVALID); /* one more than it holds */
    for (unsigned i = 0; i < 4; i++) {
        assert_true(pin_choose(&pin, i, NULL, &got));
        assert_int_equal(CPU_COUNT(&got), 1);
        assert_true(CPU_ISSET(cpu[1 - i % 2], &got));
    }
    CPU_CLR(cpu[1], &two);
    assert_int_equal(sched_setaffinity(0, sizeof(two), &two), 0);
    assert_int_equal(topology_processors(), 1);
    assert_int_equal(pin_parse(text, &pin, &err), -EMBAR_EINVALID);
    assert_non_null(strstr(err.text, "may not run"));
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static char root[200];

static void put(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof(path), "%s%s/%s", root, folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n", text);
    fclose(f);
}

static void make(const char *folder)
{
    char path[512];
    snprintf(path, sizeof(path), "%s%s", root, folder);
    assert_int_equal(mkdir(path, 0755), 0);
}

static void drop(const char *path)
{
    char full[512];
    snprintf(full, sizeof(full), "%s%s", root, path);
    assert_int_equal(remove(full), 0);
}

static void limits(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%s/embar-topology-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(root));
    static const char two[] = "0::/a/b\n";
    static const char one[] = "5:cpuset:/s\n4:memory:/m\n3:cpu,cpuacct:/c\n0::/\n";
    assert_int_equal(cgroup_processors(root, two), UINT_MAX);
    assert_int_equal(cgroup_memory(root, ""), UINT64_MAX);
    make("/a");
    make("/a/b");
    put("/a/b", "cpu.max", "max 100000");
    put("/a/b", "memory.max", "max");
    assert_int_equal(cgroup_processors(root, two), UINT_MAX);
    assert_int_equal(cgroup_memory(root, two), UINT64_MAX);
    put("/a", "cpu.max", "250000 100000"); /* a parent's counts */
    put("/a", "memory.max", "1000000");
    assert_int_equal(cgroup_processors(root, two), 3);
    assert_int_equal(cgroup_memory(root, two), 1000000);
    put("/a/b", "cpu.max", "100 0"); /* no period: no limit */
    assert_int_equal(cgroup_processors(root, two), 3);
    put("/a/b", "cpu.max", "0 100000");
    assert_int_equal(cgroup_processors(root, two), 1);
    put("/a/b", "cpu.max", "100 100000");
    put("/a/b", "memory.max", "70000");
    assert_int_equal(cgroup_processors(root, two), 1);
    assert_int_equal(cgroup_memory(root, two), 70000);
    assert_int_equal(cgroup_memory(root, one), UINT64_MAX);
    make("/memory");
    make("/memory/m");
    make("/cpu");
    make("/cpu/c");
    put("/memory/m", "memory.limit_in_bytes", "5000");
    put("/cpu/c", "cpu.cfs_quota_us", "-1");
    put("/cpu/c", "cpu.cfs_period_us", "100000");
    assert_int_equal(cgroup_processors(root, one), UINT_MAX);
    put("/cpu/c", "cpu.cfs_quota_us", "150000");
    assert_int_equal(cgroup_processors(root, one), 2);
    assert_int_equal(cgroup_memory(root, one), 5000);
    static const char *const all[] = {"/cpu/c/cpu.cfs_quota_us",
                                      "/cpu/c/cpu.cfs_period_us",
                                      "/cpu/c",
                                      "/cpu",
                                      "/memory/m/memory.limit_in_bytes",
                                      "/memory/m",
                                      "/memory",
                                      "/a/b/cpu.max",
                                      "/a/b/memory.max",
                                      "/a/b",
                                      "/a/cpu.max",
                                      "/a/memory.max",
                                      "/a",
                                      ""};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        drop(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists), cmocka_unit_test(limits)};
    return cmocka_run_group_tests_name("server topology", tests, NULL, NULL);
}
