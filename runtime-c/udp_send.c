#include "udp_send.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "clock.h"
#include "crypto.h"
#include "engine.h"
#include "log.h"
#include "udp.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* The kernel's limits of a message with UDP_SEGMENT: the number, and an IP packet less headers. */
#define SEGMENTS_MAX 64
#define RUN_BYTES_MAX 65000
/* After ENOBUFS, which is not followed by readiness. */
#define PAUSE_NS (5 * NS_PER_MS)

/* Words of a transmit descriptor (docs/abi.md, Tx). */
enum { TX_SOURCE, TX_LENGTH, TX_OUT, TX_NONCE, TX_ADDRESS, TX_HANDLE, TX_FLAGS, TX_WORDS = 8 };
#define TX_PROBE 1u
#define TX_JOINS 2u

/* A datagram that found no room in the socket. */
struct waiting {
  struct address to;
  uint32_t length;
  uint8_t bytes[KCPTUN_MAX_DATAGRAM_BYTES];
};

static void on_pause_end(struct timer *timer);

static struct watch *socket_watch;
static bool uses_segments;

static struct mmsghdr messages[KCPTUN_TX_SLOTS];
static struct iovec vectors[KCPTUN_TX_SLOTS];
static struct address receivers[KCPTUN_TX_SLOTS];
static struct sockaddr_storage names[KCPTUN_TX_SLOTS];
static _Alignas(struct cmsghdr) uint8_t controls[KCPTUN_TX_SLOTS][CMSG_SPACE(sizeof(uint16_t))];

/* Datagrams of one poll_transmit at most: the engine is not asked for more before they are sent. */
static struct waiting backlog[KCPTUN_TX_SLOTS];
static size_t backlog_count;
static struct timer send_pause = {.at = TIMER_OFF, .on_due = on_pause_end};
static bool is_blocked;

void udp_send_attach(struct watch *watch, bool has_segments) {
  static bool has_timer;
  if (!has_timer) loop_add_timer(&send_pause);
  has_timer = true;
  socket_watch = watch;
  uses_segments = has_segments;
  backlog_count = 0;
  is_blocked = false;
  send_pause.at = TIMER_OFF;
}

void udp_send_unblock(void) {
  is_blocked = false;
  /* cannot fail for a descriptor that is watched */
  if (socket_watch != NULL) loop_watch(socket_watch, EPOLLIN);
}

static void on_pause_end(struct timer *timer) {
  (void)timer;
  udp_send_unblock();
}

/* The socket has no room: waits for it. */
static void block(int error) {
  is_blocked = true;
  if (error == ENOBUFS || !loop_watch(socket_watch, EPOLLIN | EPOLLOUT)) send_pause.at = clock_ns() + PAUSE_NS;
}

static bool is_full(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS; }

static void report(const struct address *to, int error) {
  static struct log_limit limit;
  char text[ADDRESS_TEXT_BYTES];
  log_limited(&limit, LOG_WARNING, "udp: cannot send to %s: %s", address_text(to, text), strerror(error));
}

/* Keeps the datagrams of the messages from `first` on. */
static void keep(int first, int count) {
  for (int i = first; i < count; i++) {
    const struct iovec *part = messages[i].msg_hdr.msg_iov;
    for (size_t left = messages[i].msg_hdr.msg_iovlen; left > 0; left--, part++) {
      struct waiting *entry = &backlog[backlog_count++];
      entry->to = receivers[part - vectors];
      entry->length = (uint32_t)part->iov_len;
      memcpy(entry->bytes, part->iov_base, part->iov_len);
    }
  }
}

/* The route does not take merged messages: sends the datagrams of one, each by itself. */
static void send_apart(struct msghdr *merged) {
  for (size_t i = 0; i < merged->msg_iovlen; i++) {
    struct msghdr single = {.msg_name = merged->msg_name,
                            .msg_namelen = merged->msg_namelen,
                            .msg_iov = &merged->msg_iov[i],
                            .msg_iovlen = 1};
    /* what fails here is lost, and sent again by the engine */
    if (sendmsg(socket_watch->fd, &single, MSG_DONTWAIT) < 0 && is_full(errno)) return;
  }
}

/* Sends messages 0..count-1. Returns false if the rest waits for room. */
static bool send_messages(int count) {
  for (int sent = 0; sent < count;) {
    int result = sendmmsg(socket_watch->fd, &messages[sent], (unsigned)(count - sent), MSG_DONTWAIT);
    if (result > 0) {
      sent += result;
      continue;
    }
    int error = errno;
    struct msghdr *header = &messages[sent].msg_hdr;
    if (error == EINTR) continue;
    if (is_full(error)) {
      keep(sent, count);
      block(error);
      return false;
    }
    if (header->msg_iovlen > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE)) {
      log_line(LOG_INFO, "udp: UDP_SEGMENT failed: %s; datagrams are sent one by one", strerror(error));
      uses_segments = false;
      send_apart(header);
    } else {
      report(&receivers[header->msg_iov - vectors], error);
    }
    sent++;
  }
  return true;
}

static void set_segment(struct msghdr *header, size_t message, uint16_t bytes) {
  header->msg_control = controls[message];
  header->msg_controllen = sizeof controls[message];
  struct cmsghdr *entry = CMSG_FIRSTHDR(header);
  entry->cmsg_level = IPPROTO_UDP;
  entry->cmsg_type = UDP_SEGMENT;
  entry->cmsg_len = CMSG_LEN(sizeof bytes);
  memcpy(CMSG_DATA(entry), &bytes, sizeof bytes);
}

/* Seals a datagram in the engine's memory. */
static struct iovec seal(const uint32_t tx[TX_WORDS]) {
  size_t overhead = crypto_overhead();
  if (overhead == 0) return (struct iovec){.iov_base = core_at(&engine, tx[TX_SOURCE]), .iov_len = tx[TX_LENGTH]};
  crypto_seal(core_at(&engine, tx[TX_OUT]), core_at(&engine, tx[TX_SOURCE]), tx[TX_LENGTH]);
  return (struct iovec){.iov_base = core_at(&engine, tx[TX_OUT]), .iov_len = tx[TX_LENGTH] + overhead};
}

/* Seals `count` datagrams and lays them out as messages. Returns the number of messages. */
static int lay_out(int32_t count) {
  const uint32_t at = (uint32_t)core_tx_ptr(&engine);
  int used = 0;
  size_t parts = 0;
  size_t run_bytes = 0;
  for (int32_t i = 0; i < count; i++) {
    uint32_t tx[TX_WORDS];
    memcpy(tx, core_at(&engine, at + (uint32_t)i * sizeof tx), sizeof tx);
    if (tx[TX_FLAGS] & TX_PROBE) continue;
    struct iovec *part = &vectors[parts];
    *part = seal(tx);
    memcpy(&receivers[parts], core_at(&engine, tx[TX_ADDRESS]), sizeof receivers[0]);
    struct msghdr *header = used > 0 ? &messages[used - 1].msg_hdr : NULL;
    if (uses_segments && header != NULL && (tx[TX_FLAGS] & TX_JOINS) && header->msg_iovlen < SEGMENTS_MAX &&
        run_bytes + part->iov_len <= RUN_BYTES_MAX) {
      if (header->msg_iovlen++ == 1) set_segment(header, (size_t)used - 1, (uint16_t)header->msg_iov->iov_len);
      run_bytes += part->iov_len;
    } else {
      socklen_t length = address_to_socket(&receivers[parts], &names[used]);
      messages[used].msg_hdr =
          (struct msghdr){.msg_name = &names[used], .msg_namelen = length, .msg_iov = part, .msg_iovlen = 1};
      used++;
      run_bytes = part->iov_len;
    }
    parts++;
  }
  return used;
}

/* Sends what waited. Returns false if it still waits. */
static bool send_backlog(void) {
  if (backlog_count == 0) return true;
  if (is_blocked) return false;
  size_t sent = 0;
  for (; sent < backlog_count; sent++) {
    struct sockaddr_storage name;
    socklen_t length = address_to_socket(&backlog[sent].to, &name);
    ssize_t result = sendto(socket_watch->fd, backlog[sent].bytes, backlog[sent].length, MSG_DONTWAIT,
                            (struct sockaddr *)&name, length);
    if (result >= 0) continue;
    if (is_full(errno)) break;
    report(&backlog[sent].to, errno);
  }
  if (sent < backlog_count) block(errno);
  backlog_count -= sent;
  memmove(backlog, backlog + sent, backlog_count * sizeof backlog[0]);
  return backlog_count == 0;
}

bool udp_transmit(void) {
  if (!send_backlog()) return false;
  for (;;) {
    int32_t count = core_poll_transmit(&engine, KCPTUN_TX_SLOTS, clock_ticks());
    if (count == KCPTUN_E_ENTROPY) {
      engine_refill();
      continue;
    }
    if (count <= 0) return true;
    if (socket_watch == NULL) continue;
    int used = lay_out(count);
    if (used > 0 && !send_messages(used)) return false;
  }
}
