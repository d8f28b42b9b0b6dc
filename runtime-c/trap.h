/* What the run-time support of wasm2c calls at a trap of the engine. */
#ifndef TRAP_H
#define TRAP_H

/*
 * Ends the process: a trap is a bug of the engine, whose memory cannot be trusted afterwards. May run in a signal
 * handler.
 */
__attribute__((noreturn)) void core_trap(int code);

#endif
