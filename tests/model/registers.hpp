// Reserves the registers that a callee preserves. What they hold of a caller's past would be saved
// in the frames of those that it calls, and be a difference between states that have none. Given to
// the compiler before each source that runs in a fiber; clang, which only reads them, has no need.
#pragma once

#if !defined(__clang__) && defined(__x86_64__)
register unsigned long kept_rbx asm("rbx");
register unsigned long kept_r12 asm("r12");
register unsigned long kept_r13 asm("r13");
register unsigned long kept_r14 asm("r14");
register unsigned long kept_r15 asm("r15");
#endif
