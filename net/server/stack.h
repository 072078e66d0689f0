/* A stack that any thread pushes on and pops from without a lock (the staging pool's free pieces):
 * Concurrency Kit's, behind functions of our own, because the thread sanitizer does not know its
 * assembler. What is on a stack must stay mapped as long as the stack is used: a pop may look at an
 * entry that another thread has just taken, and then finds by the generation that it has to try again.
 *
 * Memory order: what was written before a push is seen after the pop that returns that entry.
 */
#ifndef NET_SERVER_STACK_H
#define NET_SERVER_STACK_H

#include <ck_stack.h>

struct stack {
    _Alignas(64) struct ck_stack top; /* two words, compared and swapped at once: 16-byte aligned */
};

void stack_push(struct stack *s, struct ck_stack_entry *e);
struct ck_stack_entry *stack_pop(struct stack *s); /* NULL: empty */

#endif
