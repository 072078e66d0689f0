/* The stack of free pieces (see stack.h). This file is compiled without the thread sanitizer, which
 * would report the kit's assembler and the racy look at `next`; the order that the stack gives is
 * told to it by hand instead (EMBAR_TSAN).
 */
#include "net/server/stack.h"

#ifdef EMBAR_TSAN
void __tsan_acquire(void *at);
void __tsan_release(void *at);
#else
#define __tsan_acquire(at) ((void)(at))
#define __tsan_release(at) ((void)(at))
#endif

void stack_push(struct stack *s, struct ck_stack_entry *e)
{
    __tsan_release(e);
    ck_stack_push_mpmc(&s->top, e);
}

struct ck_stack_entry *stack_pop(struct stack *s)
{
    struct ck_stack_entry *e = ck_stack_pop_mpmc(&s->top);
    if (e)
        __tsan_acquire(e);
    return e;
}
