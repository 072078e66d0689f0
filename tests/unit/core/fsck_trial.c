/* See fsck_trial.h. */
#include "tests/unit/core/fsck_trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"

static void *memory_new(void)
{
    void *p = mmap(NULL, TRIAL_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

void trial_save_make(char dir[TRIAL_SAVE])
{
    (void)snprintf(dir, TRIAL_SAVE, "/tmp/embar-fsck-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

void trial_save_drop(const char *dir)
{
    char command[TRIAL_SAVE + 8];
    (void)snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

void trial_open(struct fixture *f, char save[TRIAL_SAVE], const struct log_options *o)
{
    trial_save_make(save);
    fixture_open_as(f, TRIAL_SIZE, o);
}

void trial_close(struct trial *t, struct fixture *f, const char *save)
{
    if (t->image)
        trial_free(t);
    fixture_close(f);
    trial_save_drop(save);
}

/* ---- What it holds ---------------------------------------------------------------------------- */

static void area_add(struct trial *t, const char *name, uint64_t at, uint64_t size)
{
    if (size > TRIAL_SIZE - at)
        size = TRIAL_SIZE - at;
    if (t->areas < TRIAL_AREAS && size > 0)
        t->area[t->areas++] = (struct trial_area){name, at, size};
}

static uint64_t offset_of(const struct pool *p, const void *at)
{
    return (uint64_t)((const char *)at - p->base);
}

static void areas_find(struct trial *t, struct log *log)
{
    const struct pool *p = &log->pool;
    area_add(t, "superblock", MEDIA_SUPER_AT, sizeof(struct media_super));
    area_add(t, "superblock's copy", MEDIA_SUPER_ALT, sizeof(struct media_super));
    area_add(t, "slot lines", offset_of(p, pool_claim(p, 0)), 4 * MEDIA_LINE);
    area_add(t, "watermark", offset_of(p, pool_watermark(p, 0, 0)), MEDIA_LINE);
    area_add(t, "second watermark", offset_of(p, pool_watermark(p, 0, 1)), 2 * MEDIA_LINE);
    area_add(t, "root A", offset_of(p, pool_root(p, 0, 0)), sizeof(struct media_root));
    area_add(t, "root B", offset_of(p, pool_root(p, 0, 1)), sizeof(struct media_root));
    area_add(t, "root A's copy", offset_of(p, pool_root_copy(p, 0, 0)), sizeof(struct media_root));
    area_add(t, "root B's copy", offset_of(p, pool_root_copy(p, 0, 1)), sizeof(struct media_root));
    area_add(t, "index", offset_of(p, pool_entry(p, 0, 0)),
             p->geo.index_entries * sizeof(struct media_entry));
    uint64_t live = log->recovered < 8 ? log->recovered : 8;
    for (uint64_t i = 0; i < live; i++) {
        uint64_t n = log->seq.next - 1 - i * log->recovered / 8;
        area_add(t, "live entry", offset_of(p, pool_entry(p, 0, n)), MEDIA_LINE);
    }
    for (size_t i = 0; i < log->manifest.count; i++) {
        const struct extent *e = log->manifest.piece[i].extent;
        area_add(t, "manifest", e->base, 1024);
        area_add(t, "manifest's copy", e->base + checkpoint_room(e->size), 1024);
    }
    for (struct topic *x = log->names.by_id; x; x = x->by_id.next) {
        if (x->table.count) {
            const struct extent *e = x->table.piece[0].extent;
            area_add(t, "run table", e->base, 256);
            area_add(t, "run table's copy", e->base + checkpoint_room(e->size), 256);
        }
        if (x->run_count) {
            const struct run *r = topic_run(x, x->run_count / 2);
            area_add(t, "payload", r->payload, 4096);
            area_add(t, "side records", r->side - 512, 512 + MEDIA_LINE);
        }
    }
    if (log->control->run_count) {
        const struct run *r = topic_run(log->control, 0);
        area_add(t, "control records", r->payload, 256);
        area_add(t, "control side records", r->side - 256, 256 + MEDIA_LINE);
    }
    area_add(t, "data", p->data_base, p->data_size);
    area_add(t, "pool", 0, TRIAL_SIZE);
}

static void batches_find(struct trial_topic *m, struct topic *t)
{
    size_t capacity = 0;
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        uint64_t at = r->side, offset = r->offset, message = r->message;
        bool moved = i + 1 < t->run_count && topic_run(t, i + 1)->flags & MEDIA_RUN_MOVED;
        for (unsigned b = 0; b < r->batches; b++) {
            struct side s;
            assert_int_equal(side_read(&t->log->pool, at, &s), 0);
            uint64_t size = side_size(s.count, s.equal);
            if (m->batches == capacity) {
                capacity = capacity ? capacity * 2 : 64;
                m->batch = realloc(m->batch, capacity * sizeof *m->batch);
                assert_non_null(m->batch);
            }
            if (offset + s.length > m->base)
                m->batch[m->batches++] = (struct trial_batch){.offset = offset,
                                                              .message = message,
                                                              .length = s.length,
                                                              .count = s.count,
                                                              .run0 = s.run0,
                                                              .run1 = s.run1,
                                                              .run0_length = s.run0_length,
                                                              .side = at + MEDIA_LINE - size,
                                                              .side_size = size,
                                                              .part_moved = moved && s.run1};
            offset += s.length;
            message += s.count;
            at -= size;
        }
    }
}

static void topic_remember(struct trial *t, struct log *log, struct topic *x)
{
    t->topic = realloc(t->topic, (t->topics + 1) * sizeof *t->topic);
    assert_non_null(t->topic);
    struct trial_topic *m = &t->topic[t->topics++];
    size_t size;
    *m = (struct trial_topic){.id = x->id,
                              .mode = x->mode,
                              .base = topic_base(x),
                              .end = topic_end(x),
                              .first = x->first_message,
                              .messages = x->last_message_end};
    assert_int_equal(log_path(log, x->id, m->path, sizeof m->path), 0);
    m->bytes = fixture_read(x, &size);
    batches_find(m, x);
}

/* Which entries behind the checkpoint name them. */
static void numbers_find(struct trial *t, struct log *log)
{
    for (t->next = log->seq.next - log->recovered; t->next < log->seq.next; t->next++) {
        const struct media_entry *line = pool_entry(&log->pool, 0, t->next);
        struct entry e;
        uint32_t unused;
        if (!index_decode(line, t->next, index_chain_before(line), &e, &unused))
            continue;
        for (size_t i = 0; i < t->topics; i++)
            for (size_t b = 0; t->topic[i].id == e.topic && b < t->topic[i].batches; b++)
                if (t->topic[i].batch[b].offset == e.offset)
                    t->topic[i].batch[b].number = t->next;
    }
}

int trial_image_open(struct log **log, struct region *r, char *image, bool readonly,
                     struct embar_error *err)
{
    struct log_options o = {.region = r, .readonly = readonly, .manual = true};
    region_wrap(r, image, TRIAL_SIZE, NULL);
    r->readonly = readonly;
    return log_open(log, &o, err);
}

void trial_take(struct trial *t, struct fixture *f, bool killed, char *earlier)
{
    struct embar_error err;
    struct region r;
    struct log *log;
    memset(t, 0, sizeof *t);
    t->killed = killed;
    t->earlier = earlier;
    t->pristine = memory_new();
    memcpy(t->pristine, f->memory, TRIAL_SIZE);
    t->image = memory_new();
    memcpy(t->image, t->pristine, TRIAL_SIZE);
    assert_int_equal(trial_image_open(&log, &r, t->pristine, true, &err), 0);
    t->sessions = log->sessions.count;
    for (struct topic *x = log->names.by_id; x; x = x->by_id.next)
        if (!names_is_dir(x))
            topic_remember(t, log, x);
    numbers_find(t, log);
    areas_find(t, log);
    log_close(log);
}

void trial_unmark(struct trial *t, struct fixture *f)
{
    for (unsigned which = 0; which < 2; which++) {
        const char *at = (const char *)pool_watermark(&f->log->pool, 0, which);
        struct media_watermark *w = (struct media_watermark *)(t->image + (at - (char *)f->memory));
        w->chain = le32_of(0);
        w->crc = le32_of(0);
        w->crc = le32_of(crc32c(0, w, sizeof *w));
    }
}

uint64_t trial_move(struct log *log, struct topic *t, size_t i)
{
    const struct run was = *topic_run(t, i);
    struct extent *to = extent_new(log->extents, was.order, EXTENT_MOVE);
    assert_non_null(to);
    uint64_t side = was.side, top = to->base + to->size - MEDIA_LINE, at = top, payload = to->base;
    for (unsigned b = 0; b < was.batches; b++) {
        struct side s;
        assert_int_equal(side_read(&log->pool, side, &s), 0);
        assert_int_equal(s.run1, 0);
        memcpy(pool_at(&log->pool, payload), pool_at(&log->pool, s.run0), s.length);
        s.run0 = payload;
        side_move(&log->pool, side, at, &s);
        payload += s.length;
        side -= side_size(s.count, s.equal);
        at -= side_size(s.count, s.equal);
    }
    struct entry e = {.topic = t->id,
                      .offset = was.offset,
                      .length = (uint32_t)(topic_run_end(t, i) - was.offset),
                      .payload = to->base,
                      .side = top,
                      .count = was.batches,
                      .order = was.order};
    seq_take_wait(log);
    uint64_t number = log->seq.next;
    assert_int_equal(seq_moves(log, &e, 1), 0);
    seq_give(log);
    extent_put(log->extents, to);
    return number;
}

void trial_build(struct trial *t, struct draws *d)
{
    struct fixture f;
    char *earlier;
    bool killed = trial_load(&f, d, &earlier);
    trial_take(t, &f, killed, earlier);
    if (f.log)
        log_close(f.log);
    munmap(f.memory, TRIAL_SIZE);
}

void trial_free(struct trial *t)
{
    munmap(t->pristine, TRIAL_SIZE);
    if (t->earlier)
        munmap(t->earlier, TRIAL_SIZE);
    munmap(t->image, TRIAL_SIZE);
    for (size_t i = 0; i < t->topics; i++) {
        free(t->topic[i].bytes);
        free(t->topic[i].batch);
    }
    free(t->topic);
}

/* ---- Damage ------------------------------------------------------------------------------------ */

const char *trial_kind_name(unsigned kind)
{
    static const char *const names[TRIAL_KINDS] = {
        "a bit",       "a line zeroed", "a page zeroed",       "noise", "two lines", "a stale line",
        "a torn tail", "a stale page",  "two of these at once"};
    return names[kind];
}

static void damage_one(struct trial *t, struct draws *d, char *text, size_t size)
{
    const struct trial_area *a = &t->area[pick(d, t->areas)];
    uint64_t at = a->at + draw(d) % a->size, other = a->at + draw(d) % a->size;
    uint64_t line = at / MEDIA_LINE * MEDIA_LINE, page = at / MEDIA_PAGE * MEDIA_PAGE;
    unsigned how = pick(d, 8);
    t->stale = t->stale || how == 5 || how == 7;
    t->kind = how;
    char swap[MEDIA_LINE];
    switch (how) {
    case 0: t->image[at] = (char)(t->image[at] ^ 1 << pick(d, 8)); break;
    case 1: memset(t->image + line, 0, MEDIA_LINE); break;
    case 2: memset(t->image + page, 0, MEDIA_PAGE); break;
    case 3:
        for (uint64_t n = 1 + pick(d, 200); n > 0 && at < TRIAL_SIZE; n--, at++)
            t->image[at] = (char)draw(d);
        break;
    case 4:
        other = other / MEDIA_LINE * MEDIA_LINE;
        memcpy(swap, t->image + line, MEDIA_LINE);
        memcpy(t->image + line, t->image + other, MEDIA_LINE);
        memcpy(t->image + other, swap, MEDIA_LINE);
        break;
    case 5: memcpy(t->image + line, t->earlier + line, MEDIA_LINE); break;
    case 6: memset(t->image + at, 0, MEDIA_PAGE - at % MEDIA_PAGE); break;
    default: memcpy(t->image + page, t->earlier + page, MEDIA_PAGE); break;
    }
    snprintf(text, size, "%s in %s at %" PRIu64, trial_kind_name(how), a->name, at);
}

void trial_damage(struct trial *t, struct draws *d, char *text, size_t size)
{
    size_t n = 0;
    t->stale = false;
    memcpy(t->image, t->pristine, TRIAL_SIZE);
    bool two = one_in(d, 4);
    for (unsigned times = two ? 2 : 1; times > 0; times--) {
        damage_one(t, d, text + n, size - n);
        t->kind = two ? TRIAL_KINDS - 1 : t->kind;
        n += strlen(text + n);
        if (times > 1 && n + 6 < size)
            n += (size_t)snprintf(text + n, size - n, ", ");
    }
}

/* ---- Checking ---------------------------------------------------------------------------------- */

int trial_fsck(struct trial *t, bool repair, const char *save, struct fsck_report *r,
               struct embar_error *err)
{
    struct region region;
    region_wrap(&region, t->image, TRIAL_SIZE, NULL);
    region.readonly = !repair;
    struct fsck_options o = {.region = &region, .repair = repair, .threads = 2, .save = save};
    return fsck_run(&o, r, err);
}

void trial_step_begin(struct trial_step *s, char *image, const char *save)
{
    struct fsck *f = &s->fsck;
    struct embar_error err;
    memset(s, 0, sizeof *s);
    region_wrap(&s->region, image, TRIAL_SIZE, NULL);
    s->options =
        (struct fsck_options){.region = &s->region, .repair = true, .threads = 1, .save = save};
    *f = (struct fsck){.opt = &s->options, .report = &s->report, .region = &s->region};
    pthread_mutex_init(&f->lock, NULL);
    assert_int_equal(fsck_supers(f, &err), 0);
    fsck_lines(f);
    assert_int_equal(fsck_state(f, &err), 0);
    assert_int_equal(fsck_walk(f), 0);
    assert_int_equal(s->report.count, 0);
}

void trial_step_end(struct trial_step *s)
{
    log_free(s->fsck.log);
    free(s->fsck.let_go);
    free(s->fsck.unplaced);
    free(s->fsck.written);
    free(s->fsck.known);
    fsck_orphans_drop(&s->fsck);
    fsck_report_drop(&s->report);
    pthread_mutex_destroy(&s->fsck.lock);
}

const struct fsck_finding *trial_finding(const struct fsck_report *r, enum fsck_kind kind)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->finding[i].kind == kind)
            return &r->finding[i];
    return NULL;
}

void trial_print(const struct fsck_report *r)
{
    for (size_t i = 0; i < r->count && i < 30; i++)
        print_message("  %s %s: %s %s [%" PRIu64 ", %" PRIu64 ")\n",
                      fsck_kind_name(r->finding[i].kind), fsck_action_name(r->finding[i].action),
                      r->finding[i].topic ? r->finding[i].topic : "-", r->finding[i].text,
                      r->finding[i].place.from, r->finding[i].place.to);
}

void trial_entries(struct trial *t)
{
    struct embar_error err;
    struct region r;
    struct log *log;
    assert_int_equal(trial_image_open(&log, &r, t->pristine, true, &err), 0);
    for (uint64_t n = log->seq.next - log->recovered; n < log->seq.next; n++) {
        const struct media_entry *line = pool_entry(&log->pool, 0, n);
        struct entry e;
        uint32_t next;
        struct side s = {0};
        if (!index_decode(line, n, index_chain_before(line), &e, &next))
            continue;
        int rc = e.kind == MEDIA_TERM || e.kind == MEDIA_GRANT || e.kind == MEDIA_MOVE
                     ? 1
                     : side_read(&log->pool, e.side, &s);
        print_message(
            "entry %" PRIu64 " kind %u topic %u offset %" PRIu64 " length %u session %" PRIu64
            " place %" PRIu64 " side %" PRIu64 " (%d) time %" PRIu64 "%s\n",
            n, e.kind, e.topic, e.offset, e.length, e.session, e.payload, e.side, rc, s.time,
            memcmp(line, t->image + offset_of(&log->pool, line), MEDIA_LINE) ? " HIT" : "");
        if (e.kind == MEDIA_CONTROL) {
            struct control c;
            if (control_decode(pool_at(&log->pool, e.payload), e.length, &c) == 0)
                print_message("      control %d id %u value %" PRIu64 " %s\n", c.kind, c.id,
                              c.value, c.name);
        }
    }
    log_close(log);
}

static bool same(const struct trial *t, uint64_t at, uint64_t n)
{
    return memcmp(t->pristine + at, t->image + at, n) == 0;
}

/* The slot's lines and the second watermarks. */
static bool lines_same(const struct trial *t)
{
    return same(t, t->area[2].at, t->area[2].size) && same(t, t->area[4].at, t->area[4].size);
}

/* The watermark was put back to an earlier moment, and proves itself: what it does not vouch for any
 * more, and whose line is damaged, looks as if it had never been told to anybody. */
static uint64_t rolled_from(const struct trial *t)
{
    struct region was, is;
    struct pool a, b;
    bool boot;
    region_wrap(&was, t->pristine, TRIAL_SIZE, NULL);
    region_wrap(&is, t->image, TRIAL_SIZE, NULL);
    if (pool_attach(&a, &was, NULL) != 0 || pool_attach(&b, &is, NULL) != 0)
        return UINT64_MAX;
    uint64_t before = 0, now = 0;
    for (unsigned which = 0; which < 2; which++) {
        uint64_t n = index_watermark_read(&a, pool_watermark(&a, 0, which), &boot).number;
        before = n > before ? n : before;
        n = index_watermark_read(&b, pool_watermark(&b, 0, which), &boot).number;
        now = n > now ? n : now;
    }
    for (uint64_t n = now + 1; now > 0 && now < before && n < t->next; n++)
        if (!same(t, offset_of(&a, pool_entry(&a, 0, n)), MEDIA_LINE))
            return n;
    return UINT64_MAX;
}

/* It may stand twice, once where it was before it was moved: either copy will do. */
static bool batch_aside(const struct trial *t, const struct fsck_report *r,
                        const struct trial_batch *b)
{
    struct region region;
    struct pool pool;
    struct side own, s;
    region_wrap(&region, t->pristine, TRIAL_SIZE, NULL);
    assert_int_equal(pool_attach(&pool, &region, NULL), 0);
    assert_int_equal(side_read(&pool, b->side + b->side_size - MEDIA_LINE, &own), 0);
    for (size_t i = 0; i < r->count; i++)
        if (r->finding[i].kind == FSCK_UNPLACED &&
            side_read(&pool, r->finding[i].place.from, &s) == 0 && fsck_same_batch(&own, &s))
            return true;
    return false;
}

/* Neither read nor hit: what became of it? */
static void batch_missed(const struct trial *t, const struct fsck_report *r,
                         const struct trial_topic *m, const struct trial_batch *b,
                         struct trial_outcome *out)
{
    if (b->number >= t->rolled) {
        out->rolled++;
    } else if (batch_aside(t, r, b)) {
        out->aside++;
    } else {
        out->collateral++;
        print_message("lost: %s, bytes %" PRIu64 " up to %" PRIu64 ", entry %" PRIu64
                      ", record at %" PRIu64 "\n",
                      m->path, b->offset, b->offset + b->length, b->number,
                      b->side + b->side_size - MEDIA_LINE);
    }
}

static bool batch_hit(const struct trial *t, const struct trial_batch *b)
{
    return !same(t, b->side, b->side_size) || !same(t, b->run0, b->run0_length) ||
           (b->run1 && !same(t, b->run1, b->length - b->run0_length));
}

/* 1: as it was; 0: answers EIO; fails the test when it is something else. */
static bool batch_reads(const struct trial_topic *m, struct topic *x, const struct trial_batch *b,
                        bool old, bool messages)
{
    uint64_t at = b->offset > m->base ? b->offset : m->base;
    struct batch_cursor c = {.offset = at};
    struct batch_view v;
    bool by_batch = topic_next(x, &c, &v) == 1;
    /* Another batch of the topic that stood there once cannot be told from it. */
    if (by_batch && old && (v.offset != b->offset || v.length != b->length)) {
        read_release(&v.data);
        return false;
    }
    if (by_batch) {
        if (v.offset != b->offset || v.length != b->length || v.count != b->count)
            fail_msg("%s: the batch at %" PRIu64 " (%u bytes, %u messages) is at %" PRIu64
                     " (%u bytes, %u messages)",
                     m->path, b->offset, b->length, b->count, v.offset, v.length, v.count);
        if (messages && v.message != b->message)
            fail_msg("%s: the batch at %" PRIu64 " begins with message %" PRIu64 ", not %" PRIu64,
                     m->path, b->offset, v.message, b->message);
        read_release(&v.data);
    }
    for (uint64_t end = b->offset + b->length; at < end;) {
        struct read_view r;
        int rc = topic_read(x, at, end - at, &r);
        if (rc || r.bytes == 0)
            break;
        for (int i = 0; i < r.pieces; i++) {
            bool wrong =
                memcmp(r.iov[i].iov_base, m->bytes + (at - m->base), r.iov[i].iov_len) != 0;
            if (wrong && old) {
                read_release(&r);
                return false;
            }
            if (wrong)
                fail_msg("%s: wrong bytes from offset %" PRIu64 " on", m->path, at);
            at += r.iov[i].iov_len;
        }
        read_release(&r);
    }
    return by_batch && at == b->offset + b->length;
}

static void topic_compare(const struct trial *t, struct log *log, const struct trial_topic *m,
                          const bool *hit, bool clean, const struct fsck_report *report,
                          struct trial_outcome *out)
{
    struct topic *x = log_topic(log, m->id);
    char path[MEDIA_MAX_PATH + 1];
    out->batches += m->batches;
    if (!x) {
        assert_false(clean);
        out->missing++;
        for (size_t i = 0; i < m->batches; i++) {
            out->unreadable++;
            out->damaged += hit[i];
            if (!hit[i])
                batch_missed(t, report, m, &m->batch[i], out);
        }
        return;
    }
    assert_int_equal(log_path(log, m->id, path, sizeof path), 0);
    out->nameless += strcmp(path, m->path) != 0;
    if (clean) {
        assert_string_equal(path, m->path);
        assert_int_equal(x->mode, m->mode);
        assert_int_equal(topic_base(x), m->base);
        assert_int_equal(topic_end(x), m->end);
        assert_int_equal(x->first_message, m->first);
        assert_int_equal(x->last_message_end, m->messages);
    }
    for (size_t i = 0; i < m->batches; i++) {
        uint64_t at = m->batch[i].offset > m->base ? m->batch[i].offset : m->base;
        bool reads =
            topic_base(x) <= at && batch_reads(m, x, &m->batch[i], t->stale && hit[i], clean);
        out->damaged += hit[i];
        out->unreadable += !reads;
        if (!reads && !hit[i])
            batch_missed(t, report, m, &m->batch[i], out);
    }
    topic_put(x);
}

/* What is served now, against what was there. hit: of each batch, in the order of the topics. */
static void image_compare(struct trial *t, const bool *hit, bool clean,
                          const struct fsck_report *report, struct trial_outcome *out)
{
    struct embar_error err;
    struct region r;
    struct log *log;
    char *copy = memory_new();
    memcpy(copy, t->image, TRIAL_SIZE);
    int rc = trial_image_open(&log, &r, copy, false, &err);
    if (rc)
        fail_msg("the pool does not open: %s", err.text);
    for (size_t i = 0; i < t->topics; i++) {
        topic_compare(t, log, &t->topic[i], hit, clean, report, out);
        hit += t->topic[i].batches;
    }
    if (clean)
        assert_int_equal(log->sessions.count, t->sessions);
    log_close(log);
    munmap(copy, TRIAL_SIZE);
}

static bool no_pool(int rc)
{
    return rc == -EMBAR_ENOTPOOL || rc == -EMBAR_EVERSION || rc == -EMBAR_EFEATURE ||
           rc == -EMBAR_ECORRUPT;
}

void trial_run(struct trial *t, const char *save, struct trial_outcome *out)
{
    struct fsck_report found, repaired, after;
    struct embar_error err;
    size_t batches = 0;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < t->topics; i++)
        batches += t->topic[i].batches;
    bool *hit = calloc(batches + 1, sizeof *hit);
    assert_non_null(hit);
    for (size_t i = 0, n = 0; i < t->topics; i++)
        for (size_t b = 0; b < t->topic[i].batches; b++)
            hit[n++] = batch_hit(t, &t->topic[i].batch[b]);

    t->rolled = rolled_from(t);
    char *before = memory_new();
    memcpy(before, t->image, TRIAL_SIZE);
    int rc = trial_fsck(t, false, NULL, &found, &err);
    assert_memory_equal(before, t->image, TRIAL_SIZE); /* a check writes nothing */
    munmap(before, TRIAL_SIZE);
    if (rc) {
        /* Nothing of a superblock is left: there is no pool to repair. */
        if (!no_pool(rc) || same(t, MEDIA_SUPER_AT, sizeof(struct media_super)) ||
            same(t, MEDIA_SUPER_ALT, sizeof(struct media_super)))
            fail_msg("not checked: %s", err.text);
        out->unrepairable = true;
        fsck_report_drop(&found);
        free(hit);
        return;
    }
    out->findings = found.count;
    out->errors = found.errors;
    if (found.errors + found.warnings == 0) {
        bool lines = lines_same(t);
        image_compare(t, hit, lines && !t->stale, &found, out);
        assert_true(!lines || t->stale || out->unreadable == 0);
    } else {
        rc = trial_fsck(t, true, save, &repaired, &err);
        if (rc)
            fail_msg("not repaired: %s", err.text);
        assert_int_equal(repaired.count, found.count);
        /* Without a watermark nothing tells that the index lost its end. */
        bool lossless = found.errors == 0 && !t->stale && !trial_finding(&found, FSCK_WATERMARK) &&
                        lines_same(t);
        image_compare(t, hit, lossless, &repaired, out);
        if (lossless)
            assert_int_equal(out->unreadable, 0);
        if (repaired.left > 0)
            trial_print(&repaired);
        assert_int_equal(repaired.left, 0);
        fsck_report_drop(&repaired);
        rc = trial_fsck(t, false, NULL, &after, &err);
        if (rc)
            fail_msg("not checked again: %s", err.text);
        if (after.errors + after.warnings > 0) {
            trial_print(&found);
            print_message(" after the repair:\n");
            trial_print(&after);
        }
        assert_int_equal(after.errors + after.warnings, 0);
        fsck_report_drop(&after);
    }
    fsck_report_drop(&found);
    free(hit);
}
