/* kcptun-wasm-native -c FILE: a client or a server, with the engine as native code (README.md). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "clock.h"
#include "config.h"
#include "engine.h"
#include "identity.h"
#include "log.h"
#include "loop.h"
#include "resolver.h"
#include "tcp.h"
#include "udp.h"

/* The target is looked up again after a failed dial, at most this often. */
#define TARGET_PAUSE_NS (10 * NS_PER_SECOND)
/* Until the next attempt to open a socket for the peer. */
#define PEER_PAUSE_NS (5 * NS_PER_SECOND)

static struct config config;
static struct address peer;
static struct address bind_address;

static void on_peer(struct lookup *lookup);
static void on_target(struct lookup *lookup);
static struct lookup peer_lookup = {.what = "kcp_connect", .on_done = on_peer};
static struct lookup target_lookup = {.what = "connect", .on_done = on_target};

/* Without kcp_bind a client is bound to the wildcard address of its peer's family. */
static void choose_bind(int family) {
  if (!config.has_kcp_bind) bind_address = (struct address){.family = (uint8_t)family};
}

/*
 * Chooses the address in use if the name still has it, else the first one that the socket can reach.
 * Returns false if there is none.
 */
static bool choose_peer(const struct lookup *lookup, struct address *chosen) {
  chosen->family = 0;
  for (int i = 0; i < lookup->count; i++) {
    struct address one = lookup->found[i];
    if (config.has_kcp_bind && bind_address.family == 6) address_map(&one);
    if (config.has_kcp_bind && one.family != bind_address.family) continue;
    bool is_used = memcmp(&one, &peer, sizeof peer) == 0;
    if (is_used || chosen->family == 0) *chosen = one;
    if (is_used) break;
  }
  return chosen->family != 0;
}

static void on_peer(struct lookup *lookup) {
  char text[ADDRESS_TEXT_BYTES];
  struct address found;
  if (!choose_peer(lookup, &found)) {
    log_line(LOG_ERROR, "kcp_connect: %s has no address of the family of kcp_bind", lookup->name.host);
    return;
  }
  if (memcmp(&found, &peer, sizeof peer) == 0) return;
  bool is_other_family = found.family != peer.family;
  peer = found;
  if (is_other_family) {
    choose_bind(peer.family);
    if (!engine_configure(&config, peer.family) || !udp_open(&config, &bind_address, &peer)) {
      peer.family = 0;
      lookup->retry.at = clock_ns() + PEER_PAUSE_NS;
      return;
    }
  } else {
    udp_set_peer(&peer);
  }
  log_line(LOG_NOTICE, "udp peer: %s", address_text(&peer, text));
  engine_set_peer(&peer);
}

static void on_silence(void) { lookup_start(&peer_lookup); }

static void on_target(struct lookup *lookup) { tcp_set_target(&config, lookup->found, lookup->count); }

static void on_unreachable(void) {
  static uint64_t last;
  uint64_t now = clock_ns();
  if (last != 0 && now - last < TARGET_PAUSE_NS) return;
  last = now;
  lookup_start(&target_lookup);
}

static bool resolve_local(const char *key, const struct host_port *name, struct address *out) {
  const char *reason = resolve_bind(name, out);
  if (reason != NULL) log_line(LOG_ERROR, "config key %s: cannot resolve %s: %s", key, name->host, reason);
  return reason == NULL;
}

static bool start_client(void) {
  struct address local;
  if (!resolve_local("listen", &config.listen, &local)) return false;
  choose_bind(4);
  if (!engine_configure(&config, bind_address.family) || !tcp_listen(&config, &local)) return false;
  peer_lookup.name = config.kcp_connect;
  engine_on_silence = on_silence;
  if (!lookup_open(&peer_lookup)) return false;
  lookup_start(&peer_lookup);
  return true;
}

static bool start_server(void) {
  if (!engine_configure(&config, bind_address.family) || !udp_open(&config, &bind_address, NULL)) return false;
  target_lookup.name = config.connect;
  tcp_on_unreachable = on_unreachable;
  if (!lookup_open(&target_lookup)) return false;
  lookup_start(&target_lookup);
  return true;
}

/* Each connection takes a descriptor. */
static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) log_line(LOG_WARNING, "descriptor limit: %s", strerror(errno));
}

static bool start(const char *path) {
  if (!crypto_init()) {
    log_line(LOG_ERROR, "libsodium cannot be used");
    return false;
  }
  if (!config_read(path, &config)) return false;
  crypto_use(config.method, config.key);
  config_wipe(&config);
  raise_descriptor_limit();
  if (config.has_kcp_bind && !resolve_local("kcp_bind", &config.kcp_bind, &bind_address)) return false;
  if (!loop_open() || !engine_open()) return false;
  if (!(config.is_client ? start_client() : start_server())) return false;
  return config.user == NULL || identity_drop(config.user);
}

static int usage(FILE *to, int status) {
  fputs("usage: kcptun-wasm-native -c FILE\n"
        "A client or server of a kcptun tunnel. FILE is JSON with keys of kcptun-libev.\n"
        "  -c FILE  the configuration\n"
        "  -h       this text\n",
        to);
  return status;
}

int main(int argc, char **argv) {
  const char *path = NULL;
  for (int option; (option = getopt(argc, argv, "c:h")) != -1;) {
    if (option == 'c') path = optarg;
    else if (option == 'h') return usage(stdout, 0);
    else return usage(stderr, 2);
  }
  if (path == NULL || optind != argc) return usage(stderr, 2);
  if (!start(path)) return 1;
  log_line(LOG_NOTICE, "%s start", config.is_client ? "client" : "server");
  int signal = loop_run(engine_drain);
  tcp_close();
  udp_close();
  crypto_wipe();
  log_line(LOG_NOTICE, "stop: %s", signal > 0 ? strsignal(signal) : "failure");
  return signal > 0 ? 0 : 1;
}
