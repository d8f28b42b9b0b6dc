/* What the run-time support of wasm2c calls at a trap of the engine. */
#ifndef TRAP_H
#define TRAP_H

#include "wasm-rt.h"

/*
 * Ends the process: a trap is a bug of the engine, whose memory cannot be trusted afterwards. May run in a signal
 * handler.
 */
__attribute__((noreturn)) void core_trap(wasm_rt_trap_t code);

#endif
