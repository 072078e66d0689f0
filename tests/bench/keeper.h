/* The keeper: a small process that outlives the benchmark and tidies up behind it.
 *
 * Everything that must not stay behind (child processes, mounts, directories, files) is told to
 * the keeper when it is made and again when it is gone. When the benchmark ends, in whatever way
 * (return, Ctrl-C, kill -9), the keeper ends those processes, unmounts and removes.
 *
 * Used by one thread of one process: the one that called keeper_start. Children of that process
 * are made with proc_fork, which tells the keeper.
 */
#ifndef BENCH_KEEPER_H
#define BENCH_KEEPER_H

#include <sys/types.h>

/* 0 or -errno. */
int keeper_start(void) __attribute__((warn_unused_result));
/* Everything told and not untold is tidied away when it returns. Safe when it never started. */
void keeper_stop(void);

/* 0 or -errno. Processes are told right after the fork, before they can have been reaped. Paths
 * stay in order: the newest is tidied first, so that a mount goes before its directory. */
int keeper_pid(pid_t pid) __attribute__((warn_unused_result));
int keeper_mount(const char *path) __attribute__((warn_unused_result));
int keeper_directory(const char *path) __attribute__((warn_unused_result));
int keeper_file(const char *path) __attribute__((warn_unused_result));
/* It is gone by other means (a pid: call it before reaping). */
void keeper_forget_pid(pid_t pid);
void keeper_forget_path(const char *path);

/* A private directory below $TMPDIR (or /dev/shm when in_memory), told to the keeper. */
int keeper_make_directory(char *path, size_t size, int in_memory)
    __attribute__((warn_unused_result));

/* fork() with the keeper told. The child gets default signal handlers and SIGKILL when its parent
 * dies; it must leave by _exit. */
pid_t proc_fork(void) __attribute__((warn_unused_result));
/* SIGTERM, then SIGKILL after grace_ms; reaped and forgotten when it returns. */
void proc_end(pid_t pid, unsigned grace_ms);
/* Wait for a child's end with a deadline: its wait status, or -ETIMEDOUT. Reaped and forgotten. */
int proc_wait(pid_t pid, unsigned timeout_ms, int *status) __attribute__((warn_unused_result));

/* Unmount: as its owner would, lazily if need be. Returns when the path is no mount any more. */
void mount_remove(const char *path);

#endif
