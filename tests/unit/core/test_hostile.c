/* Damaged pools: opening one never crashes, hangs or reads outside; it is refused with a sentence,
 * or what it serves is what was published. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log_state.h"

#include "tests/unit/core/campaign.h"
#include "tests/unit/core/hostile.h"

static void how_draw(struct draws *d, uint8_t how[12])
{
    for (unsigned i = 0; i < 12; i++)
        how[i] = (uint8_t)draw(d);
}

/* A case that does not end is a failure, whatever the machine does meanwhile. */
static void case_begin(void)
{
    alarm(60);
}

static void pristine_serves(void **state)
{
    (void)state;
    struct hostile h;
    hostile_build(&h, 1);
    assert_int_equal(hostile_serve(&h, true, true), 0);
    assert_memory_equal(h.image, h.pristine, HOSTILE_SIZE); /* reading changes nothing */
    assert_int_equal(hostile_serve(&h, false, true), 0);
    assert_int_equal(hostile_serve(&h, false, false), 0);
    /* What is not damaged needs no new checksums: else the lies below would all be refused by them. */
    hostile_reset(&h);
    hostile_seal(&h);
    assert_int_equal(hostile_serve(&h, false, true), 0);
    hostile_free(&h);
}

/* Any damage to one place. Refused pools are left as they were. */
static void damaged_places(void **state)
{
    (void)state;
    struct draws d = campaign_begin("damage");
    struct hostile h;
    hostile_build(&h, draw(&d));
    char *before = malloc(HOSTILE_SIZE);
    unsigned refused = 0, rounds = campaign_rounds(200);
    for (unsigned i = 0; i < rounds; i++) {
        uint8_t how[12];
        hostile_reset(&h);
        how_draw(&d, how);
        how[1] = (uint8_t)i;
        const struct hostile_area *a = hostile_mutate(&h, how);
        memcpy(before, h.image, HOSTILE_SIZE);
        case_begin();
        int rc = hostile_serve(&h, true, true);
        assert_memory_equal(h.image, before, HOSTILE_SIZE);
        int again = hostile_serve(&h, false, true);
        refused += rc != 0;
        /* What can be read can be opened: damage costs what it hits. */
        if (rc != again)
            fail_msg("case %u, %s: readonly %d, else %d", i, a->name, rc, again);
        if (again)
            assert_memory_equal(h.image, before, HOSTILE_SIZE);
        else
            assert_int_equal(hostile_serve(&h, true, false), 0);
    }
    alarm(0);
    print_message("%u of %u refused\n", refused, rounds);
    assert_true(refused > rounds / 50 && refused < rounds);
    free(before);
    hostile_free(&h);
}

/* Several at once, and with checksums that hold: lies rather than damage. */
static void lies(void **state)
{
    (void)state;
    struct draws d = campaign_begin("lies");
    struct hostile h;
    hostile_build(&h, draw(&d));
    unsigned refused = 0, rounds = campaign_rounds(150);
    for (unsigned i = 0; i < rounds; i++) {
        hostile_reset(&h);
        for (unsigned n = 1 + pick(&d, 4); n > 0; n--) {
            uint8_t how[12];
            how_draw(&d, how);
            if (one_in(&d, 2)) /* fields, where most is decided */
                how[0] = (uint8_t)(5 + pick(&d, 2));
            if (one_in(&d, 2))
                how[1] = (uint8_t)pick(&d, 16);
            (void)hostile_mutate(&h, how);
        }
        hostile_seal(&h);
        case_begin();
        refused += hostile_serve(&h, true, false) != 0;
        if (hostile_serve(&h, false, false) == 0)
            (void)hostile_serve(&h, false, false);
    }
    alarm(0);
    print_message("%u of %u refused\n", refused, rounds);
    hostile_free(&h);
}

/* ---- Lies that damage alone does not find ------------------------------------------------- */

/* The newest root of the image, by its number. */
static struct media_root *root_of(struct hostile *h)
{
    struct media_root *r[2] = {NULL, NULL};
    for (unsigned i = 0; i < h->areas; i++)
        if (strncmp(h->area[i].name, "root ", 5) == 0)
            r[h->area[i].name[5] - 'A'] = (struct media_root *)(h->image + h->area[i].at);
    return le64_get(r[0]->number) > le64_get(r[1]->number) ? r[0] : r[1];
}

/* As the newest piece of the manifest that tells of it has it. */
static struct media_node *node_of(struct hostile *h, uint32_t id)
{
    le64 where = root_of(h)->manifest;
    while (le64_low48(where)) {
        struct media_manifest *m = (struct media_manifest *)(h->image + le64_low48(where));
        char *at = (char *)(m + 1) + le32_get(m->grants) * sizeof(struct media_grant) +
                   (le32_get(m->gone_nodes) + le32_get(m->gone_sessions)) * sizeof(le64) +
                   le32_get(m->sessions) * sizeof(struct media_session) +
                   le32_get(m->ahead) * sizeof(struct media_ahead);
        for (uint32_t i = 0; i < le32_get(m->nodes); i++) {
            struct media_node *n = (struct media_node *)at;
            if (le32_get(n->id) == id)
                return n;
            at += sizeof *n + (le16_get(n->name_length) + 7u) / 8 * 8;
        }
        where = m->before;
    }
    fail();
    return NULL;
}

/* Live run i. */
static struct media_run *run_of(struct hostile *h, uint32_t id, uint32_t i)
{
    struct media_node *n = node_of(h, id);
    if (i + 1 == le32_get(n->run_count))
        return &n->last;
    uint64_t number = le64_get(n->run_first) + i;
    struct media_table *m = (struct media_table *)(h->image + le64_low48(n->table));
    while (le64_get(m->first) > number)
        m = (struct media_table *)(h->image + le64_low48(m->before));
    return (struct media_run *)(m + 1) + (number - le64_get(m->first));
}

static uint32_t runs_count(struct hostile *h, uint32_t id)
{
    return le32_get(node_of(h, id)->run_count);
}

static struct media_side *side_of(struct hostile *h, const struct media_run *r)
{
    return (struct media_side *)(h->image + le64_low48(r->side));
}

/* A batch that claims a second part where none is, in the last run and in another. */
static void lie_second_part(struct hostile *h, unsigned which)
{
    for (unsigned k = 0; k < HOSTILE_TOPICS - 1; k++) {
        uint32_t id = h->topic[k].id, n = runs_count(h, id), i = which % 2 ? n - 1 : 0;
        while (i > 0 && le64_high16(run_of(h, id, i)->side) == 0)
            i--;
        struct media_side *s = side_of(h, run_of(h, id, i));
        uint32_t length = le32_get(s->length);
        s->run0_length = le32_of(length / 2);
        s->run1 = le64_pack(which < 2 ? le64_low48(s->run0) + length / 2
                                      : le64_low48(run_of(h, id, 0)->payload),
                            le64_high16(s->run1));
    }
}

/* A batch longer than its run, or shorter. */
static void lie_length(struct hostile *h, unsigned which)
{
    for (unsigned k = 0; k < HOSTILE_TOPICS - 1; k++) {
        uint32_t id = h->topic[k].id, i = which % 2 ? runs_count(h, id) - 1 : 0;
        struct media_side *s = side_of(h, run_of(h, id, i));
        if (le64_low48(s->run1))
            continue;
        uint32_t length = which < 2 ? 200000 : 1;
        s->length = s->run0_length = le32_of(length);
        s->sequence = le64_pack(le64_low48(s->sequence), MEDIA_F_EQUAL);
        s->run0 = le64_pack(le64_low48(s->run0), 0);
    }
}

static void lie_runs(struct hostile *h, unsigned which)
{
    for (unsigned k = 0; k < HOSTILE_TOPICS - 1; k++) {
        uint32_t id = h->topic[k].id, n = runs_count(h, id);
        struct media_run *r = run_of(h, id, which & 8 ? n - 1 : n / 2);
        switch (which & 7) {
        case 0: r->side = le64_pack(le64_low48(r->side), 0xffff); break;
        case 1: r->side = le64_pack(le64_low48(r->side), 0); break;
        case 2: r->side = le64_pack(MASK48 & ~63ull, 1); break;
        case 3: r->message = le64_of(UINT64_MAX); break;
        case 4: r->message = le64_of(0); break;
        case 5: r->offset = le64_of(le64_get(r->offset) + 1); break;
        case 6: r->payload = le64_pack(le64_low48(r->payload) + 1, le64_high16(r->payload)); break;
        default:
            r->payload = le64_pack(le64_low48(r->payload), (uint16_t)(le64_high16(r->payload) + 1));
        }
    }
}

static void lie_node(struct hostile *h, unsigned which)
{
    struct media_node *a = node_of(h, h->topic[0].id), *b = node_of(h, h->topic[1].id);
    struct media_node *dir = node_of(h, le32_get(b->parent)), *root = node_of(h, LOG_ROOT_ID);
    switch (which) {
    case 0: dir->parent = dir->id; break; /* its own parent: outside the tree */
    case 1:                               /* two that hold each other */
        a->mode = le32_of(S_IFDIR | 0755);
        a->table = le64_of(0);
        a->run_count = le32_of(0);
        a->base = a->end;
        a->parent = dir->id;
        dir->parent = a->id;
        break;
    case 2: a->parent = b->id; break; /* a topic as a directory */
    case 3: a->mode = le32_of(0644); break;
    case 4: a->mode = le32_of(S_IFLNK | 0777); break;
    case 5: root->mode = le32_of(S_IFREG | 0644); break;
    case 6: dir->mode = le32_of(S_IFREG | 0755); break;
    case 7: a->mode = le32_of(S_IFDIR | 0755); break; /* a directory with content */
    case 8: a->id = b->id; break;
    case 9: a->id = le32_of(UINT32_MAX); break;
    case 10: root->parent = dir->id; break;
    case 11: a->base = a->end; break;
    case 12: a->end = le64_of(le64_get(a->end) + 1); break;
    case 13: a->end = le64_of(le64_get(a->end) + (1 << 20)); break;
    case 14: a->base = le64_of(0); break;
    case 15: a->first = a->messages; break;
    case 16: a->messages = le64_of(UINT64_MAX); break;
    case 17: a->order = 77; break;
    case 18: a->ack = 200; break;
    case 19: a->policy = 9; break;
    case 20: a->side_tail = le64_of(UINT64_MAX); break;
    case 21: root->id = le32_of(77); break;
    case 22: a->run_count = le32_of(UINT32_MAX); break;
    case 23: a->id = le32_of(LOG_ROOT_ID); break;
    case 24: a->run_first = le64_of(UINT64_MAX); break;
    case 25: a->run_first = le64_of(le64_get(a->run_first) + 1); break;
    case 26: a->run_first = le64_of(0); break;
    case 27: a->run_count = le32_of(le32_get(a->run_count) - 1); break;
    case 28: a->run_count = le32_of(1); break;
    case 29: a->table = b->table; break; /* another's */
    case 30: a->table = le64_of(0); break;
    case 31: a->table = root_of(h)->manifest; break;
    case 32: a->last = b->last; break;
    case 33: a->last.payload = a->table; break; /* bytes where the table stands */
    default: dir->id = le32_of(0);
    }
}

static void lie_root(struct hostile *h, unsigned which)
{
    struct media_root *r = root_of(h);
    switch (which) {
    case 0: r->number = le64_of(UINT64_MAX); break;
    case 1: r->number = le64_of(UINT64_MAX - 1); break;
    case 2: r->generation = le64_of(UINT64_MAX); break;
    case 3: r->term = le32_of(UINT32_MAX); break;
    case 4: r->next_id = le32_of(UINT32_MAX); break;
    case 5: r->next_id = le32_of(0); break;
    case 6: r->control_end = le64_of(UINT64_MAX); break;
    case 7: r->nodes = le32_of(0); break;
    case 8: r->sessions = le32_of(UINT32_MAX); break;
    case 9: r->grants = le32_of(UINT32_MAX); break;
    case 10: r->grants = le32_of(0); break;
    case 11: r->pieces = le32_of(0); break;
    case 12: r->sessions = le32_of(0); break;
    case 13: r->pieces = le32_of(UINT32_MAX); break;
    case 14: r->pieces = le32_of(le32_get(r->pieces) - 1); break;
    default: r->manifest = le64_pack(le64_low48(r->manifest) + 64, le64_high16(r->manifest));
    }
}

static void lie_manifest(struct hostile *h, unsigned which)
{
    struct media_manifest *m =
        (struct media_manifest *)(h->image + le64_low48(root_of(h)->manifest));
    assert_true(le64_low48(m->before) != 0);
    struct media_manifest *below = (struct media_manifest *)(h->image + le64_low48(m->before));
    switch (which) {
    case 0: m->depth = le32_of(0); break;
    case 1: m->before = root_of(h)->manifest; break; /* itself */
    case 2: m->size = le32_of(UINT32_MAX); break;
    case 3: m->size = le32_of(le32_get(m->size) - 8); break;
    case 4: m->generation = le64_of(0); break; /* older than what is below */
    case 5: m->generation = le64_of(UINT64_MAX); break;
    case 6: m->grants = le32_of(UINT32_MAX); break;
    case 7: m->gone_nodes = le32_of(UINT32_MAX); break;
    case 8: m->gone_sessions = le32_of(1u << 30); break;
    case 9: m->sessions = le32_of(le32_get(m->sessions) + 1); break;
    case 10: m->nodes = le32_of(le32_get(m->nodes) + 1); break;
    case 11: m->nodes = le32_of(0); break;
    case 12: m->before = le64_of(0); break;
    case 13: below->depth = le32_of(5); break;
    case 14: m->gone_nodes = le32_of(0); break;
    case 15: m->ahead = le32_of(UINT32_MAX); break;
    default: below->magic = le32_of(0);
    }
}

static void lie_table(struct hostile *h, unsigned which)
{
    for (unsigned k = 0; k < HOSTILE_TOPICS - 1; k++) {
        struct media_node *n = node_of(h, h->topic[k].id);
        struct media_table *m = (struct media_table *)(h->image + le64_low48(n->table));
        if (le64_low48(n->table) == 0)
            continue;
        switch (which) {
        case 0: m->count = le32_of(0); break;
        case 1: m->count = le32_of(UINT32_MAX); break;
        case 2: m->count = le32_of(le32_get(m->count) - 1); break;
        case 3: m->first = le64_of(le64_get(m->first) + 1); break;
        case 4: m->first = le64_of(UINT64_MAX); break;
        case 5: m->before = n->table; break; /* itself */
        case 6: m->before = root_of(h)->manifest; break;
        default: m->magic = le32_of(0);
        }
    }
}

static void crafted_lies(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*lie)(struct hostile *, unsigned);
        unsigned cases;
    } table[] = {{"second part", lie_second_part, 4},
                 {"length", lie_length, 4},
                 {"runs", lie_runs, 16},
                 {"node", lie_node, 35},
                 {"root", lie_root, 16},
                 {"manifest", lie_manifest, 17},
                 {"table", lie_table, 8}};
    struct hostile h;
    hostile_build(&h, 77);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (unsigned which = 0; which < table[i].cases; which++) {
            hostile_reset(&h);
            table[i].lie(&h, which);
            hostile_seal(&h);
            case_begin();
            int rc = hostile_serve(&h, true, false);
            int again = hostile_serve(&h, false, false);
            print_message("%s %u: %d, %d\n", table[i].name, which, rc, again);
            if (again == 0)
                (void)hostile_serve(&h, false, false);
        }
    alarm(0);
    hostile_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pristine_serves),
        cmocka_unit_test(damaged_places),
        cmocka_unit_test(lies),
        cmocka_unit_test(crafted_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
