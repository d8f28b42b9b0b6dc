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
#include "local_address.h"
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

#define CONTROL_BYTES (CMSG_SPACE(sizeof(uint16_t)) + LOCAL_CONTROL_BYTES)

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
static _Alignas(struct cmsghdr) uint8_t controls[KCPTUN_TX_SLOTS][CONTROL_BYTES];

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

/*
 * Sets the control messages: the size of the datagrams of a merged message, and the source address.
 * @param control CONTROL_BYTES, aligned
 */
static void set_control(struct msghdr *header, uint8_t *control, uint8_t local) {
  size_t bytes = 0;
  if (header->msg_iovlen > 1) {
    struct cmsghdr *entry = (struct cmsghdr *)control;
    uint16_t size = (uint16_t)header->msg_iov->iov_len;
    *entry = (struct cmsghdr){.cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof size)};
    memcpy(CMSG_DATA(entry), &size, sizeof size);
    bytes = CMSG_SPACE(sizeof size);
  }
  if (local_is_known(local)) {
    struct cmsghdr *entry = (struct cmsghdr *)(control + bytes);
    local_write(local, entry);
    bytes += CMSG_ALIGN(entry->cmsg_len);
  }
  header->msg_control = bytes > 0 ? control : NULL;
  header->msg_controllen = bytes;
}

static void set_source(int message) {
  struct msghdr *header = &messages[message].msg_hdr;
  set_control(header, controls[message], receivers[header->msg_iov - vectors].local);
}

/* Whether a message may have failed because its source address, or the interface of a link-local one, has vanished. */
static bool has_vanished(const struct address *to, int error) {
  bool is_possible = error == EINVAL || error == EADDRNOTAVAIL || error == ENETUNREACH || error == ENODEV;
  return is_possible && local_is_known(to->local);
}

/* Sends one datagram. Returns 0 or the error. A source address that has vanished is forgotten. */
static int send_one(struct iovec *part, const struct address *to) {
  struct sockaddr_storage name;
  _Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES];
  socklen_t length = address_to_socket(to, &name);
  struct msghdr header = {.msg_name = &name, .msg_namelen = length, .msg_iov = part, .msg_iovlen = 1};
  for (;;) {
    set_control(&header, control, to->local);
    if (sendmsg(socket_watch->fd, &header, MSG_DONTWAIT) >= 0) return 0;
    if (!has_vanished(to, errno)) return errno;
    local_forget(to->local);
  }
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

/* Sends the datagrams of a message that failed, each by itself. */
static void send_apart(const struct msghdr *merged) {
  for (size_t i = 0; i < merged->msg_iovlen; i++) {
    const struct address *to = &receivers[&merged->msg_iov[i] - vectors];
    int error = send_one(&merged->msg_iov[i], to);
    /* what fails is lost, and sent again by the engine */
    if (error != 0) report(to, error);
    if (is_full(error)) return;
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
    bool is_of_route = header->msg_iovlen > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE);
    uint8_t local = receivers[header->msg_iov - vectors].local;
    bool was_known = local_is_known(local);
    send_apart(header);
    if (was_known && !local_is_known(local)) {
      /* the others of this batch have it, too */
      for (int i = sent + 1; i < count; i++) set_source(i);
    } else if (is_of_route && uses_segments) {
      log_line(LOG_INFO, "udp: UDP_SEGMENT failed: %s; datagrams are sent one by one", strerror(error));
      uses_segments = false;
    }
    sent++;
  }
  return true;
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
      header->msg_iovlen++;
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
  for (int i = 0; i < used; i++) set_source(i);
  return used;
}

/* Sends what waited. Returns false if it still waits. */
static bool send_backlog(void) {
  if (backlog_count == 0) return true;
  if (is_blocked) return false;
  size_t sent = 0;
  int error = 0;
  for (; sent < backlog_count; sent++) {
    struct iovec part = {.iov_base = backlog[sent].bytes, .iov_len = backlog[sent].length};
    error = send_one(&part, &backlog[sent].to);
    if (is_full(error)) break;
    if (error != 0) report(&backlog[sent].to, error);
  }
  if (sent < backlog_count) block(error);
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
