/* The UDP socket: datagrams between it and the engine. */
#ifndef UDP_H
#define UDP_H

#include <stdbool.h>

#include "address.h"
#include "config.h"

/*
 * Opens the socket, in place of the one before.
 * @param peer client: the only address that datagrams are taken from; NULL = any
 * Returns false, and logs why, if the system refuses; the one before is closed then, too.
 */
bool udp_open(const struct config *config, const struct address *bind, const struct address *peer);

/* Client: another address of the same family is the peer. */
void udp_set_peer(const struct address *peer);

/* Sends what the engine has. Returns false if the socket had no room for all of it. */
bool udp_transmit(void);

void udp_close(void);

#endif
