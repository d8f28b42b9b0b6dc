/* TCP connections of applications and to the target, each with a session of the engine. */
#ifndef TCP_H
#define TCP_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "config.h"

/* Client: listens for applications. Returns false, and logs why, if the system refuses. */
bool tcp_listen(const struct config *config, const struct address *address);

/* Server: sets the addresses of the target, which are tried in order. */
void tcp_set_target(const struct config *config, const struct address *addresses, int count);

/* Server, set by the owner: no address of the target could be connected to. */
extern void (*tcp_on_unreachable)(void);

/* Handles an event of the engine; unknown types and handles are ignored. */
void tcp_on_event(uint32_t type, uint32_t handle, uint32_t argument);

/* Resets all connections and stops listening. */
void tcp_close(void);

#endif
