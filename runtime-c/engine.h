/* The engine as the host uses it: configuration, random bytes, and the drain of docs/abi.md. */
#ifndef ENGINE_H
#define ENGINE_H

#include "address.h"
#include "config.h"
#include "core.h"

/* The one engine of the process. */
extern core_t engine;

/* Creates the engine. Returns false, and logs why, if it cannot. */
bool engine_open(void);

/*
 * Applies the configuration. `family` is that of the network, which determines the bytes of a segment.
 * Returns false, and logs why, if the engine refuses.
 */
bool engine_configure(const struct config *config, int family);

/* Writes fresh random bytes for the engine. */
void engine_refill(void);

/* Client: sets the address of the server. */
void engine_set_peer(const struct address *peer);

/* Sends what waits, handles events and sets the timer. Called after all other calls of a turn of the loop. */
void engine_drain(void);

/* Set by the owner: RESOLVE was reported. */
extern void (*engine_on_silence)(void);

#endif
