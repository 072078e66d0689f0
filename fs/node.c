/* FUSE nodes: what the kernel holds by number, and what stands behind it (step 9).
 *
 * A topic has one current node. A trim moves byte 0, and no file may change under an open handle,
 * so lookups after a trim give a new node whose base is the new one. It shows the same st_ino
 * while anything of the topic is open: tail -f and -F go on quietly. A trim that nobody had open
 * across gives a new st_ino: who resumes by inode number then reads again rather than skips.
 *
 * A parked write holds the kernel's lock of its inode, and with it chmod, rm, trims and the appends of
 * others, whom no signal would reach there. So while writes are parked, and for a while afterwards,
 * a lookup of a topic that somebody writes to gives a new node, too: what is done by name gets
 * through. At other times a name keeps its node, since the kernel's idea of what was deleted goes with
 * it.
 *
 * Must never hold a topic: an unlinked one lives until its last close, not until the kernel
 * forgets its node.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

#define TIGHT_NS 10000000000u

/* 63 bits: the top one marks virtual nodes. Base 0 keeps the plain id, over remounts too. */
static uint64_t topic_ino(uint32_t id, uint64_t base)
{
    uint64_t mixed = base * 0x9e3779b97f4a7c15u;
    return base == 0 ? id : (((mixed >> 33) | 1u) << 32 | id) & INT64_MAX;
}

static size_t hash(enum node_kind kind, uint32_t id, uint64_t base)
{
    uint64_t h = ((uint64_t)id << 8 | (uint64_t)kind) * 0x9e3779b97f4a7c15u ^ base;
    return (size_t)((h * 0xff51afd7ed558ccdu) >> 20);
}

int nodes_init(struct nodes *n)
{
    pthread_mutex_init(&n->lock, NULL);
    n->size = n->family_size = 1024;
    n->table = calloc(n->size, sizeof(struct node *));
    n->families = calloc(n->family_size, sizeof(struct family *));
    n->root = (struct node){.kind = NODE_DIR, .id = LOG_ROOT_ID, .ino = LOG_ROOT_ID, .lookups = 1};
    return n->table && n->families ? 0 : -ENOMEM;
}

void nodes_destroy(struct nodes *n)
{
    for (size_t i = 0; n->table && i < n->size; i++)
        for (struct node *at = n->table[i], *next; at; at = next) {
            next = at->next;
            if (at->family && --at->family->nodes == 0)
                free(at->family);
            free(at);
        }
    free(n->table);
    free(n->families);
    pthread_mutex_destroy(&n->lock);
}

struct node *node_of(struct fs *fs, fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &fs->nodes.root : (struct node *)(uintptr_t)ino;
}

fuse_ino_t node_handle(struct fs *fs, const struct node *n)
{
    return n == &fs->nodes.root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
}

static size_t slot_of(const struct nodes *n, const struct node *node)
{
    return hash(node->kind, node->id, node->base) & (n->size - 1);
}

/* A table that cannot grow only gets slower. */
static void table_grow(struct nodes *n)
{
    struct node **old = n->table, **table = calloc(n->size * 2, sizeof(struct node *));
    if (!table)
        return;
    size_t count = n->size;
    n->table = table;
    n->size *= 2;
    for (size_t i = 0; i < count; i++)
        for (struct node *at = old[i], *next; at; at = next) {
            next = at->next;
            struct node **slot = &n->table[slot_of(n, at)];
            at->next = *slot;
            *slot = at;
        }
    free(old);
}

static struct node *node_find(const struct nodes *n, enum node_kind kind, uint32_t id,
                              uint64_t base)
{
    struct node *at = n->table[hash(kind, id, base) & (n->size - 1)];
    while (at && (at->kind != kind || at->id != id || at->base != base))
        at = at->next;
    return at;
}

static struct node *node_make(struct nodes *n, enum node_kind kind, uint32_t id, uint64_t base,
                              uint64_t ino)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return NULL;
    node->kind = kind;
    node->id = id;
    node->base = base;
    node->ino = ino;
    if (++n->used > n->size)
        table_grow(n);
    struct node **slot = &n->table[slot_of(n, node)];
    node->next = *slot;
    *slot = node;
    return node;
}

static void node_unlink(struct nodes *n, struct node *node)
{
    struct node **at = &n->table[slot_of(n, node)];
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    n->used--;
}

static struct node *node_get_as(struct nodes *n, enum node_kind kind, uint32_t id, uint64_t base,
                                uint64_t length, uint64_t time)
{
    if (kind == NODE_DIR && id == LOG_ROOT_ID)
        return &n->root;
    uint64_t ino = kind == NODE_DIR ? id : virtual_ino(kind) | id;
    if (kind == NODE_SINCE || kind == NODE_SEGMENT) /* one topic's parts are several files */
        ino |= (base * 0x9e3779b97f4a7c15u >> 37) << 36;
    pthread_mutex_lock(&n->lock);
    struct node *node = node_find(n, kind, id, base);
    if (!node) {
        node = node_make(n, kind, id, base, ino);
        if (node) {
            node->length = length;
            node->time = time;
        }
    }
    if (node)
        node->lookups++;
    pthread_mutex_unlock(&n->lock);
    return node;
}

struct node *node_get(struct nodes *n, enum node_kind kind, uint32_t id, uint64_t base)
{
    return node_get_as(n, kind, id, base, 0, 0);
}

struct node *node_get_segment(struct nodes *n, uint32_t id, uint64_t base, uint64_t length,
                              uint64_t time)
{
    return node_get_as(n, NODE_SEGMENT, id, base, length, time);
}

static struct family **family_slot(const struct nodes *n, uint32_t id)
{
    struct family **at = &n->families[hash(NODE_TOPIC, id, 0) & (n->family_size - 1)];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void families_grow(struct nodes *n)
{
    struct family **old = n->families,
                  **table = calloc(n->family_size * 2, sizeof(struct family *));
    if (!table)
        return;
    size_t count = n->family_size;
    n->families = table;
    n->family_size *= 2;
    for (size_t i = 0; i < count; i++)
        for (struct family *at = old[i], *next; at; at = next) {
            next = at->next;
            struct family **slot = &n->families[hash(NODE_TOPIC, at->id, 0) & (n->family_size - 1)];
            at->next = *slot;
            *slot = at;
        }
    free(old);
}

static struct family *family_get(struct nodes *n, uint32_t id)
{
    struct family *family = *family_slot(n, id);
    if (family)
        return family;
    family = calloc(1, sizeof *family);
    if (!family)
        return NULL;
    family->id = id;
    if (++n->family_used > n->family_size)
        families_grow(n);
    *family_slot(n, id) = family;
    return family;
}

static void family_drop(struct nodes *n, struct family *family)
{
    if (family->nodes > 0)
        return;
    struct family **slot = family_slot(n, family->id);
    *slot = family->next;
    n->family_used--;
    free(family);
}

/* Do writes wait for space, or did they not long ago? n->lock held. */
static bool is_tight(const struct nodes *n)
{
    return n->parked > 0 || now_ns() < n->tight_until;
}

static struct node *node_get_topic(struct nodes *n, const struct node_stat *st)
{
    pthread_mutex_lock(&n->lock);
    struct family *family = family_get(n, st->id);
    struct node *node = family ? family->current : NULL;
    if (family && family->opens == 0)
        family->ino = topic_ino(st->id, st->base);
    bool other = !node || node->base != st->base || node->ino != family->ino ||
                 (node->writers > 0 && is_tight(n));
    if (family && other) {
        node = node_make(n, NODE_TOPIC, st->id, st->base, family->ino);
        if (node) {
            node->family = family;
            family->nodes++;
            family->current = node;
        } else {
            family_drop(n, family);
        }
    }
    if (node)
        node->lookups++;
    pthread_mutex_unlock(&n->lock);
    return node;
}

struct node *node_get_child(struct nodes *n, const struct node_stat *st)
{
    return S_ISDIR(st->mode) ? node_get(n, NODE_DIR, st->id, 0) : node_get_topic(n, st);
}

/* n->lock held. */
static void node_drop(struct nodes *n, struct node *node)
{
    if (node->lookups > 0 || node->parked > 0)
        return;
    node_unlink(n, node);
    struct family *family = node->family;
    if (family) {
        family->nodes--;
        if (family->current == node)
            family->current = NULL;
        family_drop(n, family);
    }
    free(node);
}

void node_forget(struct nodes *n, struct node *node, uint64_t lookups)
{
    if (node == &n->root)
        return;
    pthread_mutex_lock(&n->lock);
    node->lookups -= lookups < node->lookups ? lookups : node->lookups;
    node_drop(n, node);
    pthread_mutex_unlock(&n->lock);
}

void node_parked(struct nodes *n, struct node *node)
{
    pthread_mutex_lock(&n->lock);
    node->parked++;
    n->parked++;
    pthread_mutex_unlock(&n->lock);
}

void node_unparked(struct nodes *n, struct node *node)
{
    pthread_mutex_lock(&n->lock);
    node->parked--;
    n->parked--;
    n->tight_until = now_ns() + TIGHT_NS;
    node_drop(n, node);
    pthread_mutex_unlock(&n->lock);
}

void node_opened(struct nodes *n, struct node *node, bool writes)
{
    if (!node->family)
        return;
    pthread_mutex_lock(&n->lock);
    node->family->opens++;
    node->writers += writes;
    pthread_mutex_unlock(&n->lock);
}

void node_closed(struct nodes *n, struct node *node, bool writes)
{
    if (!node->family)
        return;
    pthread_mutex_lock(&n->lock);
    node->family->opens--;
    node->writers -= writes;
    pthread_mutex_unlock(&n->lock);
}

bool node_is_open(struct nodes *n, const struct node *node)
{
    if (!node->family)
        return false;
    pthread_mutex_lock(&n->lock);
    bool open = node->family->opens > 0;
    pthread_mutex_unlock(&n->lock);
    return open;
}

uint64_t node_list_ino(struct nodes *n, const struct node_stat *st)
{
    if (S_ISDIR(st->mode))
        return st->id;
    pthread_mutex_lock(&n->lock);
    const struct family *family = *family_slot(n, st->id);
    uint64_t ino = family && family->opens > 0 ? family->ino : topic_ino(st->id, st->base);
    pthread_mutex_unlock(&n->lock);
    return ino;
}
