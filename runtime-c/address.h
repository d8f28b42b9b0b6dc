/* IP addresses with a port, in the form of the engine's address records. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* An address record (docs/abi.md); family 0 = none. The bytes behind an IPv4 address are 0, so memcmp compares. */
struct address {
  uint8_t family;
  uint8_t local;
  uint16_t port;
  uint32_t scope;
  uint8_t ip[16];
};
_Static_assert(sizeof(struct address) == 24, "the engine's address record");

/* A host, name or literal, and a port. */
struct host_port {
  char host[256];
  uint16_t port;
};

#define ADDRESS_TEXT_BYTES 72

/* Returns the length of the socket address, 0 if `address` is none. */
socklen_t address_to_socket(const struct address *address, struct sockaddr_storage *out);

/* Returns false for another family than IPv4 and IPv6. */
bool address_from_socket(const struct sockaddr_storage *from, struct address *out);

/* Turns an IPv4 address into the IPv6 address by which an IPv6 socket reaches it; leaves others. */
void address_map(struct address *address);

/* `ip:port` or `[ip]:port`, written to `text` of ADDRESS_TEXT_BYTES, which is returned. */
const char *address_text(const struct address *address, char *text);

/*
 * Splits `host:port`. An empty host or `*` is the IPv4 wildcard of a bind address and an error elsewhere. Returns NULL,
 * or the reason why it cannot be.
 */
const char *address_split(const char *text, bool is_bind, struct host_port *out);

#endif
