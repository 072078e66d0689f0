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

static struct media_node *node_of(struct hostile *h, uint32_t id)
{
    struct media_root *r = root_of(h);
    char *at = h->image + le64_low48(r->manifest);
    for (uint32_t i = 0; i < le32_get(r->nodes); i++) {
        struct media_node *n = (struct media_node *)at;
        if (le32_get(n->id) == id)
            return n;
        at += sizeof *n + (le16_get(n->name_length) + 7u) / 8 * 8;
    }
    fail();
    return NULL;
}

static struct media_run *runs_of(struct hostile *h, uint32_t id)
{
    return (struct media_run *)(h->image + le64_low48(node_of(h, id)->runs) +
                                sizeof(struct media_table));
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
        struct media_run *runs = runs_of(h, h->topic[k].id);
        uint32_t n = runs_count(h, h->topic[k].id), i = which % 2 ? n - 1 : 0;
        while (i > 0 && le64_high16(runs[i].side) == 0)
            i--;
        struct media_side *s = side_of(h, &runs[i]);
        uint32_t length = le32_get(s->length);
        s->run0_length = le32_of(length / 2);
        s->run1 =
            le64_pack(which < 2 ? le64_low48(s->run0) + length / 2 : le64_low48(runs[0].payload),
                      le64_high16(s->run1));
    }
}

/* A batch longer than its run, or shorter. */
static void lie_length(struct hostile *h, unsigned which)
{
    for (unsigned k = 0; k < HOSTILE_TOPICS - 1; k++) {
        struct media_run *runs = runs_of(h, h->topic[k].id);
        uint32_t i = which % 2 ? runs_count(h, h->topic[k].id) - 1 : 0;
        struct media_side *s = side_of(h, &runs[i]);
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
        struct media_run *runs = runs_of(h, h->topic[k].id);
        uint32_t n = runs_count(h, h->topic[k].id);
        struct media_run *r = &runs[which & 8 ? n - 1 : n / 2];
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
        a->runs = le64_of(0);
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
    case 11: r->manifest_size = le64_of(0); break;
    case 12: r->sessions = le32_of(0); break;
    default: r->manifest = le64_pack(le64_low48(r->manifest) + 64, le64_high16(r->manifest));
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
                 {"node", lie_node, 25},
                 {"root", lie_root, 14}};
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
