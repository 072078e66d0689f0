/* A topic of a pool that this process opens itself, without a daemon. One thread. */
#ifndef NET_CMD_POOL_TOPIC_H
#define NET_CMD_POOL_TOPIC_H

#include "core/log.h"

struct pool_topic {
    struct region region;
    struct log *log;
    struct topic *topic;
};

/* Open the pool `spec` (which must be one) and the topic `path` in it; unless readonly, take the
 * pool's slot and make the topic and its parents when they are not there; a daemon that still closes
 * the pool is waited for then, in the name of the command `name`. */
int pool_topic_open(struct pool_topic *pt, const char *name, const char *spec, const char *path,
                    bool readonly, struct embar_error *err) __attribute__((warn_unused_result));
/* Safe on a zeroed one. */
void pool_topic_close(struct pool_topic *pt);

#endif
