#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "clock.h"
#include "log.h"
#include "loop.h"
#include "tcp.h"
#include "udp.h"

/* Written at a time; the block holds more, but each page of it that is touched stays resident. */
#define ENTROPY_BYTES 8192
/* Nonces remembered at least. 2 MiB, an eighth of what the other hosts take: with fewer, more sessions are confirmed. */
#define REPLAY_SERVER (1u << 17)
#define REPLAY_CLIENT (1u << 14)
#define MAX_HALF_OPEN 16384
#define MIB_BYTES (1u << 20)
/* IP and UDP headers. */
#define HEADER_BYTES_4 28
#define HEADER_BYTES_6 48

/* Rounds of a drain before other descriptors get their turn. */
#define DRAIN_ROUNDS 64
#define EVENT_WORDS 4

core_t engine;
void (*engine_on_silence)(void);
static void on_due(struct timer *timer);
static struct timer timeout = {.at = TIMER_OFF, .on_due = on_due};

bool engine_open(void) {
  if (core_open(&engine) != 0) {
    log_line(LOG_ERROR, "core.wasm has ABI version %d, not %d", core_abi_version(&engine), KCPTUN_ABI_VERSION);
    return false;
  }
  loop_add_timer(&timeout);
  return true;
}

void engine_refill(void) {
  uint8_t *to = core_at(&engine, core_entropy_ptr(&engine));
  size_t filled = 0;
  while (filled < ENTROPY_BYTES) {
    ssize_t bytes = getrandom(to + filled, ENTROPY_BYTES - filled, 0);
    if (bytes > 0) filled += (size_t)bytes;
    else if (errno != EINTR) {
      /* nothing may be sent with predictable nonces */
      log_line(LOG_FATAL, "getrandom: %s", strerror(errno));
      exit(1);
    }
  }
  core_entropy_filled(&engine, ENTROPY_BYTES);
}

static const char *const field_names[KCPTUN_CONFIG_FIELDS] = {
    [KCPTUN_CONFIG_KCP_MTU] = "kcp.mtu",
    [KCPTUN_CONFIG_SNDWND] = "kcp.sndwnd",
    [KCPTUN_CONFIG_RCVWND] = "kcp.rcvwnd",
    [KCPTUN_CONFIG_MEMORY_CEILING] = "memory",
};

bool engine_configure(const struct config *config, int family) {
  uint32_t nonce_bytes = config->method ? config->method->nonce_bytes : 0;
  uint32_t tag_bytes = config->method ? CRYPTO_TAG_BYTES : 0;
  uint32_t replay = config->is_client ? REPLAY_CLIENT : REPLAY_SERVER;
  uint32_t headers = family == 6 ? HEADER_BYTES_6 : HEADER_BYTES_4;
  const uint32_t fields[KCPTUN_CONFIG_FIELDS] = {
      [KCPTUN_CONFIG_MODE] = config->is_client ? KCPTUN_MODE_CLIENT : KCPTUN_MODE_SERVER,
      [KCPTUN_CONFIG_TAG_BYTES] = tag_bytes,
      [KCPTUN_CONFIG_NONCE_BYTES] = nonce_bytes,
      [KCPTUN_CONFIG_NONCE_STRATEGY] = config->method ? config->method->nonce_strategy : KCPTUN_NONCE_NONE,
      [KCPTUN_CONFIG_KCP_MTU] = config->mtu - headers - tag_bytes - nonce_bytes,
      [KCPTUN_CONFIG_SNDWND] = config->sndwnd,
      [KCPTUN_CONFIG_RCVWND] = config->rcvwnd,
      [KCPTUN_CONFIG_NODELAY] = config->nodelay,
      [KCPTUN_CONFIG_INTERVAL] = config->interval,
      [KCPTUN_CONFIG_RESEND] = config->resend,
      [KCPTUN_CONFIG_NC] = config->nc,
      [KCPTUN_CONFIG_FLUSH] = config->flush,
      [KCPTUN_CONFIG_TIMEOUT] = config->timeout,
      [KCPTUN_CONFIG_LINGER] = config->linger,
      [KCPTUN_CONFIG_KEEPALIVE] = config->keepalive,
      [KCPTUN_CONFIG_TIME_WAIT] = config->time_wait,
      [KCPTUN_CONFIG_MEMORY_CEILING] = config->memory * MIB_BYTES,
      [KCPTUN_CONFIG_MAX_SESSIONS] = config->max_sessions,
      [KCPTUN_CONFIG_REPLAY_CAPACITY] = config->method ? replay : 0,
      [KCPTUN_CONFIG_MAX_HALF_OPEN] = config->max_sessions < MAX_HALF_OPEN ? config->max_sessions : MAX_HALF_OPEN,
      [KCPTUN_CONFIG_CONFIRM] = config->is_replay_strict,
      [KCPTUN_CONFIG_SEND_ONCE] = !config->redundancy,
  };
  memcpy(core_at(&engine, core_config_ptr(&engine)), fields, sizeof fields);
  int32_t result = core_configure(&engine, clock_ticks());
  if (result == KCPTUN_E_ENTROPY) {
    engine_refill();
    result = core_configure(&engine, clock_ticks());
  }
  if (result == 0) return true;
  int field = KCPTUN_E_CONFIG - result;
  bool is_field = field >= 0 && field < KCPTUN_CONFIG_FIELDS;
  const char *name = is_field && field_names[field] ? field_names[field] : "";
  log_line(LOG_ERROR, "the engine refuses the configuration: %s (error %d)", name, result);
  return false;
}

void engine_set_peer(const struct address *peer) {
  memcpy(core_at(&engine, core_peer_ptr(&engine)), peer, sizeof *peer);
  core_set_peer(&engine, clock_ticks());
}

static void on_event(const uint32_t event[EVENT_WORDS]) {
  static struct log_limit mtu_limit;
  switch (event[0]) {
  case KCPTUN_EVENT_PONG:
    log_line(LOG_DEBUG, "the peer answered a ping in %u.%u ms", event[2] / 8, event[2] % 8 * 10 / 8);
    break;
  case KCPTUN_EVENT_RESOLVE:
    if (engine_on_silence != NULL) engine_on_silence();
    break;
  case KCPTUN_EVENT_MTU:
    log_limited(&mtu_limit, LOG_WARNING, "large datagrams are lost: the limit is %u bytes now; see kcp.mtu", event[2]);
    break;
  default: tcp_on_event(event[0], event[1], event[2]); break;
  }
}

/* Returns the number of events. */
static int32_t handle_events(void) {
  static uint32_t events[KCPTUN_EVENT_SLOTS][EVENT_WORDS];
  int32_t count = core_poll_events(&engine);
  if (count <= 0) return 0;
  /* handlers call the engine */
  memcpy(events, core_at(&engine, core_events_ptr(&engine)), (size_t)count * sizeof events[0]);
  for (int32_t i = 0; i < count; i++) on_event(events[i]);
  return count;
}

static void on_due(struct timer *timer) {
  (void)timer;
  core_handle_timeout(&engine, clock_ticks());
}

void engine_drain(void) {
  for (int round = 0; round < DRAIN_ROUNDS; round++) {
    bool is_sent = udp_transmit();
    if (handle_events() > 0) continue;
    if (!is_sent) {
      /* next_timeout is for a drained engine; the socket continues when there is room */
      timeout.at = TIMER_OFF;
      return;
    }
    uint64_t now = clock_ns();
    int32_t ticks = core_next_timeout(&engine, (uint32_t)(now / NS_PER_TICK));
    timeout.at = ticks < 0 ? TIMER_OFF : now + (uint64_t)ticks * NS_PER_TICK;
    return;
  }
  timeout.at = 0;
}
