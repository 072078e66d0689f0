/* The broker under test: one that is given, or a private embarfs that lives as long as the run. */
#ifndef BENCH_DAEMON_H
#define BENCH_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "embar/embar.h"

struct daemon_options {
    const char *server; /* -s, NULL: start one (or the mount's) */
    const char *token_file;
    const char *mount;   /* --mount: an embarfs mount, instead of server */
    const char *program; /* --embarfs, NULL: beside this program, else in $PATH */
    const char *spec;    /* --cxl of a private one, NULL: mem: of `size` */
    uint64_t size;       /* --size */
    const char *flush;   /* --flush, NULL: auto */
    unsigned workers;    /* --workers, 0: its default */
    bool unix_socket;    /* talk to it over its Unix socket */
};

struct daemon {
    bool ours;
    pid_t pid;        /* 0: unknown (a server given by its address) */
    char mount[256];  /* empty: unknown */
    char server[256]; /* for embar_options.server */
    char log[300];    /* what ours says goes here */
    const char *token_file;
    /* As the daemon tells it; empty or 0 when unknown. */
    char pool[256], flush[32], durability[16];
    uint64_t size, free;
};

int daemon_open(struct daemon *d, const struct daemon_options *options, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Ends it when it is ours. */
void daemon_close(struct daemon *d);

/* Each client process makes its own. */
int daemon_connect(const struct daemon *d, struct embar_client **client, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Remove a topic, and wait until its space is free again (a deadline: no error). */
int daemon_remove(struct daemon *d, const char *topic, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Read size and free again. */
int daemon_refresh(struct daemon *d, struct embar_error *err) __attribute__((warn_unused_result));

#endif
