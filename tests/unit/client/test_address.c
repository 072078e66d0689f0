/* Finding the broker: what the option, the environment and the mount table say, and the refusals. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/client/address.h"
#include "net/token.h"

static char base[PATH_MAX / 2];

static const char *at(const char *name)
{
    static char path[4][2 * PATH_MAX];
    static unsigned i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof(path[i]), "%s/%s", base, name);
    return path[i];
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A folder that looks like a mount. */
static void make_mount(const char *name, const char *status, const char *token)
{
    char sub[PATH_MAX];
    mkdir(at(name), 0700);
    snprintf(sub, sizeof(sub), "%s/.embar", name);
    mkdir(at(sub), 0700);
    snprintf(sub, sizeof(sub), "%s/.embar/status", name);
    if (status)
        write_file(at(sub), status);
    snprintf(sub, sizeof(sub), "%s/.embar/token", name);
    if (token)
        write_file(at(sub), token);
}

static int find(const char *server, const char *token_file, const char *table, struct address *a,
                struct embar_error *err)
{
    char *s = server ? strdup(server) : NULL, *t = token_file ? strdup(token_file) : NULL;
    struct address_source src = {.server = s, .token_file = t, .mounts = table};
    int rc = address_find(&src, a, err);
    free(s);
    free(t);
    return rc;
}

/* Mounts that this user made. */
static const char *table(const char *const *mounts)
{
    const char *path = at("mounts");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("proc /proc proc rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n", f);
    for (; *mounts; mounts++)
        fprintf(f, "/a/pool %s fuse.embarfs rw,nosuid,user_id=%u,group_id=0 0 0\n", *mounts,
                (unsigned)geteuid());
    fclose(f);
    return path;
}

static void host_and_port(void **state)
{
    (void)state;
    struct address a;
    struct embar_error err;
    const char *none = table((const char *const[]){NULL});
    assert_int_equal(find("127.0.0.1:9000", NULL, none, &a, &err), 0);
    assert_string_equal(a.host, "127.0.0.1");
    assert_string_equal(a.port, "9000");
    assert_false(a.local);
    assert_int_equal(a.token_length, 0);
    assert_int_equal(find("[::1]:65535", NULL, none, &a, &err), 0);
    assert_string_equal(a.host, "::1");
    assert_int_equal(find(":80", NULL, none, &a, &err), 0);
    assert_string_equal(a.host, "localhost");
    static const char *const bad[] = {"host", "host:", "host:0", "host:65536", "host:1x", "::1:80"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(find(bad[i], NULL, none, &a, &err), -EMBAR_ESPEC);
}

static void socket_path(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const char *path = at("sock");
    assert_true(strlen(path) < sizeof(un.sun_path));
    memcpy(un.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    struct address a;
    struct embar_error err;
    assert_int_equal(find(un.sun_path, NULL, NULL, &a, &err), 0);
    assert_true(a.local);
    assert_string_equal(a.path, un.sun_path);
    close(fd);
    assert_int_equal(find(at("absent"), NULL, NULL, &a, &err), -ENOENT);
    write_file(at("plain"), "x");
    assert_int_equal(find(at("plain"), NULL, NULL, &a, &err), -EMBAR_ESPEC);
}

static void one_mount_is_taken_two_are_listed(void **state)
{
    (void)state;
    make_mount("one", "{\"listen\": \"127.0.0.1:7001\", \"socket\": null, \"pid\": 1}", "secret\n");
    make_mount("two words", "{\"listen\": \"127.0.0.1:7002\"}", "other");
    struct address a;
    struct embar_error err;
    unsetenv("EMBAR_SERVER");
    assert_int_equal(find(NULL, NULL, table((const char *const[]){NULL}), &a, &err),
                     -EMBAR_ENOSERVER);
    assert_int_equal(find(NULL, NULL, table((const char *const[]){at("one"), NULL}), &a, &err), 0);
    assert_string_equal(a.port, "7001");
    assert_int_equal(a.token_length, 6);
    assert_memory_equal(a.token, "secret", 6);

    char escaped[PATH_MAX];
    snprintf(escaped, sizeof(escaped), "%s/two\\040words", base);
    assert_int_equal(find(NULL, NULL, table((const char *const[]){escaped, NULL}), &a, &err), 0);
    assert_string_equal(a.port, "7002");

    const char *both = table((const char *const[]){at("one"), escaped, NULL});
    assert_int_equal(find(NULL, NULL, both, &a, &err), -EMBAR_ENOSERVER);
    assert_non_null(strstr(err.text, "/one"));
    assert_non_null(strstr(err.text, "two words"));

    setenv("EMBAR_SERVER", at("two words"), 1);
    assert_int_equal(find(NULL, NULL, both, &a, &err), 0);
    assert_string_equal(a.port, "7002");
    assert_int_equal(find(at("one"), NULL, both, &a, &err), 0); /* the option goes first */
    assert_string_equal(a.port, "7001");
    unsetenv("EMBAR_SERVER");
}

/* Looking into it would never end: a FIFO that nobody writes to. */
static void make_silent_mount(const char *name)
{
    char sub[PATH_MAX];
    make_mount(name, NULL, NULL);
    snprintf(sub, sizeof(sub), "%s/.embar/status", name);
    assert_int_equal(mkfifo(at(sub), 0600), 0);
}

static void mounts_of_strangers_are_not_looked_into(void **state)
{
    (void)state;
    make_silent_mount("silent");
    make_mount("mine", "{\"listen\": \"127.0.0.1:7005\"}", "secret");
    make_mount("roots", "{\"listen\": \"127.0.0.1:7006\"}", "secret");
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s", at("strangers"));
    struct address a;
    struct embar_error err;
    unsigned me = (unsigned)geteuid(), other = me + 1000;
    for (int mine = 0; mine <= 1; mine++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(f, "embarfs %s fuse.embarfs rw,user_id=%u,group_id=%u,allow_other 0 0\n",
                at("silent"), other, me);
        fprintf(f, "user_id=0 %s fuse.embarfs rw,xuser_id=0,user_id=%u 0 0\n", at("silent"), other);
        fprintf(f, "user_id=0 %s fuse.embarfs rw 0 0\n", at("silent"));
        fprintf(f, "embarfs %s fuse.embarfs rw,user_id=%u 0 0\n", at(mine ? "mine" : "roots"),
                mine ? me : 0);
        fclose(f);
        assert_int_equal(find(NULL, NULL, path, &a, &err), 0);
        assert_string_equal(a.port, mine ? "7005" : "7006");
    }
    /* An address leads into no mount at all, one's own neither. */
    const char *own = table((const char *const[]){at("silent"), NULL});
    assert_int_equal(find("127.0.0.1:7007", NULL, own, &a, &err), 0);
    assert_int_equal(a.token_length, 0);
    assert_true(a.looks);
}

/* Whoever names `server` and reaches this address of it has that token. */
static void expect_token(const char *server, const char *reached, const char *want)
{
    struct address a;
    struct embar_error err;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    assert_int_equal(find(server, NULL, NULL, &a, &err), 0);
    v4.sin_port = v6.sin6_port = htons((uint16_t)strtoul(a.port, NULL, 10));
    if (inet_pton(AF_INET, reached, &v4.sin_addr) == 1) {
        address_reached(&a, (const struct sockaddr *)&v4);
    } else {
        assert_int_equal(inet_pton(AF_INET6, reached, &v6.sin6_addr), 1);
        address_reached(&a, (const struct sockaddr *)&v6);
    }
    assert_int_equal(a.token_length, strlen(want));
    assert_memory_equal(a.token, want, strlen(want));
}

static void an_address_brings_the_token_that_was_left_for_it(void **state)
{
    (void)state;
    static const char v4[] = "127.0.0.1", v6[] = "::1";
    struct token_left one, others[6], newer;
    expect_token("127.0.0.1:7010", v4, "");
    assert_int_equal(token_leave("127.0.0.1:7010", "one", 3, &one), 0);
    assert_int_equal(token_leave("[::1]:7011", "two", 3, &others[0]), 0);
    struct stat st;
    assert_int_equal(lstat(one.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    expect_token("127.0.0.1:7010", v4, "one");
    expect_token("[::ffff:127.0.0.1]:7010", "::ffff:127.0.0.1", "one");
    expect_token("[::1]:7010", v6, "");
    expect_token("[::1]:7011", v6, "two");
    expect_token("[0:0:0:0:0:0:0:1]:7011", v6, "two");
    expect_token("127.0.0.1:7011", v4, "");

    /* A name has several addresses, each with a token of its own. */
    assert_int_equal(token_leave("[::1]:7010", "three", 5, &others[1]), 0);
    expect_token("localhost:7010", v4, "one");
    expect_token("localhost:7010", v6, "three");
    assert_int_equal(token_leave("127.0.0.1:7010", "newer", 5, &newer), 0);
    expect_token("localhost:7010", v4, "newer");
    expect_token("localhost:7010", v6, "three");

    /* What listens on all addresses listens on these; on others it may be somebody else. */
    assert_int_equal(token_leave("0.0.0.0:7012", "all", 3, &others[2]), 0);
    expect_token("127.0.0.1:7012", v4, "all");
    expect_token("myself:7012", "127.0.1.1", "all");
    expect_token("[::1]:7012", v6, "");
    expect_token("192.0.2.1:7012", "192.0.2.1", "");
    assert_int_equal(token_leave("[::]:7013", "both", 4, &others[3]), 0);
    expect_token("127.0.0.1:7013", v4, "both");
    expect_token("[::1]:7013", v6, "both");
    expect_token("[2001:db8::1]:7013", "2001:db8::1", "");
    assert_int_equal(unlink(newer.path), 0);
    expect_token("127.0.0.1:7010", v4, "");

    /* What is no file of one's own is none; nothing is read through a link, nor waited for. */
    write_file(at("elsewhere"), "secret");
    assert_int_equal(symlink(at("elsewhere"), newer.path), 0);
    expect_token("127.0.0.1:7010", v4, "");
    assert_int_equal(unlink(newer.path), 0);
    assert_int_equal(mkfifo(newer.path, 0600), 0);
    expect_token("127.0.0.1:7010", v4, "");
    if (geteuid() == 0) {
        assert_int_equal(unlink(newer.path), 0);
        write_file(newer.path, "foreign");
        assert_int_equal(chown(newer.path, 65534, 65534), 0);
        expect_token("127.0.0.1:7010", v4, "");
        /* Nor is the folder of another user: a token that is left there would be his to replace. */
        mkdir(at("his"), 0755);
        assert_int_equal(chown(at("his"), 65534, 65534), 0);
        setenv("XDG_RUNTIME_DIR", at("his"), 1);
        char folder[PATH_MAX];
        assert_true(token_folder(0, folder, sizeof(folder)));
        assert_string_equal(folder, "");
        setenv("XDG_RUNTIME_DIR", base, 1);
    }
}

/* Leave tokens and be gone, as a daemon that is killed. */
static void leave_and_die(const char *const *addresses)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static struct token_left left;
        int rc = 0;
        for (; *addresses && rc == 0; addresses++)
            rc = token_leave(*addresses, "dead", 4, &left);
        _exit(rc != 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static bool is_there(const char *name)
{
    return access(at(name), F_OK) == 0;
}

/* As old as an hour. */
static void make_socket(const char *name, int backlog, int *fd)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct timespec old[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    snprintf(un.sun_path, sizeof(un.sun_path), "%s", at(name));
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    if (backlog > 0)
        assert_int_equal(listen(*fd, backlog), 0);
    assert_int_equal(utimensat(AT_FDCWD, at(name), old, 0), 0);
}

static void tokens_of_killed_daemons_are_known_and_go(void **state)
{
    (void)state;
    struct token_left alive, next;
    struct address a;
    struct embar_error err;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(7020)};
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    leave_and_die((const char *const[]){"127.0.0.1:7020", "127.0.0.1:7021", NULL});
    assert_int_equal(find("127.0.0.1:7020", NULL, NULL, &a, &err), 0);
    address_reached(&a, (const struct sockaddr *)&v4);
    assert_non_null(strstr(a.gone, "/127.0.0.1:7020.token"));

    /* One that lives counts before one that does not, whichever is newer. */
    assert_int_equal(token_leave("0.0.0.0:7020", "alive", 5, &alive), 0);
    assert_false(is_there("embar/127.0.0.1:7020.token"));
    write_file(at("embar/127.0.0.1:7020.token"), "newer, of nobody");
    expect_token("127.0.0.1:7020", "127.0.0.1", "alive");
    address_reached(&a, (const struct sockaddr *)&v4);
    assert_string_equal(a.gone, "");

    /* The next takes away what nobody holds, and nothing else. */
    write_file(at("embar/127.0.0.1:7022.token.4711"), "half");
    static const char *const mine[] = {
        "embar/notes",
        "embar/backup.token.old",
        "embar/backup.token",
        "embar/backup:1.token",
        "embar/127.0.0.1:7022.token.old",
        "embar/127.0.0.1:7022.token.",
        "embar/127.0.0.1:.token",
        "embar/my127.0.0.1:7022.token",
        "embar/::1:7022.token",
        "embar/.token",
    };
    for (size_t i = 0; i < sizeof(mine) / sizeof(mine[0]); i++)
        write_file(at(mine[i]), "mine");
    write_file(at("embar/[fe80::1%lo]:7022.token"), "dead");
    int served, dead, young;
    make_socket("embar/0000000000000001.sock", 1, &served);
    make_socket("embar/0000000000000002.sock", 1, &dead);
    make_socket("embar/0000000000000003.sock", 0, &young);
    assert_int_equal(utimensat(AT_FDCWD, at("embar/0000000000000003.sock"), NULL, 0), 0);
    close(dead);
    write_file(at("elsewhere"), "secret");
    assert_int_equal(symlink(at("elsewhere"), at("embar/127.0.0.1:7023.token")), 0);
    assert_int_equal(token_leave("127.0.0.1:7024", "next", 4, &next), 0);
    assert_false(is_there("embar/127.0.0.1:7020.token"));
    assert_false(is_there("embar/127.0.0.1:7021.token"));
    assert_false(is_there("embar/127.0.0.1:7022.token.4711"));
    assert_false(is_there("embar/[fe80::1%lo]:7022.token"));
    assert_true(is_there("embar/127.0.0.1:7023.token"));
    for (size_t i = 0; i < sizeof(mine) / sizeof(mine[0]); i++) {
        assert_true(is_there(mine[i]));
        assert_int_equal(unlink(at(mine[i])), 0);
    }
    assert_false(is_there("embar/0000000000000002.sock"));
    assert_true(is_there("embar/0000000000000001.sock") && is_there("embar/0000000000000003.sock"));
    close(served);
    close(young);
    expect_token("127.0.0.1:7020", "127.0.0.1", "alive");
    expect_token("127.0.0.1:7024", "127.0.0.1", "next");
    token_withdraw(&alive);
    token_withdraw(&next);
    expect_token("127.0.0.1:7020", "127.0.0.1", "");
    assert_int_equal(unlink(at("embar/127.0.0.1:7023.token")), 0);
}

/* Anybody may open the folder, and lock it: that keeps no daemon from it. */
static void a_folder_that_is_locked_by_others_is_swept(void **state)
{
    (void)state;
    struct token_left left;
    struct stat st;
    leave_and_die((const char *const[]){"127.0.0.1:7030", NULL});
    assert_true(is_there("embar/127.0.0.1:7030.token"));
    int fd = open(at("embar"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(token_leave("127.0.0.1:7031", "next", 4, &left), 0);
    assert_false(is_there("embar/127.0.0.1:7030.token"));
    token_withdraw(&left);
    close(fd);
    assert_int_equal(stat(at("embar/lock"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);

    /* Who is at it meanwhile is not disturbed, nor waited for without end. */
    leave_and_die((const char *const[]){"127.0.0.1:7030", NULL});
    fd = open(at("embar/lock"), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(token_leave("127.0.0.1:7031", "next", 4, &left), 0);
    assert_true(is_there("embar/127.0.0.1:7030.token"));
    token_withdraw(&left);
    close(fd);
}

/* A folder whose path leaves no room for a socket's name is none, for whatever stands there. */
static void a_folder_that_is_too_long_for_a_socket_is_none(void **state)
{
    (void)state;
    char runtime[PATH_MAX], folder[PATH_MAX];
    size_t most = TOKEN_FOLDER_MAX - strlen("/embar");
    int n = snprintf(runtime, sizeof(runtime), "%s/", base);
    if ((size_t)n >= most)
        skip(); /* a long TMPDIR */
    memset(runtime + n, 'd', most + 1 - (size_t)n);
    runtime[most + 1] = '\0';
    for (int over = 1; over >= 0; over--) {
        runtime[most + (size_t)over] = '\0';
        assert_int_equal(mkdir(runtime, 0700), 0);
        setenv("XDG_RUNTIME_DIR", runtime, 1);
        assert_true(token_folder(0, folder, sizeof(folder)));
        assert_int_equal(strlen(folder), over ? 0 : TOKEN_FOLDER_MAX);
    }
    setenv("XDG_RUNTIME_DIR", base, 1);
}

static void bad_mounts_and_tokens_are_refused(void **state)
{
    (void)state;
    struct address a;
    struct embar_error err;
    make_mount("bare", NULL, NULL);
    assert_int_equal(find(at("bare"), NULL, NULL, &a, &err), -EMBAR_ENOSERVER);
    make_mount("odd", "[1, 2]", NULL);
    assert_int_equal(find(at("odd"), NULL, NULL, &a, &err), -EMBAR_ENOSERVER);
    make_mount("deaf", "{\"listen\": null}", NULL);
    assert_int_equal(find(at("deaf"), NULL, NULL, &a, &err), -EMBAR_ENOSERVER);
    make_mount("keyless", "{\"listen\": \"127.0.0.1:7004\"}", NULL);
    assert_int_equal(find(at("keyless"), NULL, NULL, &a, &err), -EMBAR_EAUTH);

    write_file(at("token"), "0123456789abcdef0123456789abcde\n"); /* 32 bytes: taken as they are */
    assert_int_equal(find("127.0.0.1:1", at("token"), NULL, &a, &err), 0);
    assert_int_equal(a.token_length, 32);
    write_file(at("token"), " \n");
    assert_int_equal(find("127.0.0.1:1", at("token"), NULL, &a, &err), -EMBAR_EAUTH);
    assert_int_equal(find("127.0.0.1:1", at("absent"), NULL, &a, &err), -EMBAR_EAUTH);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    (void)st;
    (void)kind;
    (void)f;
    return remove(path);
}

int main(void)
{
    snprintf(base, sizeof(base), "%s/embar-address.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(base))
        return 1;
    setenv("XDG_RUNTIME_DIR", base, 1);
    alarm(240); /* whatever waits for a FIFO */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_and_port),
        cmocka_unit_test(socket_path),
        cmocka_unit_test(one_mount_is_taken_two_are_listed),
        cmocka_unit_test(mounts_of_strangers_are_not_looked_into),
        cmocka_unit_test(an_address_brings_the_token_that_was_left_for_it),
        cmocka_unit_test(tokens_of_killed_daemons_are_known_and_go),
        cmocka_unit_test(a_folder_that_is_locked_by_others_is_swept),
        cmocka_unit_test(a_folder_that_is_too_long_for_a_socket_is_none),
        cmocka_unit_test(bad_mounts_and_tokens_are_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return 1;
    return failed;
}
