/* Everything the files of the mount share, sectioned by the file that provides it.
 *
 * The mount is the last of the nine steps for readers (9: show the bytes) and, for writers through
 * it, steps 2 to 8 by way of core/log.h. Design notes:
 *
 * Threads.
 *   handlers   libfuse's session threads. They never wait: a request that cannot be answered at
 *              once is parked and answered by another thread. A parked write holds the kernel's
 *              inode lock, so a handler that waited would wedge every other user of that file.
 *   replies    one thread (fs->replies): answers control actions, retries parked writes, feeds
 *              followers. It never waits for a commit either.
 *   notify     one thread (fs->notify): the only one that sends notifications to the kernel, with
 *              no lock held; stopped before the session is torn down.
 *   committers any thread that runs an epoch: calls completions, which only reply or push a task.
 *
 * Lock order: nodes.lock; then a handle's lock; then the park's lock; then a task queue's lock. The
 * lock of the locks is taken with none of them held; a task queue's inside of it.
 * The log's watch locks are taken outside of the park's and the queues' locks (fire pushes tasks),
 * inside of a handle's. No lock is held over log_announce, log_commit, log_control or a reply,
 * but for the producer's lock, which is held over log_announce alone, and that of the refusals that are
 * written late (answer.c), which nothing is taken inside of.
 */
#ifndef FS_FS_H
#define FS_FS_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/log.h"
#include "core/made.h"
#include "core/region.h"
#include "embar/error.h"
#include "net/server/topology.h"
#include "net/token.h"
#include "net/wire.h"

struct fs;
struct server;
struct node;
struct handle;
struct job;

/* ---- tasks.c: a thread that runs small pieces of work one after another -------------------- */

struct task {
    void (*run)(struct task *self);
    struct task *next;
    bool queued; /* guarded by the queue's lock */
};

struct tasks {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below and every task's next and queued */
    pthread_cond_t wake, idle;
    struct task *head, **tail, *running;
    bool started, stop;
    /* Called by the thread after a few tasks at most, when there are none, and when the time it last
     * returned has come. */
    uint64_t (*tick)(void *arg, uint64_t now);
    void *arg;
};

#define NEVER UINT64_MAX

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
int tasks_start(struct tasks *q, const char *name, uint64_t (*tick)(void *, uint64_t), void *arg)
    __attribute__((warn_unused_result));
/* Any thread; a task that is queued already is not queued twice. */
void tasks_push(struct tasks *q, struct task *t);
/* Afterwards the task is neither queued nor running (unless the caller runs it itself). */
void tasks_cancel(struct tasks *q, struct task *t);
/* Runs what is queued, then ends the thread. */
void tasks_stop(struct tasks *q);

/* ---- node.c: FUSE nodes, their ids and generations ------------------------------------------ */

enum node_kind {
    NODE_DIR,          /* a directory of the log */
    NODE_TOPIC,        /* a topic as it stands after one trim; byte 0 is log offset `base` */
    NODE_VIRTUAL,      /* .embar */
    NODE_STATUS,       /* .embar/status */
    NODE_METRICS,      /* .embar/metrics */
    NODE_TOKEN,        /* .embar/token */
    NODE_FOLLOW_DIR,   /* .embar/follow and the directories below it */
    NODE_FOLLOW,       /* .embar/follow/<topic>[@offset]; base is the offset, or FOLLOW_END */
    NODE_SINCE_ROOT,   /* .embar/since */
    NODE_SINCE_DIR,    /* .embar/since/<when> and the directories below it; base says when */
    NODE_SINCE,        /* .embar/since/<when>/<topic>; base is the log offset of byte 0 */
    NODE_SEGMENTS_DIR, /* .embar/segments and the directories below it */
    NODE_SEGMENTS,     /* .embar/segments/<topic>: a directory */
    NODE_SEGMENT,      /* .embar/segments/<topic>/<offset>; base is the offset */
};

#define FOLLOW_END     UINT64_MAX
#define SINCE_RELATIVE (1ull << 63) /* when: so many ns before it is asked; without: since 1970 */

/* Is it a topic's bytes by offset, as topics themselves are? */
static inline bool is_topic_file(enum node_kind kind)
{
    return kind == NODE_TOPIC || kind == NODE_SINCE;
}
/* Does it mirror the tree of topics? */
static inline bool is_mirror(enum node_kind kind)
{
    return kind == NODE_FOLLOW_DIR || kind == NODE_SINCE_DIR || kind == NODE_SEGMENTS_DIR;
}

/* What all nodes of one topic share: a trim makes a new node of the same family. */
struct family {
    uint32_t id;
    uint32_t nodes;       /* that belong to it */
    uint32_t opens;       /* open handles over all of them */
    uint64_t ino;         /* st_ino: kept over trims while anything is open */
    struct node *current; /* the node that lookups give */
    struct family *next;  /* hash chain */
};

struct node {
    enum node_kind kind;
    uint32_t id; /* of the log's topic or directory; 0 for what is virtual */
    uint64_t base;
    uint64_t ino;
    uint64_t length, time; /* segments: bytes, and the time of the last; constant */
    uint64_t lookups;      /* the kernel's references */
    unsigned writers;      /* open handles that write */
    unsigned parked;       /* requests of it in the park */
    struct family *family; /* topics only */
    struct node *next;     /* hash chain; topics are found through their family */
};

struct nodes {
    pthread_mutex_t lock; /* guards all nodes' counts, families and both tables */
    struct node **table;
    struct family **families;
    size_t size, used;               /* of table, a power of two */
    size_t family_size, family_used; /* of families */
    struct node root;
    unsigned parked;      /* requests of all nodes in the park */
    uint64_t tight_until; /* CLOCK_MONOTONIC ns: some were not long ago */
};

int nodes_init(struct nodes *n) __attribute__((warn_unused_result));
void nodes_destroy(struct nodes *n);
struct node *node_of(struct fs *fs, fuse_ino_t ino);
fuse_ino_t node_handle(struct fs *fs, const struct node *n);
/* A node with one more lookup, NULL for want of memory. */
struct node *node_get(struct nodes *n, enum node_kind kind, uint32_t id, uint64_t base);
struct node *node_get_segment(struct nodes *n, uint32_t id, uint64_t base, uint64_t length,
                              uint64_t time);
struct node *node_get_child(struct nodes *n, const struct node_stat *st);
void node_forget(struct nodes *n, struct node *node, uint64_t lookups);
/* One more or one less open handle of a topic. */
void node_opened(struct nodes *n, struct node *node, bool writes);
void node_closed(struct nodes *n, struct node *node, bool writes);
/* One more or one less request of the node is parked. It lives at least that long. */
void node_parked(struct nodes *n, struct node *node);
void node_unparked(struct nodes *n, struct node *node);
/* Has anybody the topic open, as it stands after whatever trim? */
bool node_is_open(struct nodes *n, const struct node *node);
/* The st_ino a directory listing shows for a child. */
uint64_t node_list_ino(struct nodes *n, const struct node_stat *st);

/* ---- handle.c: open files --------------------------------------------------------------------- */

/* An unfinished last line. */
struct line {
    char *text;
    size_t held, capacity;
};

#define NOWHERE UINT64_MAX

struct handle {
    struct fs *fs;
    enum node_kind kind;
    struct node *node; /* valid while the file is open in the kernel */
    struct topic *topic;
    uint64_t base; /* topic: log offset of byte 0 */
    atomic_uint refs;
    struct handle *next, **link; /* fs->handles */
    struct task reap;

    /* status, metrics, token; segments have a length */
    char *text;
    size_t length;

    pthread_mutex_t lock; /* guards all below */
    /* writing */
    bool writable;
    uint64_t sequential; /* where the next write without O_APPEND must be, or NOWHERE */
    struct line line;
    struct job *busy; /* the one job that may touch the line */
    struct job *waiting, **waiting_tail;
    /* following and polling */
    uint64_t position; /* follow: next log offset; topic: highest log offset read */
    bool watching;
    struct watcher watcher;
    struct fuse_pollhandle *poll;
    fuse_req_t parked; /* follow: the read that waits for data, or for the answer before it */
    size_t parked_size;
    bool parked_nonblock;
    bool answering; /* follow: a read is being answered; position may go back */
    bool interrupted, closing;
    atomic_bool want_poll, want_data; /* exchanged (acq_rel) before topic_end is read again; pair
                                       * with is_wanted in handle_fire */
    struct task poll_task, data_task;
};

struct handle *handle_new(struct fs *fs, struct node *node, struct topic *topic, bool writes);
void handle_ref(struct handle *h);
void handle_put(struct handle *h);
static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}
/* Hear of new data from now on. h->lock held. */
void handle_watch(struct handle *h);
void handle_unwatch(struct handle *h);
/* RELEASE, and for what is still open when the mount ends: publishes the unfinished line. */
void handle_close(struct handle *h);
void handles_close_all(struct fs *fs);

/* ---- publish.c: write(2) becomes batches; a job is one write, fsync or last close ------------- */

enum job_kind { JOB_WRITE, JOB_WRITE_SYNC, JOB_SYNC, JOB_CLOSE };

struct job {
    struct fs *fs;
    struct handle *handle; /* a reference */
    enum job_kind kind;
    fuse_req_t req; /* NULL: nobody waits for it */
    const char *data;
    size_t size;        /* bytes of data */
    char *own;          /* data, when it had to be kept beyond the handler */
    size_t held;        /* bytes of the unfinished line that come before data in the stream */
    size_t taken, good; /* stream bytes announced; committed */
    int status;         /* 0, or why it ended early */
    bool last;          /* the batch under way is the last one */
    atomic_int turn;    /* see publish.c */
    struct batch batch;
    struct completion completion;
    struct task task;
    uint64_t deadline; /* parked: CLOCK_MONOTONIC ns */
    uint64_t place;    /* in the order of all who wait for space; 0: in none */
    uint64_t space;    /* bytes that it waits for */
    bool behind;       /* found none because of those before it */
    bool first;        /* of those in the park nobody waits before it */
    atomic_bool interrupted;
    bool parked_once, fresh; /* fresh: and not yet tried there */
    struct job *next;        /* handle's waiting list, or the park */
};

/* Answers req in the end, whatever happens. `data` need not outlive the call. */
void publish_start(struct handle *h, enum job_kind kind, fuse_req_t req, const char *data,
                   size_t size);
/* Go on with a job: true when it is out of the caller's hands, false when space is wanted. The
 * caller runs log_commit afterwards. */
bool publish_step(struct job *job) __attribute__((warn_unused_result));
/* End a job that was not wholly announced. */
void publish_fail(struct job *job, int status);

/* ---- park.c: jobs that wait for pool space, or for a place in the ring --------------------------- */

struct park {
    struct fs *fs;
    pthread_mutex_t lock; /* guards all below */
    struct job *head, **tail;
    bool retry, closed;
    struct watcher space;
    struct space_line *line; /* of the parked: said by the replies thread */
    struct task wake;
};

int park_init(struct park *p, struct fs *fs) __attribute__((warn_unused_result));
/* As log_reserve of the job's batch, but what there is for those before it is left to them. */
int park_reserve(struct park *p, struct job *job) __attribute__((warn_unused_result));
void park_job(struct park *p, struct job *job);
/* A job of a handle whose turn has come: tried at once by the replies thread. */
void park_resume(struct park *p, struct job *job);
/* Try the parked jobs soon, oldest first, until one finds no space. */
void park_retry(struct park *p);
uint64_t park_tick(struct park *p, uint64_t now);
/* From now on nothing waits: what is parked ends at once. */
void park_close(struct park *p);
void park_destroy(struct park *p);

/* ---- locks.c: flock(2) and fcntl(2), over all nodes of a topic ------------------------------------ */

#define LOCK_BUCKETS 256u

struct locks {
    pthread_mutex_t lock; /* guards all below */
    struct lock *held[LOCK_BUCKETS];
    atomic_uint_fast64_t count,
        waiting; /* of those, and of the requests below; relaxed, for a look */
    struct lock_wait *waits, **waits_tail; /* requests that wait, oldest first */
    struct task wake;                      /* some were interrupted */
};

void locks_init(struct locks *l);
void locks_destroy(struct locks *l);
uint64_t locks_tick(struct locks *l, uint64_t now);
/* FLUSH: what its owner took as a process. RELEASE: what was taken through the open file. */
void locks_flush(struct handle *h, uint64_t owner);
void locks_release(struct handle *h);

/* ---- ops_*.c: one function a FUSE request --------------------------------------------------------- */

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
               const char *newname, unsigned flags);
void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
              struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range);
void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range,
              int waits);
void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* open.c: what an open and a create share: 0 and fi filled, or a negative code. */
int open_node(struct fs *fs, struct node *node, struct fuse_file_info *fi)
    __attribute__((warn_unused_result));

/* The log's view of a topic's or directory's node. -ESTALE: it is not what its name leads to any
 * more, and nobody has it open. A removed one that is open: 1. */
int attr_log(struct fs *fs, const struct node *node, struct node_stat *st)
    __attribute__((warn_unused_result));
struct timespec time_of(uint64_t ns); /* since 1970 */
/* ops_attr.c: a node as stat shows it: 0, or a negative code. */
int attr_fill(struct fs *fs, const struct node *node, struct stat *st)
    __attribute__((warn_unused_result));
int attr_entry(struct fs *fs, struct node *node, struct fuse_entry_param *e)
    __attribute__((warn_unused_result));

/* control.c: a control action whose outcome is the answer to a request. */
struct action {
    struct control control;
    struct completion completion;
    struct commit commit;
    struct task task;
    struct fs *fs;
    fuse_req_t req;
    fuse_ino_t ino;           /* setattr, setxattr */
    struct fuse_file_info fi; /* create */
    /* Run by the replies thread once the action was committed or refused; must answer req. */
    void (*answer)(struct action *self);
};
/* Zeroed; NULL when memory is short, and then req was answered. */
struct action *action_new(struct fs *fs, fuse_req_t req, enum media_control_kind kind,
                          void (*answer)(struct action *));
void action_name(struct action *a, const char *name);
void action_send(struct action *a);
void action_answer_error(struct action *a);

/* virtual.c: .embar */
#define VIRTUAL_NAME ".embar"
int virtual_lookup(struct fs *fs, const struct node *parent, const char *name, struct node **out);
int virtual_attr(struct fs *fs, const struct node *node, struct stat *st);
/* A name of a listing by its position from 0; NULL behind the last. */
const char *virtual_list(const struct node *dir, size_t i, enum node_kind *kind);
uint64_t virtual_ino(enum node_kind kind);

/* reply.c: a topic's bytes */
/* Reply up to size bytes of the handle's topic from pool memory, and note how far it has read: not
 * behind what the reader was refused. Fewer only at the end or before what cannot be read. The caller
 * has a reference: the answer lets the reader close the file. */
void reply_bytes(struct handle *h, fuse_req_t req, uint64_t offset, size_t size);
/* Copy up to size bytes; fewer as above. A negative code says why nothing more could be read. */
int copy_bytes(struct handle *h, char *to, uint64_t offset, size_t size, size_t *copied);

/* segments.c: sealed pieces */
int segments_lookup(struct fs *fs, const struct node *parent, const char *name, struct node **out);
/* The pieces of a topic from slot `from` on, until `add` says false; `next` continues behind one. */
int segments_list(struct fs *fs, const struct node *dir, uint64_t from,
                  bool (*add)(void *arg, const char *name, uint64_t next), void *arg);
void segment_read(struct handle *h, fuse_req_t req, size_t size, off_t off);

/* follow.c: reads that wait for data, and readiness */
void follow_read(struct handle *h, fuse_req_t req, size_t size, bool nonblock);
void follow_data(struct task *task);
void follow_poll(struct task *task);
/* Answer what waits: the mount is ending. */
void follow_end(struct handle *h);

/* status.c: texts made when they are opened; malloc'd, NULL for want of memory */
char *status_json(struct fs *fs);
char *status_metrics(struct fs *fs);
char *status_token(struct fs *fs);

/* broker.c: the network side */
/* Is the address free? Before anything is touched. */
int broker_check(struct fs *fs, struct embar_error *err) __attribute__((warn_unused_result));
int broker_start(struct fs *fs, struct embar_error *err) __attribute__((warn_unused_result));
void broker_stop(struct fs *fs);

/* ---- daemon.c: the process that starts, and the one that stays ----------------------------------- */

/* Fork unless `foreground`; the parent never returns: it waits for what the child has to say. */
void daemon_start(bool foreground);
/* 0, or -ECANCELED when the parent is gone: a mount that comes late would be nobody's. */
int daemon_awaited(struct embar_error *err) __attribute__((warn_unused_result));
/* The mount answers: let the parent go. */
void daemon_ready(void);
/* Starting failed: say so and end with this status. */
void daemon_fail(int status, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* A remark: on the terminal while starting or in the foreground, in the system log afterwards. */
void daemon_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- mount.c: the mount point and the session ------------------------------------------------------ */

/* Is the mount point one? A dead daemon's mount on it is taken away. */
int mount_prepare(struct fs *fs, struct embar_error *err) __attribute__((warn_unused_result));
/* The session, with its options checked; source: what the mount table shows, NULL to check only. */
int mount_session(struct fs *fs, const char *source, struct embar_error *err)
    __attribute__((warn_unused_result));
int mount_attach(struct fs *fs, struct embar_error *err) __attribute__((warn_unused_result));
/* From now on signals end the process in an orderly way. Before any other thread is made. */
int mount_signals(struct fs *fs, struct embar_error *err) __attribute__((warn_unused_result));
/* Serve until unmounted or told to stop: 0, or a negative errno. */
int mount_serve(struct fs *fs);
void mount_detach(struct fs *fs);

/* ---- answer.c: what goes to the kernel -------------------------------------------------------------- */

/* From here on the session's answers outlast a moment without memory. Once it is mounted: 0 or a
 * negative errno. */
int answer_through(struct fuse_session *session, struct tasks *replies);
/* What this thread's last answer told: 0, or the negative errno of a failure or of an error that it
 * said. It tells what libfuse does not: an answer that it had no memory for. */
int answer_outcome(void);
/* The replies thread, between tasks: when to come again. */
uint64_t answer_tick(uint64_t now);

/* ---- session.c: the threads that serve it ----------------------------------------------------------- */

/* Returns when the file system was unmounted, or after session_end: 0, or a negative errno. */
int session_serve(struct fuse_session *session, unsigned threads);
/* Any thread. */
void session_end(struct fuse_session *session);

#define SESSION_THREADS 64u /* at most */

/* What each handler thread had in hand, in rounds. */
struct session_moment {
    uint64_t rounds[SESSION_THREADS];
};
void session_now(struct session_moment *m);
/* Is all done that was taken from the kernel before that moment? Threads that keep it from being so are
 * woken: ask again a little later. Any thread but a handler. */
bool session_past(const struct session_moment *m);

/* ---- main.c ------------------------------------------------------------------------------------------ */

struct fs_options {
    const char *mountpoint, *spec, *listen, *socket;
    uint64_t size;
    enum flush_mode flush;
    int durability; /* enum media_durability or -1 */
    unsigned workers;
    struct pin pin;
    uint64_t staging;
    bool no_auto_create, insecure, foreground, debug;
    unsigned write_wait;                            /* seconds */
    unsigned hold_ms, sessions, session_lifetime_s; /* of the log; 0: its defaults */
};

struct fs_counters {
    atomic_uint_fast64_t reads, read_bytes, writes, write_bytes, parked, parked_now, park_tries,
        no_space, interrupted, lost_fragments, held_bytes, open_files, notifications;
};

struct fs {
    struct fs_options opt;
    char *mountpoint; /* resolved */
    struct fuse_args fuse_args;
    struct fuse_session *session;
    struct region region;
    struct made made; /* by this start */
    struct log *log;
    pthread_mutex_t producer_lock; /* guards producer: it belongs to one thread at a time */
    struct producer *producer;
    struct nodes nodes;
    struct tasks replies, notify;
    struct park park;
    struct locks locks;
    pthread_mutex_t handles_lock; /* guards handles */
    struct handle *handles;
    atomic_uint outstanding; /* jobs and actions not answered yet */
    struct server *server;
    char listen[300], socket[108];
    char token[WIRE_TOKEN + 1];
    struct token_left token_left; /* for clients */
    uid_t uid;
    gid_t gid;
    uint64_t started; /* CLOCK_MONOTONIC ns */
    struct fs_counters count;
};

static inline void count_add(atomic_uint_fast64_t *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}
static inline void count_sub(atomic_uint_fast64_t *c, uint64_t n)
{
    atomic_fetch_sub_explicit(c, n, memory_order_relaxed);
}

#define FS_IO_SIZE  (1u << 20)   /* st_blksize of files, max_read and max_write */
#define FS_DIR_SIZE 4096u        /* st_blksize of directories: what a listing is read in */
#define FS_HELD_MAX (256u << 20) /* unfinished lines of all open files together, bytes */
#define FS_PRODUCER 0u           /* ours of the log's producers; the workers use the others */
#define FS_ACK_MAX  1u           /* there is no replica */

#endif
