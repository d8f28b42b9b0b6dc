/* The configuration file: JSON with keys of kcptun-libev (README.md has the list). */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "crypto.h"

struct config {
  bool is_client;
  /* Client: listen and kcp_connect. Server: kcp_bind and connect. */
  struct host_port listen;
  struct host_port connect;
  struct host_port kcp_bind;
  struct host_port kcp_connect;
  bool has_kcp_bind;
  /* NULL = plaintext */
  const struct method *method;
  uint8_t key[CRYPTO_KEY_BYTES];
  /* Keys of `kcp`; KCPTUN_UNSET = the engine chooses. */
  uint32_t mtu, sndwnd, rcvwnd, nodelay, interval, resend, nc, flush;
  bool redundancy;
  /* s */
  uint32_t timeout, linger, keepalive, time_wait;
  /* MiB */
  uint32_t memory;
  uint32_t max_sessions;
  bool is_replay_strict;
  /* Socket buffers in bytes, 0 = the system's. */
  uint32_t tcp_sndbuf, tcp_rcvbuf, udp_sndbuf, udp_rcvbuf;
  bool tcp_reuseport, tcp_keepalive, tcp_nodelay, udp_reuseport;
  bool udp_gso, udp_gro;
  uint32_t loglevel;
  /* `user`, `user:`, `user:group` or `:group`; NULL = stay. */
  char *user;
};

/*
 * Reads a file. Warnings go to the log, after `loglevel` of the file is in force. Returns false for an error, which is
 * logged with key, value and reason.
 */
bool config_read(const char *path, struct config *config);

/* Overwrites the key. */
void config_wipe(struct config *config);

#endif
