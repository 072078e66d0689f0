/* ADMIN verbs and their answers; starting: addresses that are refused and sockets that are stale. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/unit/server/rig.h"

static json_t *ask(int fd, uint8_t verb, const char *path, uint64_t value, uint16_t flags,
                   bool *more)
{
    char *text = NULL;
    uint64_t m = 0;
    assert_int_equal(admin(fd, verb, path, NULL, 0, value, flags, &m, &text), 0);
    assert_non_null(text);
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    free(text);
    if (more)
        *more = m;
    return o;
}

static json_int_t field(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

static void verbs(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    int fd = peer(&r, true);
    uint64_t id, got;
    struct node_stat st;
    assert_int_equal(admin(fd, WIRE_V_CREATE, "x/y/t", NULL, 0, 0, 0, NULL, NULL), ENOENT);
    assert_int_equal(admin(fd, WIRE_V_CREATE, "x/y/t", NULL, 0, 0, WIRE_A_PARENTS, &id, NULL), 0);
    assert_int_equal(log_resolve(r.log, "/x/y/t", &st), 0);
    assert_int_equal(st.id, id);
    assert_int_equal(st.mode & 0777, 0644);
    assert_int_equal(st.order, 5);
    assert_int_equal(admin(fd, WIRE_V_CREATE, "x/y/t", NULL, 0, 0, 0, NULL, NULL), EEXIST);
    assert_int_equal(admin(fd, WIRE_V_MKDIR, "x/y/t", NULL, 0, 0, 0, NULL, NULL), EEXIST);
    assert_int_equal(admin(fd, WIRE_V_MKDIR, "x/e", NULL, 0, 0, 0, NULL, NULL), 0);
    assert_int_equal(admin(fd, WIRE_V_RENAME, "x/y/t", "x/e/u", 0, 0, 0, NULL, NULL), 0);
    assert_int_equal(log_resolve(r.log, "x/e/u", &st), 0);
    assert_int_equal(st.id, id);
    assert_int_equal(admin(fd, WIRE_V_RENAME, "x", "x/e/x", 0, 0, 0, NULL, NULL), EINVAL);
    assert_int_equal(admin(fd, WIRE_V_REMOVE, "x/y", NULL, 0, 0, 0, NULL, NULL), 0);
    assert_int_equal(admin(fd, WIRE_V_REMOVE, "x/e", NULL, 0, 0, 0, NULL, NULL), ENOTEMPTY);
    assert_int_equal(admin(fd, WIRE_V_REMOVE, "", NULL, 0, 0, 0, NULL, NULL), EBUSY);
    /* Trim by message. */
    open_topic(fd, "x/e/u", 1, WIRE_S_NONE, 0);
    uint32_t lengths[3] = {1, 2, 3};
    publish(fd, 1, 1, 0, "abbccc", 6, lengths, 3);
    await_ack(fd, 1, 1);
    assert_int_equal(admin(fd, WIRE_V_TRIM, "x/e/u", NULL, WIRE_FROM_MESSAGE, 2, 0, &got, NULL), 0);
    assert_int_equal(got, 3);
    struct stream s = read_topic(&r, "x/e/u");
    assert_int_equal(s.size, 3);
    assert_memory_equal(s.buf, "ccc", 3);
    free(s.buf);
    assert_int_equal(admin(fd, WIRE_V_TRIM, "x/e/u", NULL, WIRE_FROM_OFFSET, 7, 0, NULL, NULL),
                     EMBAR_EINVALID);
    /* Settings. */
    assert_int_equal(admin(fd, WIRE_V_ATTR, "x/e/u", NULL, 0, 1234, MEDIA_A_BYTES, NULL, NULL), 0);
    json_t *o = ask(fd, WIRE_V_STAT, "x/e/u", 0, 0, NULL);
    assert_int_equal(field(o, "keep_bytes"), 1234);
    assert_int_equal(field(o, "base"), 3);
    assert_int_equal(field(o, "end"), 6);
    assert_int_equal(field(o, "first"), 2);
    assert_int_equal(field(o, "next"), 3);
    assert_int_equal(field(o, "messages"), 1);
    assert_string_equal(json_string_value(json_object_get(o, "path")), "x/e/u");
    assert_string_equal(json_string_value(json_object_get(o, "type")), "topic");
    json_decref(o);
    o = ask(fd, WIRE_V_STAT, "x", 0, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "type")), "directory");
    json_decref(o);
    o = ask(fd, WIRE_V_STAT, "", 0, 0, NULL);
    /* A connection that was closed above may not have been seen off by its worker yet. */
    for (int i = 0; i < 1000 && field(json_object_get(o, "server"), "connections") != 1; i++) {
        json_decref(o);
        poll(NULL, 0, 10);
        o = ask(fd, WIRE_V_STAT, "", 0, 0, NULL);
    }
    assert_int_equal(field(json_object_get(o, "server"), "connections"), 1);
    assert_int_equal(field(json_object_get(o, "log"), "topics"), 1);
    assert_true(json_is_boolean(json_object_get(json_object_get(o, "pool"), "faulted")));
    json_decref(o);
    /* A session. */
    struct wire_opened w = open_topic(fd, "x/e/u", 2, WIRE_S_NEW, 0);
    o = ask(fd, WIRE_V_SESSION, "", le64_get(w.session), 0, NULL);
    assert_int_equal(field(o, "topic"), id);
    json_decref(o);
    assert_int_equal(admin(fd, WIRE_V_SESSION, "", NULL, 0, 999999, 0, NULL, NULL), EMBAR_ESESSION);
    assert_int_equal(admin(fd, 77, "", NULL, 0, 0, 0, NULL, NULL), EMBAR_EINVALID);
    close(fd);
    rig_stop(&r);
}

/* A list in pages names everything once. */
static void list(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    enum { DIRS = 20, TOPICS = 90 };
    int fd = peer(&r, true);
    for (unsigned d = 0; d < DIRS; d++)
        for (unsigned t = 0; t < TOPICS; t++) {
            char path[64];
            snprintf(path, sizeof(path), "d%u/%s%u", d, t % 9 ? "" : "deep/er/", t);
            assert_int_equal(admin(fd, WIRE_V_CREATE, path, NULL, 0, 0, WIRE_A_PARENTS, NULL, NULL),
                             0);
        }
    for (unsigned pass = 0; pass < 2; pass++) {
        static bool seen[4096];
        memset(seen, 0, sizeof(seen));
        unsigned topics = 0, dirs = 0, pages = 0;
        uint64_t after = 0;
        bool more = true;
        while (more) {
            json_t *o = ask(fd, WIRE_V_LIST, "", after, pass ? WIRE_A_DIRECTORIES : 0, &more);
            size_t i;
            json_t *v;
            json_array_foreach(o, i, v)
            {
                after = (uint64_t)field(v, "id");
                assert_true(after < 4096 && !seen[after]);
                seen[after] = true;
                struct node_stat st;
                const char *path = json_string_value(json_object_get(v, "path"));
                assert_int_equal(log_resolve(r.log, path, &st), 0);
                assert_int_equal(st.id, after);
                if (strcmp(json_string_value(json_object_get(v, "type")), "topic") == 0)
                    topics++;
                else
                    dirs++;
            }
            pages++;
            json_decref(o);
        }
        assert_int_equal(topics, DIRS * TOPICS);
        assert_int_equal(dirs, pass ? DIRS * 3 : 0);
        assert_true(pages > 1);
    }
    json_t *o = ask(fd, WIRE_V_LIST, "d3/deep", 0, 0, NULL);
    assert_int_equal(json_array_size(o), TOPICS / 9);
    json_decref(o);
    o = ask(fd, WIRE_V_LIST, "", 0, 0, NULL);
    json_decref(o);
    assert_int_equal(admin(fd, WIRE_V_LIST, "none", NULL, 0, 0, 0, NULL, NULL), ENOENT);
    close(fd);
    rig_stop(&r);
}

static void no_auto_create(void **state)
{
    (void)state;
    struct rig r = {.no_auto_create = true};
    rig_start(&r);
    uint8_t b[256];
    int fd = peer(&r, true);
    send_bytes(fd, b, open_bytes(b, "t", 1, WIRE_S_NEW, 0, 1));
    assert_int_equal(expect_error(fd), ENOENT);
    assert_int_equal(admin(fd, WIRE_V_CREATE, "t", NULL, 0, 0, 0, NULL, NULL), 0);
    open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    close(fd);
    rig_stop(&r);
}

static int start(struct rig *r, const char *listen, const char *path, bool insecure,
                 struct server **out)
{
    struct embar_error err = {0};
    struct server_options so = {.log = r->log,
                                .listen = listen,
                                .unix_path = path,
                                .token = r->token,
                                .workers = 2,
                                .first_producer = 2,
                                .insecure = insecure};
    int rc = server_start(out, &so, &err);
    if (rc) {
        assert_null(*out);
        assert_true(strlen(err.text) > 20);
    }
    return rc;
}

static void starting(void **state)
{
    (void)state;
    struct rig r = {0};
    struct server *s;
    char path[300];
    rig_start(&r);
    assert_int_equal(start(&r, server_address(r.server), NULL, false, &s), -EADDRINUSE);
    assert_int_equal(start(&r, "0.0.0.0:0", NULL, false, &s), -EMBAR_ESPEC);
    assert_int_equal(start(&r, "127.0.0.1", NULL, false, &s), -EMBAR_ESPEC);
    assert_int_equal(start(&r, "127.0.0.1:70000", NULL, false, &s), -EMBAR_ESPEC);
    assert_int_equal(start(&r, "127.0.0.1:9x", NULL, false, &s), -EMBAR_ESPEC);
    assert_int_equal(start(&r, "127.0.0.1:-1", NULL, false, &s), -EMBAR_ESPEC);
    assert_int_equal(start(&r, "127.0.0.1:0", NULL, false, &s), 0);
    server_stop(s);
    assert_int_equal(start(&r, "0.0.0.0:0", NULL, true, &s), 0);
    server_stop(s);
    /* A socket that is served, a file that is none, a stale one. */
    assert_int_equal(start(&r, NULL, r.socket, false, &s), -EADDRINUSE);
    assert_int_equal(access(r.socket, F_OK), 0);
    snprintf(path, sizeof(path), "%s/file", r.dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(start(&r, NULL, path, false, &s), -EEXIST);
    assert_int_equal(unlink(path), 0);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, path, strlen(path) + 1 < sizeof(un.sun_path) ? strlen(path) + 1 : 0);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    close(fd); /* nobody listens: stale */
    assert_int_equal(start(&r, NULL, path, false, &s), 0);
    server_stop(s);
    assert_int_not_equal(access(path, F_OK), 0);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs),
        cmocka_unit_test(list),
        cmocka_unit_test(no_auto_create),
        cmocka_unit_test(starting),
    };
    return cmocka_run_group_tests_name("server admin", tests, NULL, NULL);
}
