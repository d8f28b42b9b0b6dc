#include "tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "engine.h"
#include "log.h"
#include "loop.h"
#include "resolver.h"
#include "stream.h"

#define BACKLOG 4096
#define ACCEPTS_PER_TURN 64
/* Pause of the listener when no descriptor is left. */
#define PAUSE_NS (500 * NS_PER_MS)

static void on_accept(struct watch *watch, uint32_t events);
static void on_pause_end(struct timer *timer);

void (*tcp_on_unreachable)(void);

static struct watch listener = {.fd = -1, .on_ready = on_accept};
static struct timer accept_pause = {.at = TIMER_OFF, .on_due = on_pause_end};
static const struct config *options;
static struct address target[LOOKUP_ADDRESSES];
static int target_count;

/* Buffers before the handshake, which announces them; the others at any time. */
static void set_options(int fd) {
  const int on = 1;
  const int sndbuf = (int)options->tcp_sndbuf;
  const int rcvbuf = (int)options->tcp_rcvbuf;
  /* a socket without an option still works */
  if (sndbuf > 0) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf);
  if (rcvbuf > 0) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
  if (options->tcp_nodelay) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (options->tcp_keepalive) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

bool tcp_listen(const struct config *config, const struct address *address) {
  const int on = 1;
  const int off = 0;
  char text[ADDRESS_TEXT_BYTES];
  struct sockaddr_storage local = {0};
  socklen_t length = address_to_socket(address, &local);
  options = config;
  int fd = socket(local.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) goto failed;
  set_options(fd);
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) goto failed;
  if (config->tcp_reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) goto failed;
  if (address->family == 6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) goto failed;
  if (bind(fd, (struct sockaddr *)&local, length) != 0 || listen(fd, BACKLOG) != 0 ||
      getsockname(fd, (struct sockaddr *)&local, &length) != 0)
    goto failed;
  listener.fd = fd;
  loop_add_timer(&accept_pause);
  if (!loop_watch(&listener, EPOLLIN)) goto failed;
  struct address bound;
  if (address_from_socket(&local, &bound)) log_line(LOG_NOTICE, "listen: %s", address_text(&bound, text));
  return true;
failed:
  log_line(LOG_ERROR, "listen: cannot open %s: %s", address_text(address, text), strerror(errno));
  if (fd >= 0) close(fd);
  listener.fd = -1;
  return false;
}

static void on_pause_end(struct timer *timer) {
  if (!loop_watch(&listener, EPOLLIN)) timer->at = clock_ns() + PAUSE_NS;
}

static const char *refusal(int32_t code) {
  switch (code) {
  case KCPTUN_E_NO_PEER: return "no peer yet";
  case KCPTUN_E_SESSIONS: return "too many sessions, or too many half-open sessions (max_sessions)";
  case KCPTUN_E_MEMORY: return "out of memory (memory)";
  default: return "refused by the engine";
  }
}

static void open_stream(int fd) {
  static struct log_limit limit;
  int32_t handle = core_stream_open(&engine, clock_ticks());
  struct stream *stream = handle > 0 ? stream_new((uint32_t)handle) : NULL;
  if (stream == NULL) {
    log_limited(&limit, LOG_WARNING, "connection refused: %s", handle > 0 ? strerror(ENOMEM) : refusal(handle));
    if (handle > 0) core_stream_abort(&engine, (uint32_t)handle, clock_ticks());
    reset_socket(fd);
    return;
  }
  set_options(fd);
  stream->watch.fd = fd;
  stream_start(stream);
}

static void on_accept(struct watch *watch, uint32_t events) {
  static struct log_limit limit;
  (void)events;
  for (int turn = 0; turn < ACCEPTS_PER_TURN; turn++) {
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      open_stream(fd);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) continue;
    log_limited(&limit, LOG_ERROR, "accept: %s", strerror(errno));
    loop_unwatch(watch);
    accept_pause.at = clock_ns() + PAUSE_NS;
    return;
  }
}

void tcp_set_target(const struct config *config, const struct address *addresses, int count) {
  options = config;
  memcpy(target, addresses, (size_t)count * sizeof *addresses);
  target_count = count;
}

static void on_dialled(struct watch *watch, uint32_t events);

/* Begins to connect to the first address from `stream->address` on that does not fail at once. */
static bool dial_next(struct stream *stream, int *error) {
  for (; stream->address < target_count; stream->address++) {
    struct sockaddr_storage to = {0};
    socklen_t length = address_to_socket(&target[stream->address], &to);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
      set_options(fd);
      stream->watch.fd = fd;
      if ((connect(fd, (struct sockaddr *)&to, length) == 0 || errno == EINPROGRESS) &&
          loop_watch(&stream->watch, EPOLLOUT))
        return true;
    }
    *error = errno;
    if (fd >= 0) close(fd);
    stream->watch.fd = -1;
  }
  return false;
}

static void dial_failed(struct stream *stream, int error) {
  static struct log_limit limit;
  const char *reason = target_count == 0 ? "the address of the target is not known" : strerror(error);
  log_limited(&limit, LOG_WARNING, "[stream:%u] dial failed: %s", stream->handle, reason);
  core_stream_connected(&engine, stream->handle, 0, clock_ticks());
  stream_close(stream);
  if (tcp_on_unreachable != NULL) tcp_on_unreachable();
}

static void on_dialled(struct watch *watch, uint32_t events) {
  (void)events;
  struct stream *stream = (struct stream *)watch;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) {
    loop_unwatch(watch);
    close(watch->fd);
    watch->fd = -1;
    stream->address++;
    if (!dial_next(stream, &error)) dial_failed(stream, error);
    return;
  }
  if (core_stream_connected(&engine, stream->handle, 1, clock_ticks()) != 0) {
    stream_reset(stream);
    return;
  }
  bool is_ended = stream->is_write_ended;
  uint32_t handle = stream->handle;
  stream_start(stream);
  /* what came while it was dialled; any of these calls may end the stream */
  if (stream_find(handle) == stream) stream_flush(stream);
  if (is_ended && stream_find(handle) == stream) stream_end_write(stream);
}

static void dial(uint32_t handle) {
  int error = ENOMEM;
  struct stream *stream = stream_new(handle);
  if (stream == NULL) {
    log_line(LOG_ERROR, "[stream:%u] dial failed: %s", handle, strerror(error));
    core_stream_connected(&engine, handle, 0, clock_ticks());
    return;
  }
  stream->is_connecting = true;
  stream->watch.on_ready = on_dialled;
  if (!dial_next(stream, &error)) dial_failed(stream, error);
}

void tcp_on_event(uint32_t type, uint32_t handle, uint32_t argument) {
  static struct log_limit limit;
  if (type == KCPTUN_EVENT_DIAL) {
    dial(handle);
    return;
  }
  struct stream *stream = stream_find(handle);
  if (stream == NULL) return;
  switch (type) {
  case KCPTUN_EVENT_READABLE: stream_flush(stream); break;
  case KCPTUN_EVENT_WRITABLE: stream_refill(stream); break;
  case KCPTUN_EVENT_EOF: stream_end_write(stream); break;
  case KCPTUN_EVENT_ABORT:
    log_limited(&limit, LOG_WARNING, "[stream:%u] aborted, reason %u (docs/abi.md, AbortReason)", handle, argument);
    stream_reset(stream);
    break;
  case KCPTUN_EVENT_DETACH:
    log_line(LOG_INFO, "[stream:%u] session closed", handle);
    stream_close(stream);
    break;
  default: break;
  }
}

void tcp_close(void) {
  if (listener.fd >= 0) {
    loop_unwatch(&listener);
    close(listener.fd);
    listener.fd = -1;
  }
  for (struct stream *stream = stream_any(); stream != NULL; stream = stream_any()) stream_reset(stream);
}
