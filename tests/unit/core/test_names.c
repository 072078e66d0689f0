/* Names: what each action does to the tree and what it refuses, and that the
 * tree of the log is the tree of a plain model after any walk of actions, kills and reopenings. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

static void open_manual(struct fixture *f)
{
    struct log_options o = {.manual = true, .topics = 60};
    fixture_open_as(f, 0, &o);
}

static struct control action(enum media_control_kind kind, uint32_t id, uint32_t parent,
                             const char *name)
{
    struct control c = {
        .kind = kind, .id = id, .parent = parent, .mode = 0755, .order = 5, .ack = 1};
    snprintf(c.name, sizeof c.name, "%s", name);
    return c;
}

static int act(struct fixture *f, enum media_control_kind kind, uint32_t id, uint32_t parent,
               const char *name, uint32_t *made)
{
    struct commit commit = {0};
    int rc = fixture_try(f, action(kind, id, parent, name), &commit);
    if (made)
        *made = commit.id;
    return rc;
}

static void actions_and_refusals(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t a, b, t, u, made;
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "a", &a), 0);
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, a, "b", &b), 0);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, b, "t", &t), 0);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, "u", &u), 0);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, b, "t", &made), -EEXIST);
    assert_int_equal(made, t);
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, b, "t", &made), -EEXIST);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, "b", &made), -EEXIST);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, t, "x", NULL), -ENOTDIR);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, 999, "x", NULL), -ENOENT);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, "..", NULL), -EMBAR_ENAME);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, LOG_ROOT_ID, ".embar", NULL), -EMBAR_ERESERVED);
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, ".embar", NULL), -EMBAR_ERESERVED);
    assert_int_equal(act(&f, MEDIA_C_RENAME, a, LOG_ROOT_ID, ".embar", NULL), -EMBAR_ERESERVED);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, ".embar", NULL), 0);
    /* Removing. */
    assert_int_equal(act(&f, MEDIA_C_REMOVE, LOG_ROOT_ID, 0, "", NULL), -EBUSY);
    assert_int_equal(act(&f, MEDIA_C_REMOVE, a, 0, "", NULL), -ENOTEMPTY);
    assert_int_equal(act(&f, MEDIA_C_REMOVE, 12345, 0, "", NULL), -ENOENT);
    /* Renaming. */
    assert_int_equal(act(&f, MEDIA_C_RENAME, a, b, "x", NULL), -EINVAL);
    assert_int_equal(act(&f, MEDIA_C_RENAME, a, a, "x", NULL), -EINVAL);
    assert_int_equal(act(&f, MEDIA_C_RENAME, LOG_ROOT_ID, a, "x", NULL), -EBUSY);
    assert_int_equal(act(&f, MEDIA_C_RENAME, b, LOG_ROOT_ID, "a", NULL), -ENOTEMPTY);
    assert_int_equal(act(&f, MEDIA_C_RENAME, u, a, "b", NULL), -EISDIR);
    assert_int_equal(act(&f, MEDIA_C_RENAME, b, a, "u", NULL), -ENOTDIR);
    assert_int_equal(act(&f, MEDIA_C_RENAME, t, b, "t", NULL), 0); /* where it is */
    struct control keep = action(MEDIA_C_RENAME, t, a, "u");
    keep.flags = LOG_RENAME_NOREPLACE;
    assert_int_equal(fixture_try(&f, keep, NULL), -EEXIST);
    keep = action(MEDIA_C_RENAME, t, b, "t");
    keep.flags = LOG_RENAME_NOREPLACE;
    assert_int_equal(fixture_try(&f, keep, NULL), -EEXIST); /* it exists, though it is itself */
    struct topic *over = log_topic(f.log, u);
    assert_int_equal(fixture_publish(&f, over, 0, 0, 0, "x\n", 2, NULL, 1).status, 0);
    topic_put(over);
    assert_int_equal(act(&f, MEDIA_C_RENAME, t, a, "u", NULL), -EPERM); /* it holds data */
    fixture_control(&f, (struct control){.kind = MEDIA_C_TRIM, .id = u, .value = 2});
    assert_int_equal(act(&f, MEDIA_C_RENAME, t, a, "u", NULL), 0); /* over */
    struct node_stat st;
    assert_int_equal(log_stat(f.log, u, &st), -ENOENT);
    assert_int_equal(log_resolve(f.log, "/a/u", &st), 0);
    assert_int_equal(st.id, t);
    assert_int_equal(log_resolve(f.log, "a/b/t", &st), -ENOENT);
    assert_int_equal(log_resolve(f.log, "a/u/t", &st), -ENOTDIR);
    assert_int_equal(log_resolve(f.log, "a//u", &st), -EMBAR_ENAME);
    assert_int_equal(log_resolve(f.log, "a/../a/u", &st), -EMBAR_ENAME);
    assert_int_equal(act(&f, MEDIA_C_REMOVE, b, 0, "", NULL), 0);
    assert_int_equal(act(&f, MEDIA_C_REMOVE, b, 0, "", NULL), -ENOENT);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, b, "x", NULL), -ENOENT);
    /* Sessions and trims of what is no topic. */
    assert_int_equal(act(&f, MEDIA_C_OPEN, a, 0, "", NULL), -EISDIR);
    assert_int_equal(act(&f, MEDIA_C_TRIM, a, 0, "", NULL), -EISDIR);
    assert_int_equal(act(&f, MEDIA_C_OPEN, b, 0, "", NULL), -ENOENT);
    fixture_kill(&f);
    assert_int_equal(log_resolve(f.log, "/a/u", &st), 0);
    assert_int_equal(st.id, t);
    fixture_close(&f);
}

static void attributes_last(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t"), dir;
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "d", &dir), 0);
    struct control c = {.kind = MEDIA_C_ATTR,
                        .id = id,
                        .flags = MEDIA_A_MODE | MEDIA_A_OWNER | MEDIA_A_GROUP | MEDIA_A_ORDER |
                                 MEDIA_A_ACK | MEDIA_A_BYTES | MEDIA_A_AGE | MEDIA_A_FULL |
                                 MEDIA_A_TIMES,
                        .mode = S_IFDIR | 04640, /* the type is not an attribute */
                        .uid = 12,
                        .gid = 34,
                        .order = 2,
                        .ack = 2,
                        .value = 1ull << 40,
                        .value2 = 7777777777,
                        .policy = 1,
                        .time = 123456789};
    fixture_control(&f, c);
    struct control one = {.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_OWNER, .uid = 99};
    fixture_control(&f, one);
    struct control bad[] = {
        {.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_ORDER, .order = 3},
        {.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_ACK, .ack = 3},
        {.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_FULL, .policy = 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fixture_try(&f, bad[i], NULL), -EMBAR_EINVALID);
    struct control wrong = {.kind = MEDIA_C_ATTR, .id = dir, .flags = MEDIA_A_BYTES, .value = 1};
    assert_int_equal(fixture_try(&f, wrong, NULL), -EISDIR);
    for (int round = 0; round < 3; round++) {
        struct node_stat st;
        assert_int_equal(log_stat(f.log, id, &st), 0);
        assert_int_equal(st.mode, S_IFREG | 04640);
        assert_int_equal(st.uid, 99);
        assert_int_equal(st.gid, 34);
        assert_int_equal(st.order, 2);
        assert_int_equal(st.ack, 2);
        assert_int_equal(st.keep_bytes, 1ull << 40);
        assert_int_equal(st.keep_age, 7777777777);
        assert_int_equal(st.policy, 1);
        assert_int_equal(st.modified, 123456789);
        if (round == 0)
            fixture_kill(&f);
        else
            fixture_reopen(&f);
    }
    fixture_close(&f);
}

/* A record that no validation let through, as a forged pool may hold: refused, and the tree is the
 * one it was. */
static void forged(struct fixture *f, struct control c)
{
    struct commit commit = {0};
    c.time = 1;
    assert_int_equal(fold_control(f->log, &c, 1, &commit), -EMBAR_ECORRUPT);
}

static void forged_records(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t a, b, t, u;
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "a", &a), 0);
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, a, "b", &b), 0);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, b, "t", &t), 0);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, "u", &u), 0);
    forged(&f, action(MEDIA_C_RENAME, a, b, "x")); /* a cycle */
    forged(&f, action(MEDIA_C_RENAME, a, a, "x"));
    forged(&f, action(MEDIA_C_RENAME, LOG_ROOT_ID, a, "x"));
    forged(&f, action(MEDIA_C_RENAME, t, u, "x"));   /* below a topic */
    forged(&f, action(MEDIA_C_RENAME, t, 999, "x")); /* nowhere */
    forged(&f, action(MEDIA_C_RENAME, t, a, ""));
    forged(&f, action(MEDIA_C_RENAME, t, a, ".."));
    forged(&f, action(MEDIA_C_RENAME, t, a, "u")); /* taken, and nothing said of it */
    forged(&f, action(MEDIA_C_RENAME, t, b, "t"));
    struct control over = action(MEDIA_C_RENAME, t, a, "free");
    over.value = u; /* replaces what stands elsewhere */
    forged(&f, over);
    over = action(MEDIA_C_RENAME, t, b, "t");
    over.value = t; /* itself */
    forged(&f, over);
    over = action(MEDIA_C_RENAME, t, LOG_ROOT_ID, "a");
    over.value = a; /* its own parents */
    forged(&f, over);
    forged(&f, action(MEDIA_C_REMOVE, a, 0, "")); /* not empty */
    forged(&f, action(MEDIA_C_REMOVE, LOG_ROOT_ID, 0, ""));
    forged(&f, action(MEDIA_C_CREATE, 500, a, "u"));
    forged(&f, action(MEDIA_C_CREATE, t, a, "x"));
    char path[MEDIA_MAX_PATH + 1];
    assert_int_equal(log_path(f.log, t, path, sizeof path), 0);
    assert_string_equal(path, "a/b/t");
    assert_int_equal(log_path(f.log, u, path, sizeof path), 0);
    assert_string_equal(path, "a/u");
    fixture_close(&f);
}

static uint64_t modified(struct fixture *f, uint32_t id)
{
    struct node_stat st;
    assert_int_equal(log_stat(f->log, id, &st), 0);
    return st.modified;
}

/* Making, removing and renaming a child is a change of its directory, and of no other; what happens
 * to the child's own content and attributes is none. */
static void directory_times(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t a, b, t;
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "a", &a), 0);
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "b", &b), 0);
    uint64_t root = modified(&f, LOG_ROOT_ID), ta = modified(&f, a), tb = modified(&f, b);
    assert_int_equal(root, tb);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, "t", &t), 0);
    assert_true(modified(&f, a) > ta);
    ta = modified(&f, a);
    assert_int_equal(ta, modified(&f, t));
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, a, "t", NULL), -EEXIST);
    struct topic *topic = log_topic(f.log, t);
    assert_int_equal(fixture_publish(&f, topic, 0, 0, 0, "x\n", 2, NULL, 1).status, 0);
    topic_put(topic);
    fixture_control(
        &f, (struct control){.kind = MEDIA_C_ATTR, .id = t, .flags = MEDIA_A_MODE, .mode = 0600});
    assert_int_equal(modified(&f, a), ta);
    assert_int_equal(act(&f, MEDIA_C_RENAME, t, b, "u", NULL), 0);
    assert_true(modified(&f, a) > ta && modified(&f, b) > tb);
    assert_int_equal(modified(&f, a), modified(&f, b));
    ta = modified(&f, a);
    assert_int_equal(act(&f, MEDIA_C_REMOVE, t, 0, "", NULL), 0);
    assert_true(modified(&f, b) > ta);
    tb = modified(&f, b);
    assert_int_equal(modified(&f, a), ta);
    assert_int_equal(modified(&f, LOG_ROOT_ID), root);
    for (int round = 0; round < 2; round++) {
        round ? fixture_reopen(&f) : fixture_kill(&f);
        assert_int_equal(modified(&f, a), ta);
        assert_int_equal(modified(&f, b), tb);
        assert_int_equal(modified(&f, LOG_ROOT_ID), root);
    }
    fixture_close(&f);
}

/* A path has at most 1024 bytes, also the paths below a directory that moves. */
static void path_limit(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    char name[256];
    uint32_t parent = LOG_ROOT_ID, deep[4], id;
    memset(name, 'n', 255);
    for (int i = 0; i < 4; i++) {
        name[255 - (i == 3)] = 0; /* 255 * 3 + 254 + 3 slashes = 1022 */
        assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, parent, name, &deep[i]), 0);
        parent = deep[i];
    }
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, parent, "12", NULL), -ENAMETOOLONG);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, parent, "1", &id), 0);
    char path[MEDIA_MAX_PATH + 1];
    struct node_stat st;
    assert_int_equal(log_path(f.log, id, path, sizeof path), 0);
    assert_int_equal(strlen(path), 1024);
    assert_int_equal(log_resolve(f.log, path, &st), 0);
    assert_int_equal(st.id, id);
    char longer[MEDIA_MAX_PATH + 3];
    snprintf(longer, sizeof longer, "/%s", path);
    assert_int_equal(log_resolve(f.log, longer, &st), 0);
    snprintf(longer, sizeof longer, "%sx", path);
    assert_int_equal(log_resolve(f.log, longer, &st), -EMBAR_ENAME);
    /* One byte more above, and what lies below would be out of reach. */
    uint32_t other;
    assert_int_equal(act(&f, MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "o", &other), 0);
    assert_int_equal(act(&f, MEDIA_C_RENAME, deep[0], other, "x", NULL), 0);
    assert_int_equal(act(&f, MEDIA_C_RENAME, deep[0], LOG_ROOT_ID, "x", NULL), 0);
    memset(name, 'n', 255);
    name[255] = 0;
    assert_int_equal(act(&f, MEDIA_C_RENAME, deep[0], other, name, NULL), -ENAMETOOLONG);
    assert_int_equal(act(&f, MEDIA_C_RENAME, deep[3], deep[2], name, NULL), 0);
    assert_int_equal(act(&f, MEDIA_C_RENAME, deep[0], LOG_ROOT_ID, name, NULL), -ENAMETOOLONG);
    assert_int_equal(log_path(f.log, id, path, sizeof path), 0);
    assert_int_equal(log_resolve(f.log, path, &st), 0);
    fixture_close(&f);
}

static void table_is_bounded(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    struct log_stat st;
    char name[8];
    log_stat_all(f.log, &st);
    unsigned n = (unsigned)(st.topics + st.directories);
    for (; n < 60; n++) {
        snprintf(name, sizeof name, "%u", n);
        assert_int_equal(
            act(&f, n % 2 ? MEDIA_C_MKDIR : MEDIA_C_CREATE, 0, LOG_ROOT_ID, name, NULL), 0);
    }
    uint32_t last;
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, LOG_ROOT_ID, "more", NULL), -EMBAR_ELIMIT);
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, LOG_ROOT_ID, name, &last), -EEXIST);
    assert_int_equal(act(&f, MEDIA_C_REMOVE, last, 0, "", NULL), 0);
    uint32_t fresh;
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, LOG_ROOT_ID, "more", &fresh), 0);
    assert_true(fresh > last); /* ids are never reused */
    assert_int_equal(act(&f, MEDIA_C_REMOVE, fresh, 0, "", NULL), 0);
    fixture_reopen(&f);
    uint32_t again;
    assert_int_equal(act(&f, MEDIA_C_CREATE, 0, LOG_ROOT_ID, "more", &again), 0);
    assert_true(again > fresh);
    fixture_close(&f);
}

/* Removed while somebody holds it: still read; its space comes back with the last reference. */
static void deleted_topics_live_until_let_go(void **state)
{
    (void)state;
    struct draws d = campaign_begin("deleted");
    struct fixture f;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    char data[50000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)('a' + i * 7 % 26);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, data, sizeof data, NULL, 50).status, 0);
        model_append(&m, data, sizeof data, NULL, 50);
    }
    struct log_stat before, held, after;
    log_stat_all(f.log, &before);
    fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    assert_true(topic_deleted(t));
    assert_null(log_topic(f.log, id));
    struct node_stat st;
    assert_int_equal(log_stat(f.log, id, &st), -EMBAR_EGONE);
    assert_int_equal(st.end, m.end);
    assert_int_equal(log_resolve(f.log, "t", &st), -ENOENT);
    uint32_t twin = fixture_topic(&f, "t"); /* the name is free at once */
    assert_true(twin != id);
    model_check(&m, t, &d);
    assert_int_equal(log_checkpoint(f.log), 0);
    assert_int_equal(log_checkpoint(f.log), 0);
    log_stat_all(f.log, &held);
    assert_true(held.used + 100000 > before.used);
    /* A reply in flight holds its bytes alone. */
    struct read_view v;
    assert_int_equal(topic_read(t, 1000, 2000, &v), 0);
    topic_put(t);
    assert_memory_equal(v.iov[0].iov_base, m.bytes + 1000, v.iov[0].iov_len);
    assert_int_equal(log_stat(f.log, id, &st), -ENOENT);
    log_stat_all(f.log, &after);
    assert_true(after.used + 1000000 < held.used);
    read_release(&v);
    log_stat_all(f.log, &held);
    assert_true(held.used < after.used);
    model_free(&m);
    fixture_close(&f);
}

/* ---- Random walk -------------------------------------------------------------------------- */

#define NODES 80u

struct node {
    bool live, is_dir;
    uint32_t id, parent, mode, uid;
    char name[24];
};

static struct node *node_by_id(struct node *n, uint32_t id)
{
    for (unsigned i = 0; i < NODES; i++)
        if (n[i].live && n[i].id == id)
            return &n[i];
    return NULL;
}

static struct node *child_of(struct node *n, uint32_t parent, const char *name)
{
    for (unsigned i = 0; i < NODES; i++)
        if (n[i].live && n[i].parent == parent && strcmp(n[i].name, name) == 0)
            return &n[i];
    return NULL;
}

static unsigned children_of(struct node *n, uint32_t parent)
{
    unsigned count = 0;
    for (unsigned i = 0; i < NODES; i++)
        count += n[i].live && n[i].parent == parent;
    return count;
}

static unsigned nodes_live(const struct node *n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < NODES; i++)
        count += n[i].live;
    return count;
}

static void check_tree(struct fixture *f, struct node *n, uint32_t parent)
{
    struct node_stat st[7];
    unsigned seen = 0;
    uint32_t after = 0;
    int got;
    while ((got = log_list(f->log, parent, after, st, 7)) > 0) {
        for (int i = 0; i < got; i++, seen++) {
            assert_true(st[i].id > after);
            after = st[i].id;
            struct node *m = node_by_id(n, after), *same;
            assert_non_null(m);
            assert_int_equal(m->parent, parent);
            assert_string_equal(st[i].name, m->name);
            assert_int_equal(st[i].mode, m->mode);
            assert_int_equal(st[i].uid, m->uid);
            char path[MEDIA_MAX_PATH + 1];
            struct node_stat by_path;
            assert_int_equal(log_path(f->log, after, path, sizeof path), 0);
            assert_int_equal(log_resolve(f->log, path, &by_path), 0);
            assert_int_equal(by_path.id, after);
            if (m->is_dir) {
                assert_int_equal(st[i].children, children_of(n, after));
                check_tree(f, n, after);
            }
            same = child_of(n, parent, m->name);
            assert_ptr_equal(same, m);
        }
    }
    assert_int_equal(got, 0);
    assert_int_equal(seen, children_of(n, parent));
}

static uint32_t any_id(struct node *n, struct draws *d)
{
    if (one_in(d, 5))
        return LOG_ROOT_ID;
    for (unsigned tries = 0; tries < 20; tries++) {
        struct node *m = &n[pick(d, NODES)];
        if (m->live)
            return m->id;
    }
    return one_in(d, 2) ? LOG_ROOT_ID : 1000000;
}

static void any_name(struct draws *d, char *name)
{
    static const char *const names[] = {"a", "b", "c", "topic", "\xe2\x82\xac", ".x", "..."};
    snprintf(name, 24, "%s", names[pick(d, 7)]);
}

static void walk_make(struct fixture *f, struct node *n, struct draws *d)
{
    struct control c = {.kind = one_in(d, 3) ? MEDIA_C_MKDIR : MEDIA_C_CREATE,
                        .parent = any_id(n, d),
                        .mode = pick(d, 01000),
                        .uid = pick(d, 9),
                        .order = 5};
    any_name(d, c.name);
    struct node *p = node_by_id(n, c.parent), *there = child_of(n, c.parent, c.name);
    bool dir = c.parent == LOG_ROOT_ID || (p && p->is_dir);
    int want = 0;
    if (c.parent != LOG_ROOT_ID && !p)
        want = -ENOENT;
    else if (!dir)
        want = -ENOTDIR;
    else if (there)
        want = -EEXIST;
    else if (nodes_live(n) + 1 >= 60)
        want = -EMBAR_ELIMIT;
    struct commit commit;
    assert_int_equal(fixture_try(f, c, &commit), want);
    if (want == -EEXIST)
        assert_int_equal(commit.id, there->id);
    for (unsigned i = 0; want == 0 && i < NODES; i++) {
        if (n[i].live)
            continue;
        assert_null(node_by_id(n, commit.id));
        n[i] = (struct node){.live = true,
                             .is_dir = c.kind == MEDIA_C_MKDIR,
                             .id = commit.id,
                             .parent = c.parent,
                             .uid = c.uid,
                             .mode = c.mode | (c.kind == MEDIA_C_MKDIR ? S_IFDIR : S_IFREG)};
        memcpy(n[i].name, c.name, sizeof n[i].name);
        break;
    }
}

static int want_rename(struct node *n, const struct control *c, struct node **over)
{
    struct node *m = node_by_id(n, c->id), *p = node_by_id(n, c->parent);
    *over = NULL;
    if (!m)
        return c->id == LOG_ROOT_ID ? -EBUSY : -ENOENT;
    if (c->parent != LOG_ROOT_ID && !p)
        return -ENOENT;
    if (p && !p->is_dir)
        return -ENOTDIR;
    for (uint32_t up = c->parent; up != LOG_ROOT_ID; up = node_by_id(n, up)->parent)
        if (up == m->id)
            return -EINVAL;
    struct node *there = child_of(n, c->parent, c->name);
    if (there && (c->flags & LOG_RENAME_NOREPLACE))
        return -EEXIST;
    if (!there || there == m)
        return 0;
    if (there->is_dir != m->is_dir)
        return there->is_dir ? -EISDIR : -ENOTDIR;
    if (there->is_dir && children_of(n, there->id))
        return -ENOTEMPTY;
    *over = there;
    return 0;
}

static void walk_rename(struct fixture *f, struct node *n, struct draws *d)
{
    struct control c = {.kind = MEDIA_C_RENAME, .id = any_id(n, d), .parent = any_id(n, d)};
    c.flags = one_in(d, 4) ? LOG_RENAME_NOREPLACE : 0;
    any_name(d, c.name);
    struct node *over;
    int want = want_rename(n, &c, &over);
    assert_int_equal(fixture_try(f, c, NULL), want);
    if (want == 0) {
        if (over)
            over->live = false;
        struct node *m = node_by_id(n, c.id);
        m->parent = c.parent;
        memcpy(m->name, c.name, sizeof m->name);
    }
}

static void walk_other(struct fixture *f, struct node *n, struct draws *d)
{
    uint32_t id = any_id(n, d);
    struct node *m = node_by_id(n, id);
    if (one_in(d, 2)) {
        int want = id == LOG_ROOT_ID ? -EBUSY : !m ? -ENOENT : children_of(n, id) ? -ENOTEMPTY : 0;
        assert_int_equal(act(f, MEDIA_C_REMOVE, id, 0, "", NULL), want);
        if (want == 0)
            m->live = false;
        return;
    }
    struct control c = {
        .kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_MODE, .mode = pick(d, 01000)};
    if (one_in(d, 2))
        c.flags = MEDIA_A_OWNER, c.uid = pick(d, 9);
    assert_int_equal(fixture_try(f, c, NULL), m || id == LOG_ROOT_ID ? 0 : -ENOENT);
    if (m && c.flags == MEDIA_A_MODE)
        m->mode = (m->mode & (unsigned)S_IFMT) | c.mode;
    else if (m)
        m->uid = c.uid;
}

static void random_tree(void **state)
{
    (void)state;
    struct draws d = campaign_begin("tree");
    for (unsigned round = 0; round < campaign_rounds(4); round++) {
        struct node n[NODES] = {0};
        struct fixture f;
        struct log_options o = {.manual = true, .topics = 60};
        o.geo.index_entries = 8u << pick(&d, 4);
        fixture_open_as(&f, 0, &o);
        for (unsigned i = 0; i < 2000; i++) {
            unsigned what = pick(&d, 100);
            if (what < 45)
                walk_make(&f, n, &d);
            else if (what < 75)
                walk_rename(&f, n, &d);
            else
                walk_other(&f, n, &d);
            if (one_in(&d, 100))
                fixture_kill(&f);
            else if (one_in(&d, 200))
                fixture_reopen(&f);
            else if (!one_in(&d, 40))
                continue;
            check_tree(&f, n, LOG_ROOT_ID);
        }
        check_tree(&f, n, LOG_ROOT_ID);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(actions_and_refusals),
        cmocka_unit_test(attributes_last),
        cmocka_unit_test(path_limit),
        cmocka_unit_test(table_is_bounded),
        cmocka_unit_test(deleted_topics_live_until_let_go),
        cmocka_unit_test(forged_records),
        cmocka_unit_test(directory_times),
        cmocka_unit_test(random_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
