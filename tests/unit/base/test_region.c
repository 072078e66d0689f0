/* Regions: sizes as text, files made whole or not at all, every refusal with its code and its
 * sentence and nothing changed, locks, syncing, prefaulting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/flush_variants.h"
#include "core/pool.h"

#define MIB (1ull << 20)

static char dir[256];

static int setup(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/embar-region-XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char path[300];
    static const char *const names[] = {
        "pool", "other", "link", "sub/state/embar/pool", "sub/state/embar", "sub/state", "sub"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)remove(path);
    }
    return rmdir(dir);
}

static const char *in_dir(const char *name)
{
    static char path[300];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    assert_int_equal(close(fd), 0);
}

static struct region_options options(const char *spec, uint64_t size)
{
    return (struct region_options){.spec = spec, .size = size, .create = true, .durability = -1};
}

/* Opening fails with this code, with a sentence that names the path, and leaves nothing open. */
static void refused(const struct region_options *opt, int code)
{
    struct region r;
    struct embar_error err;
    memset(&err, 0, sizeof(err));
    assert_int_equal(region_open(&r, opt, &err), code);
    assert_int_equal(err.code, code);
    assert_true(strlen(err.text) > 20);
    assert_int_equal(err.text[strlen(err.text) - 1], '.');
    if (opt->spec && *opt->spec)
        assert_non_null(strstr(err.text, opt->spec));
    assert_null(r.base);
    region_close(&r);
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"1K", 1024},
        {"10M", 10 * MIB},
        {"10m", 10 * MIB},
        {"2GiB", 2048 * MIB},
        {"3KiB", 3072},
        {"1T", MIB * MIB},
        {"16383P", 16383ull << 50},
        {"18446744073709551615", UINT64_MAX},
        {"000000000000000000000000001", 1},
    };
    static const char *const bad[] = {"",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1 M",
                                      "M",
                                      "0x10",
                                      "1.5G",
                                      "1GB",
                                      "1Ki",
                                      "1KiBs",
                                      "1E",
                                      "1Q",
                                      "1MM",
                                      "18446744073709551616",
                                      "1kb",
                                      "1 GiB",
                                      "9999999999999999999999",
                                      "16384P",
                                      "18446744073709551615K"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t v = 99;
        assert_int_equal(size_parse(good[i].text, &v), 0);
        assert_int_equal(v, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t v = 99;
        assert_int_equal(size_parse(bad[i], &v), -EMBAR_ESPEC);
        assert_int_equal(v, 99);
    }
    uint64_t v;
    assert_int_equal(size_parse(NULL, &v), -EMBAR_ESPEC);
}

static void made_whole(void **state)
{
    (void)state;
    const char *path = in_dir("pool");
    struct region r;
    struct region_options opt = options(path, 5 * MIB + 1);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_true(r.created);
    assert_int_equal(r.size, 5 * MIB + 4096);
    assert_int_equal(r.kind, REGION_FILE);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, r.size);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true((uint64_t)st.st_blocks * 512 >= r.size); /* never sparse */
    for (uint64_t i = 0; i < r.size; i++)
        assert_int_equal(r.base[i], 0);
    r.base[4 * MIB] = 'x';
    flush_writeback(&r.flush, r.base + 4 * MIB, 1);
    assert_int_equal(region_sync(&r), 0);
    assert_int_equal(region_sync(&r), 0);
    region_close(&r);
    /* Again, by the same size, by none, and for reading. */
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_false(r.created);
    assert_int_equal(r.base[4 * MIB], 'x');
    region_close(&r);
    opt.size = 0;
    opt.readonly = true;
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_int_equal(r.base[4 * MIB], 'x');
    assert_true(r.readonly);
    assert_int_equal(region_sync(&r), 0);
    region_close(&r);
    region_close(&r); /* safe twice */
    opt = options(path, 6 * MIB);
    refused(&opt, -EMBAR_ESIZE);
    opt = options(path, 0);
    opt.exclusive = true;
    refused(&opt, -EEXIST);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 5 * MIB + 4096);
}

static void refusals(void **state)
{
    (void)state;
    char path[300];
    snprintf(path, sizeof(path), "%s/pool", dir);
    struct region_options opt = options(path, 8 * MIB);
    opt.create = false;
    refused(&opt, -ENOENT);
    opt = options(path, 0);
    refused(&opt, -ENOENT); /* no size told */
    opt = options(path, POOL_MIN_SIZE - 4096);
    refused(&opt, -EMBAR_ETOOSMALL);
    opt = options(path, UINT64_MAX);
    refused(&opt, -EFBIG);
    assert_int_equal(access(path, F_OK), -1);
    opt = options(path, 1ull << 50); /* more than any disk of a test machine */
    struct region r;
    struct embar_error err;
    int rc = region_open(&r, &opt, &err);
    assert_true(rc == -ENOSPC || rc == -EFBIG || rc == -EDQUOT);
    assert_int_equal(access(path, F_OK), -1); /* what was made is removed */
    opt = options(dir, 8 * MIB);
    refused(&opt, -EISDIR);
    opt.readonly = true;
    refused(&opt, -EISDIR);
    opt = options("/dev/null", 0);
    refused(&opt, -EMBAR_ESPEC);
    opt = options("/dev/dax99.99", 0);
    refused(&opt, -ENOENT);
    opt = options("/dev/embar-none", 8 * MIB); /* no pool file is made there */
    refused(&opt, -ENOENT);
    assert_int_equal(access("/dev/embar-none", F_OK), -1);
    opt = options("", 0);
    refused(&opt, -EMBAR_ESPEC);
    snprintf(path, sizeof(path), "%s/none/pool", dir);
    opt = options(path, 8 * MIB);
    refused(&opt, -ENOENT);
    snprintf(path, sizeof(path), "%s/other", dir);
    write_file(path, "", 0);
    opt = options(path, 0);
    refused(&opt, -EMBAR_ENOTPOOL);
    write_file(path, "some words", 10);
    refused(&opt, -EMBAR_ENOTPOOL);
    assert_int_equal(truncate(path, (off_t)(5 * MIB + 1)), 0);
    refused(&opt, -EMBAR_ENOTPOOL);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 5 * MIB + 1);
    char fifo[300];
    snprintf(fifo, sizeof(fifo), "%s/link", dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    opt = options(fifo, 8 * MIB);
    refused(&opt, -EMBAR_ESPEC);
}

/* An empty file may be given a size; a sparse blank one is filled; a sparse foreign one is not. */
static void empty_and_sparse(void **state)
{
    (void)state;
    const char *path = in_dir("other");
    struct region r;
    struct stat st;
    write_file(path, "", 0);
    struct region_options opt = options(path, 4 * MIB);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_int_equal(r.size, 4 * MIB);
    region_close(&r);
    write_file(path, "", 0);
    assert_int_equal(truncate(path, (off_t)(8 * MIB)), 0);
    opt = options(path, 0);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    region_close(&r);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks * 512 >= st.st_size);
    write_file(path, "foreign", 7);
    assert_int_equal(truncate(path, (off_t)(8 * MIB)), 0);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_false(pool_is_blank(&r));
    region_close(&r);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks * 512 < st.st_size);
}

/* As an ordinary user, for root may read anything. */
static void not_permitted(void **state)
{
    (void)state;
    const char *path = in_dir("pool");
    struct region r;
    struct region_options opt = options(path, 4 * MIB);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    region_close(&r);
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(chmod(dir, 0755), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
            _exit(2);
        struct embar_error err;
        int rc = region_open(&r, &opt, &err);
        _exit(rc == -EACCES && strstr(err.text, path) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void memory(void **state)
{
    (void)state;
    struct region r;
    struct region_options opt = options("mem:6M", 0);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_int_equal(r.size, 6 * MIB);
    assert_true(r.is_volatile && r.created && r.fd == -1);
    assert_int_equal(r.durability, MEDIA_DURABLE_PROCESS);
    assert_true(flush_is_noop(&r.flush));
    assert_int_equal((uintptr_t)r.base % (2 * MIB), 0);
    memset(r.base, 1, r.size);
    assert_int_equal(region_lock_slot(&r, 0, NULL), 0);
    assert_int_equal(region_sync(&r), 0);
    region_close(&r);
    opt.size = 6 * MIB;
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    region_close(&r);
    opt.size = 7 * MIB;
    refused(&opt, -EMBAR_ESIZE);
    static const char *const junk[] = {
        "mem:-1",   "mem:4X",       "mem:10M ", "node:",     "node:x", "node:-1",
        "node:0x1", "node:5000:4M", "node:0:",  "node:0:4Q", "mem:1e9"};
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
        opt = options(junk[i], 0);
        refused(&opt, -EMBAR_ESPEC);
    }
    opt = options("mem:1M", 0);
    refused(&opt, -EMBAR_ETOOSMALL);
    opt = options("mem:16000P", 0);
    refused(&opt, -ENOMEM);
    opt = options("mem:900T", 0);
    refused(&opt, -ENOMEM);
    opt = options("mem:4M", 0);
    opt.durability = MEDIA_DURABLE_MACHINE;
    refused(&opt, -EMBAR_ESPEC);
}

static void nodes(void **state)
{
    (void)state;
    struct region r;
    struct embar_error err;
    struct region_options opt = options("node:0:8M", 0);
    int rc = region_open(&r, &opt, &err);
    /* A container may forbid mbind, and a kernel may have no NUMA: both are told. */
    if (rc == 0) {
        assert_int_equal(r.kind, REGION_NODE);
        memset(r.base, 1, r.size);
        region_close(&r);
        opt = options("node:1023:8M", 0);
        refused(&opt, -EMBAR_ESPEC);
    } else {
        assert_true(rc == -EPERM || rc == -EOPNOTSUPP || rc == -ENOSYS);
        print_message("no node: region here: %s\n", err.text);
    }
}

static void durability(void **state)
{
    (void)state;
    struct region r;
    struct region_options opt = options(in_dir("pool"), 4 * MIB);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_int_equal(r.durability, MEDIA_DURABLE_PROCESS);
    assert_false(r.durability_given);
    bool disk = r.needs_sync;
    assert_int_equal(r.can_machine, disk);
    region_close(&r);
    opt.durability = MEDIA_DURABLE_MACHINE;
    if (disk) {
        assert_int_equal(region_open(&r, &opt, NULL), 0);
        assert_int_equal(r.durability, MEDIA_DURABLE_MACHINE);
        assert_true(r.needs_sync && r.durability_given);
        region_close(&r);
    } else {
        refused(&opt, -EMBAR_ESPEC);
    }
    opt.durability = 7;
    assert_int_equal(region_open(&r, &opt, NULL), -EMBAR_EINVALID);
    const enum flush_mode forced[] = {FLUSH_CLWB, FLUSH_CLFLUSHOPT, FLUSH_NT};
    for (unsigned i = 0; i < 3; i++) {
        if (!flush_instruction(forced[i]))
            continue;
        opt = options(in_dir("pool"), 0);
        opt.flush = forced[i];
        assert_int_equal(region_open(&r, &opt, NULL), 0);
        assert_false(flush_is_noop(&r.flush));
        flush_copy(&r.flush, r.base + 100, "forced", 6);
        flush_drain(&r.flush);
        assert_int_equal(region_sync(&r), 0);
        assert_memory_equal(r.base + 100, "forced", 6);
        region_close(&r);
    }
}

static void locks(void **state)
{
    (void)state;
    struct region a;
    struct region b;
    struct embar_error err;
    struct region_options opt = options(in_dir("pool"), 4 * MIB);
    assert_int_equal(region_open(&a, &opt, NULL), 0);
    assert_int_equal(region_open(&b, &opt, NULL), 0);
    assert_int_equal(region_lock_slot(&a, 0, &err), 0);
    assert_int_equal(region_lock_slot(&a, 0, &err), 0);
    assert_int_equal(region_lock_slot(&b, 0, &err), -EMBAR_EBUSY);
    assert_non_null(strstr(err.text, "another process"));
    assert_int_equal(region_lock_slot(&b, 1, &err), 0);
    assert_int_equal(region_lock_slot(&a, 1, &err), -EMBAR_EBUSY);
    /* With a claim of this host and boot, the holder is named. */
    struct pool pool;
    assert_int_equal(pool_format(&a, NULL, &err), 0);
    assert_int_equal(pool_attach(&pool, &a, &err), 0);
    struct media_claim *claim = pool_claim(&pool, 0);
    claim->magic = le32_of(MEDIA_CLAIM_MAGIC);
    claim->pid = le32_of(4242);
    host_machine_id(claim->host);
    host_boot_id(claim->boot_id);
    assert_int_equal(region_lock_slot(&b, 0, &err), -EMBAR_EBUSY);
    assert_non_null(strstr(err.text, "process 4242"));
    claim->boot_id[0] ^= 1; /* before a reboot: that process is somebody else now */
    assert_int_equal(region_lock_slot(&b, 0, &err), -EMBAR_EBUSY);
    assert_null(strstr(err.text, "4242"));
    /* A claim whose memory is gone names nobody. */
    claim->boot_id[0] ^= 1;
    int empty = memfd_create("empty", MFD_CLOEXEC);
    char *at = b.base + ((char *)claim - a.base);
    assert_ptr_equal(mmap(at, MEDIA_PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0), at);
    close(empty);
    assert_int_equal(region_lock_slot(&b, 0, &err), -EMBAR_EBUSY);
    assert_non_null(strstr(err.text, "another process"));
    region_close(&a);
    assert_int_equal(region_lock_slot(&b, 0, &err), 0);
    region_close(&b);
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
    uint64_t *last = arg;
    assert_true(done >= *last && done <= total);
    *last = done;
}

static void prefault(void **state)
{
    (void)state;
    struct region r;
    struct region_options opt = options("mem:200M", 0);
    uint64_t last = 0;
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    r.base[100 * MIB] = 'k';
    region_prefault(&r, progress, &last);
    assert_int_equal(last, r.size);
    assert_int_equal(r.base[100 * MIB], 'k');
    region_close(&r);
    opt = options(in_dir("pool"), 4 * MIB);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    region_prefault(&r, NULL, NULL);
    region_close(&r);
    opt.readonly = true;
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    region_prefault(&r, NULL, NULL);
    region_close(&r);
}

static void default_place(void **state)
{
    (void)state;
    char state_home[300];
    char want[400];
    char *before = getenv("XDG_STATE_HOME");
    before = before ? strdup(before) : NULL;
    snprintf(state_home, sizeof(state_home), "%s/sub/state", dir);
    snprintf(want, sizeof(want), "%s/embar/pool", state_home);
    assert_int_equal(setenv("XDG_STATE_HOME", state_home, 1), 0);
    char *path = region_default_spec(false);
    assert_string_equal(path, want);
    assert_int_equal(access(state_home, F_OK), -1);
    free(path);
    struct region r;
    struct region_options opt = options(NULL, 4 * MIB);
    assert_int_equal(region_open(&r, &opt, NULL), 0);
    assert_string_equal(r.spec, want);
    region_close(&r);
    /* A relative one is not to be believed, says its specification. */
    assert_int_equal(setenv("XDG_STATE_HOME", "sub/state", 1), 0);
    path = region_default_spec(false);
    assert_true(path == NULL || path[0] == '/');
    free(path);
    if (before)
        setenv("XDG_STATE_HOME", before, 1);
    else
        unsetenv("XDG_STATE_HOME");
    free(before);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        TEST(made_whole),
        TEST(refusals),
        TEST(empty_and_sparse),
        TEST(not_permitted),
        TEST(memory),
        TEST(nodes),
        TEST(durability),
        TEST(locks),
        TEST(prefault),
        TEST(default_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
