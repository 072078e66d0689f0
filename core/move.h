/* Moving what stands in the way of a batch (move.c), by a survey of what stands where (survey.c): the
 * background thread's, or a manual log's tick's (beside step 3). Part of log_state.h: for who
 * implements core/log.h, and nobody else.
 */
#ifndef CORE_MOVE_H
#define CORE_MOVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log;
struct topic;

/* ---- Survey (survey.c) --------------------------------------------------------------------- */

struct survey {
    uint32_t number;
    struct topic *at; /* looked at next, or in part; NULL: all were */
    bool begun;       /* that one was, */
    uint64_t run;     /* to this run, as run_dropped counts */
    size_t retired;   /* so many of log->retired were */
};

/* Owners of what a checkpoint writes, beside topics whose tables it writes. */
#define SURVEY_MANIFEST 0u
#define SURVEY_GIVEN_UP UINT32_MAX
/* Note in every extent what stands there: a new survey; some of it, false: that was all. A topic is about
 * to leave the namespace. Role held, all of them; others may have it in between. */
void survey_begin(struct log *log);
bool survey_part(struct log *log);
void survey_forget(struct log *log, const struct topic *t);

/* ---- Moves (move.c) ------------------------------------------------------------------------ */

struct move {
    uint64_t spent; /* bytes moved since a reservation last found its place */
    bool failed;    /* the last attempt made no piece, */
    bool busy;      /* because of what will pass, */
    uint64_t freed; /* when so many blocks had come free */
    uint64_t retry; /* CLOCK_MONOTONIC ns: not again before, which is */
    uint64_t wait;  /* ns after it */
};

/* Would moving perhaps make the place that `want` bytes lack (whole: in one piece)? enough: only where
 * as much is free. */
bool move_wanted(const struct log *log, uint64_t want, bool whole, bool enough);
/* Not now, but after the pause that follows an attempt? */
bool move_awaited(const struct log *log, uint64_t want, bool whole);
/* Clear one block. 0: it is free; -EBUSY: not before somebody has read; or why not. aside: without the
 * role, which is taken and given back; else it is held. */
int move_run(struct log *log, uint64_t want, bool whole, bool aside);

#endif
