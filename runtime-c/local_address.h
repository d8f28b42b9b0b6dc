/*
 * The local addresses at which a wildcard socket was reached, by number. Address records of peers contain that number,
 * so the answer to a peer leaves from the address that the peer asked.
 */
#ifndef LOCAL_ADDRESS_H
#define LOCAL_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Room for the control message of local_write. */
#define LOCAL_CONTROL_BYTES CMSG_SPACE(sizeof(struct in6_pktinfo))

/* Begins anew for a socket of this family; asks the system for the addresses if `is_wanted`. */
void local_open(int fd, int family, bool is_wanted);

/*
 * Number of the local address in a control message, 0 = it holds none, or one that gets no number: the system selects
 * the source of answers.
 */
uint8_t local_read(const struct cmsghdr *entry);

/* Whether answers to peers at this number leave from its address. */
bool local_is_known(uint8_t number);

/* Writes the control message that selects the address of a number that is known. */
void local_write(uint8_t number, struct cmsghdr *entry);

/* The address has vanished. */
void local_forget(uint8_t number);

#endif
