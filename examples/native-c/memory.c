/*
 * Two endpoints in one process: a client sends a message, a server answers it in capitals, and the datagrams between
 * them are copied in memory, in virtual time. Written from docs/abi.md. To build it after `npm run build:native`:
 *
 *   cc -O1 -ffp-contract=off -w -Idist -Idist/native -Iruntime-c -include trap.h \
 *     -DWASM_RT_TRAP_HANDLER=core_trap -o memory examples/native-c/memory.c runtime-c/core.c \
 *     dist/native/core_module.c /usr/share/wabt/wasm2c/wasm-rt-*impl.c -lm
 */
#include <ctype.h>
#include <stdio.h>
#include <sys/random.h>

#include "core.h"

struct endpoint {
  core_t core;
  struct endpoint *peer;
  uint32_t stream;
  const char *name;
};

static uint32_t now;
static int is_done;

static void check(int is_good, const char *what) {
  if (is_good) return;
  fprintf(stderr, "%s failed\n", what);
  _Exit(1);
}

static void open_endpoint(struct endpoint *end, uint32_t mode) {
  core_t *core = &end->core;
  check(core_open(core) == 0, "ABI version");
  check(getrandom(core_at(core, core_entropy_ptr(core)), 256, 0) == 256, "getrandom");
  core_entropy_filled(core, 256);
  /* no method: plaintext; what the engine can choose it chooses; mtu, times, and limits */
  uint32_t config[KCPTUN_CONFIG_FIELDS] = {mode, 0, 0, 0, 1372};
  memset(config + KCPTUN_CONFIG_SNDWND, 0xff, sizeof *config * (KCPTUN_CONFIG_TIMEOUT - KCPTUN_CONFIG_SNDWND));
  const uint32_t rest[] = {600, 30, 0, 120, 64u << 20, 16, 0, 16, 0};
  memcpy(config + KCPTUN_CONFIG_TIMEOUT, rest, sizeof rest);
  memcpy(core_at(core, core_config_ptr(core)), config, sizeof config);
  check(core_configure(core, now) == 0, "configure");
}

static void send_message(struct endpoint *end, const char *text) {
  core_t *core = &end->core;
  check(core_stream_reserve(core, end->stream, (uint32_t)strlen(text)) == 1, "stream_reserve");
  memcpy(core_at(core, core_load(core, core_spans_ptr(core))), text, strlen(text));
  check(core_stream_commit(core, end->stream, (uint32_t)strlen(text), now) == 0, "stream_commit");
}

static void receive_message(struct endpoint *end) {
  core_t *core = &end->core;
  if (core_stream_peek(core, end->stream) <= 0) return;
  char text[64];
  uint32_t length = core_load(core, core_spans_ptr(core) + 4);
  snprintf(text, sizeof text, "%.*s", (int)length, (char *)core_at(core, core_load(core, core_spans_ptr(core))));
  printf("%s received: %s\n", end->name, text);
  core_stream_consume(core, end->stream, length, now);
  is_done = strcmp(end->name, "client") == 0;
  if (is_done) return;
  for (char *c = text; *c; c++) *c = (char)toupper(*c);
  send_message(end, text);
}

/* Copies what the endpoint sends into receive descriptors of its peer, from the address that the peer knows. */
static void transmit(struct endpoint *end) {
  core_t *from = &end->core, *to = &end->peer->core;
  for (int32_t count; (count = core_poll_transmit(from, KCPTUN_TX_SLOTS, now)) > 0;) {
    for (int32_t i = 0; i < count; i++) {
      uint32_t tx = core_tx_ptr(from) + 32 * i, rx = core_rx_ptr(to) + 48 * i, length = core_load(from, tx + 4);
      memcpy(core_at(to, core_load(to, rx)), core_at(from, core_load(from, tx)), length);
      const uint32_t head[6] = {length, 1, 4 | 1000u << 16, 0, 0x0100007f};
      memcpy(core_at(to, rx + 8), head, sizeof head);
    }
    core_handle_datagrams(to, (uint32_t)count, now);
  }
}

static void handle_events(struct endpoint *end) {
  for (int32_t count = core_poll_events(&end->core), i = 0; i < count; i++) {
    uint32_t event = core_events_ptr(&end->core) + 16 * i, type = core_load(&end->core, event);
    if (type == KCPTUN_EVENT_DIAL) {
      end->stream = core_load(&end->core, event + 4);
      core_stream_connected(&end->core, end->stream, 1, now);
    }
    if (type == KCPTUN_EVENT_READABLE) receive_message(end);
  }
}

int main(void) {
  static struct endpoint client = {.name = "client"}, server = {.name = "server", .peer = &client};
  client.peer = &server;
  open_endpoint(&client, KCPTUN_MODE_CLIENT);
  open_endpoint(&server, KCPTUN_MODE_SERVER);
  const uint32_t address[6] = {4 | 1000u << 16, 0, 0x0100007f};
  memcpy(core_at(&client.core, core_peer_ptr(&client.core)), address, sizeof address);
  core_set_peer(&client.core, now);
  check((int32_t)(client.stream = core_stream_open(&client.core, now)) > 0, "stream_open");
  send_message(&client, "hello");
  for (; !is_done && now < 8000; now++) {
    struct endpoint *ends[] = {&client, &server};
    for (int i = 0; i < 2; i++) {
      core_handle_timeout(&ends[i]->core, now);
      transmit(ends[i]);
      handle_events(ends[i]);
    }
  }
  return is_done ? 0 : 1;
}
