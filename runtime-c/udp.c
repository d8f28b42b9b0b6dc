#include "udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "crypto.h"
#include "engine.h"
#include "local_address.h"
#include "log.h"
#include "loop.h"
#include "udp_send.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* Messages per receive call. With UDP_GRO one message can hold the datagrams of 64 KiB. */
#define RX_MESSAGES 16
#define RX_MESSAGE_BYTES 65536
/* Receive calls of one turn, before TCP gets its turn. */
#define RX_CALLS 4
/* Wanted when the configuration sets none, as far as the system permits. */
#define DEFAULT_RCVBUF (4 << 20)

#define RX_WORD(field) ((field)*4u)
#define RX_BYTES 48u
#define RX_ADDRESS 16u

static void on_ready(struct watch *watch, uint32_t events);

static struct watch socket_watch = {.fd = -1, .on_ready = on_ready};
static struct address only_peer;

/* Staging memory: datagrams are opened from here into the engine's memory. Only touched pages are resident. */
static uint8_t staging[RX_MESSAGES][RX_MESSAGE_BYTES];
static struct mmsghdr messages[RX_MESSAGES];
static struct iovec vectors[RX_MESSAGES];
static struct sockaddr_storage senders[RX_MESSAGES];
static _Alignas(struct cmsghdr) uint8_t controls[RX_MESSAGES][CMSG_SPACE(sizeof(int)) + LOCAL_CONTROL_BYTES];

static uint32_t rx_count;

/* Sets a buffer size, which the system limits. 0 = the system's default. */
static void set_buffer(int fd, int option, uint32_t bytes, const char *key) {
  if (bytes == 0) return;
  int wanted = (int)bytes;
  int actual = 0;
  socklen_t length = sizeof actual;
  if (setsockopt(fd, SOL_SOCKET, option, &wanted, sizeof wanted) != 0 ||
      getsockopt(fd, SOL_SOCKET, option, &actual, &length) != 0)
    log_line(LOG_WARNING, "%s = %u: %s", key, bytes, strerror(errno));
  /* the kernel doubles it for its own overhead */
  else if (actual / 2 < wanted && strcmp(key, "") != 0)
    log_line(LOG_WARNING, "config key %s = %u: the system permits %d", key, bytes, actual / 2);
}

static bool set_options(int fd, const struct config *config, int family) {
  const int on = 1;
  const int off = 0;
  if (config->udp_reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) return false;
  if (family == 6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) return false;
  set_buffer(fd, SO_SNDBUF, config->udp_sndbuf, "udp.sndbuf");
  if (config->udp_rcvbuf > 0) set_buffer(fd, SO_RCVBUF, config->udp_rcvbuf, "udp.rcvbuf");
  else set_buffer(fd, SO_RCVBUF, DEFAULT_RCVBUF, "");
  /* an old kernel delivers single datagrams */
  bool has_gro = config->udp_gro && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0;
  log_line(LOG_INFO, "udp: recvmmsg%s, sendmmsg", has_gro ? " with UDP_GRO" : "");
  return true;
}

static void prepare(int i) {
  messages[i].msg_hdr = (struct msghdr){
      .msg_name = &senders[i],
      .msg_namelen = sizeof senders[i],
      .msg_iov = &vectors[i],
      .msg_iovlen = 1,
      .msg_control = controls[i],
      .msg_controllen = sizeof controls[i],
  };
}

bool udp_open(const struct config *config, const struct address *bind_address, const struct address *peer) {
  char text[ADDRESS_TEXT_BYTES];
  struct sockaddr_storage local = {0};
  socklen_t length = address_to_socket(bind_address, &local);
  udp_close();
  int fd = socket(local.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || !set_options(fd, config, bind_address->family) || bind(fd, (struct sockaddr *)&local, length) != 0 ||
      getsockname(fd, (struct sockaddr *)&local, &length) != 0) {
    log_line(LOG_ERROR, "udp: cannot open %s: %s", address_text(bind_address, text), strerror(errno));
    if (fd >= 0) close(fd);
    return false;
  }
  static const uint8_t wildcard[sizeof bind_address->ip];
  /* a client has one path, which follows the routes */
  local_open(fd, bind_address->family, peer == NULL && memcmp(bind_address->ip, wildcard, sizeof wildcard) == 0);
  socket_watch.fd = fd;
  if (!loop_watch(&socket_watch, EPOLLIN)) {
    log_line(LOG_ERROR, "udp: %s", strerror(errno));
    udp_close();
    return false;
  }
  udp_send_attach(&socket_watch, config->udp_gso);
  for (int i = 0; i < RX_MESSAGES; i++) {
    vectors[i] = (struct iovec){.iov_base = staging[i], .iov_len = RX_MESSAGE_BYTES};
    prepare(i);
  }
  if (peer != NULL) only_peer = *peer;
  struct address bound;
  if (address_from_socket(&local, &bound)) log_line(LOG_NOTICE, "udp bind: %s", address_text(&bound, text));
  return true;
}

void udp_set_peer(const struct address *peer) { only_peer = *peer; }

void udp_close(void) {
  if (socket_watch.fd < 0) return;
  udp_send_attach(NULL, false);
  loop_unwatch(&socket_watch);
  close(socket_watch.fd);
  socket_watch.fd = -1;
}

static void flush(void) {
  if (rx_count == 0) return;
  core_handle_datagrams(&engine, rx_count, clock_ticks());
  rx_count = 0;
}

/* Passes one datagram to the engine, which counts those that are dropped, too. */
static void take(const uint8_t *datagram, size_t length, const struct address *from) {
  uint32_t slot = (uint32_t)core_rx_ptr(&engine) + rx_count * RX_BYTES;
  bool is_known = only_peer.family == 0 || memcmp(from, &only_peer, sizeof *from) == 0;
  bool is_open = is_known && length <= KCPTUN_MAX_DATAGRAM_BYTES &&
                 crypto_open(core_at(&engine, core_load(&engine, slot + RX_WORD(0))), datagram, length);
  core_store(&engine, slot + RX_WORD(2), (uint32_t)length);
  core_store(&engine, slot + RX_WORD(3), is_open);
  memcpy(core_at(&engine, slot + RX_ADDRESS), from, sizeof *from);
  if (++rx_count == KCPTUN_RX_SLOTS) flush();
}

/* Returns the size of the datagrams of a merged message, 0 = it is one; sets the local address it was sent to. */
static size_t read_control(struct msghdr *header, uint8_t *local) {
  size_t step = 0;
  for (struct cmsghdr *entry = CMSG_FIRSTHDR(header); entry != NULL; entry = CMSG_NXTHDR(header, entry)) {
    if (entry->cmsg_level != IPPROTO_UDP || entry->cmsg_type != UDP_GRO) {
      *local = local_read(entry);
      continue;
    }
    int size;
    memcpy(&size, CMSG_DATA(entry), sizeof size);
    if (size > 0) step = (size_t)size;
  }
  return step;
}

static void deliver(int i) {
  struct address from;
  size_t length = messages[i].msg_len;
  uint8_t local = 0;
  size_t step = read_control(&messages[i].msg_hdr, &local);
  bool is_known = address_from_socket(&senders[i], &from);
  from.local = local;
  prepare(i);
  if (!is_known) return;
  if (step == 0) step = length;
  size_t offset = 0;
  do {
    size_t bytes = length - offset < step ? length - offset : step;
    take(staging[i] + offset, bytes, &from);
    offset += step;
  } while (offset < length);
}

static void receive(void) {
  for (int call = 0; call < RX_CALLS; call++) {
    int count = recvmmsg(socket_watch.fd, messages, RX_MESSAGES, MSG_DONTWAIT, NULL);
    if (count < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      /* an ICMP error of an earlier datagram, which is cleared by this; there may be datagrams behind it */
      continue;
    }
    for (int i = 0; i < count; i++) deliver(i);
    if (count < RX_MESSAGES) break;
  }
  flush();
}

static void on_ready(struct watch *watch, uint32_t events) {
  (void)watch;
  if (events & EPOLLOUT) udp_send_unblock();
  if (events & ~(uint32_t)EPOLLOUT) receive();
}
