#include "config_keys.h"

#include "kcptun_core.h"

#define INTEGER(group, name, field, min, max, fallback) \
  { group, name, KEY_INTEGER, offsetof(struct config, field), min, max, fallback }
#define BOOLEAN(group, name, field, fallback) \
  { group, name, KEY_BOOLEAN, offsetof(struct config, field), 0, 1, fallback }
#define STRING(group, name) \
  { group, #name, KEY_STRING, offsetof(struct config_texts, name), 0, 0, 0 }

#define BUFFER_MAX 33554432

const struct config_key config_keys[] = {
    STRING(NULL, listen),
    STRING(NULL, connect),
    STRING(NULL, kcp_bind),
    STRING(NULL, kcp_connect),
    STRING(NULL, method),
    STRING(NULL, psk),
    STRING(NULL, password),
    STRING(NULL, replay),
    STRING(NULL, user),
    INTEGER("kcp", "mtu", mtu, 300, 1500, 1400),
    INTEGER("kcp", "sndwnd", sndwnd, 16, 65536, KCPTUN_UNSET),
    INTEGER("kcp", "rcvwnd", rcvwnd, 16, 65536, KCPTUN_UNSET),
    INTEGER("kcp", "nodelay", nodelay, 0, 2, KCPTUN_UNSET),
    INTEGER("kcp", "interval", interval, 10, 500, KCPTUN_UNSET),
    INTEGER("kcp", "resend", resend, 0, 100, KCPTUN_UNSET),
    INTEGER("kcp", "nc", nc, 0, 1, KCPTUN_UNSET),
    INTEGER("kcp", "flush", flush, 0, 2, KCPTUN_UNSET),
    BOOLEAN("kcp", "redundancy", redundancy, 1),
    INTEGER(NULL, "timeout", timeout, 60, 86400, 600),
    INTEGER(NULL, "linger", linger, 5, 600, 30),
    INTEGER(NULL, "keepalive", keepalive, 0, 600, 25),
    INTEGER(NULL, "time_wait", time_wait, 5, 3600, 120),
    INTEGER(NULL, "memory", memory, 16, 2048, 512),
    INTEGER(NULL, "max_sessions", max_sessions, 1, 65535, 65535),
    INTEGER(NULL, "loglevel", loglevel, 0, 8, 4),
    BOOLEAN("tcp", "reuseport", tcp_reuseport, 0),
    BOOLEAN("tcp", "keepalive", tcp_keepalive, 0),
    BOOLEAN("tcp", "nodelay", tcp_nodelay, 1),
    INTEGER("tcp", "sndbuf", tcp_sndbuf, 0, BUFFER_MAX, 0),
    INTEGER("tcp", "rcvbuf", tcp_rcvbuf, 0, BUFFER_MAX, 0),
    BOOLEAN("udp", "reuseport", udp_reuseport, 0),
    INTEGER("udp", "sndbuf", udp_sndbuf, 0, BUFFER_MAX, 0),
    INTEGER("udp", "rcvbuf", udp_rcvbuf, 0, BUFFER_MAX, 0),
    STRING("udp", gso),
    STRING("udp", gro),
};

const size_t config_key_count = sizeof config_keys / sizeof config_keys[0];

const char *const config_refused_keys[] = {"obfs", "rendezvous_server", "netdev", "fwmark", "workers", NULL};
