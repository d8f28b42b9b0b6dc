/* The sending side of the UDP socket. */
#ifndef UDP_SEND_H
#define UDP_SEND_H

#include <stdbool.h>

#include "loop.h"

/* Sends by another socket from now on, NULL = by none: what the engine sends is dropped then. */
void udp_send_attach(struct watch *watch, bool has_segments);

/* The socket has room again. */
void udp_send_unblock(void);

#endif
