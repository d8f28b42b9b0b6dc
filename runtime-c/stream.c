#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "engine.h"
#include "log.h"
#include "stream_table.h"

/* Most bytes of one stream_reserve, and how often a stream is read in one turn before others are. */
#define MESSAGE_BYTES 14880u
#define READS_PER_TURN 4
/*
 * How long a closed connection keeps reading and discarding: the kernel would answer unread bytes with RST (RFC 1122,
 * 4.2.2.13), which could discard what the application has not read yet.
 */
#define LINGER_NS (5 * NS_PER_SECOND)

static void on_ready(struct watch *watch, uint32_t events);
static void on_linger_end(struct timer *timer);

/* Streams that are closing, the first one first, and when it ends. */
static struct stream *closing;
static struct stream **closing_end = &closing;
static struct timer linger = {.at = TIMER_OFF, .on_due = on_linger_end};

struct stream *stream_new(uint32_t handle) {
  struct stream *stream = calloc(1, sizeof *stream);
  if (stream == NULL) return NULL;
  stream->handle = handle;
  stream->watch.fd = -1;
  stream->watch.on_ready = on_ready;
  if (stream_table_add(stream)) return stream;
  free(stream);
  return NULL;
}

void reset_socket(int fd) {
  const struct linger now = {.l_onoff = 1, .l_linger = 0};
  /* cannot fail for a TCP socket */
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

/* Frees a stream that is in no list; its socket is closed. */
static void dispose(struct stream *stream) { loop_free_later(stream); }

void stream_reset(struct stream *stream) {
  stream_table_remove(stream);
  loop_unwatch(&stream->watch);
  if (stream->watch.fd >= 0) reset_socket(stream->watch.fd);
  dispose(stream);
}

/* TCP failed: the peer gets EOF, and what it sends is discarded. */
static void fail(struct stream *stream, int error) {
  log_line(LOG_INFO, "[stream:%u] TCP connection lost: %s", stream->handle, error ? strerror(error) : "closed");
  core_stream_abort(&engine, stream->handle, clock_ticks());
  stream_reset(stream);
}

/* Watches for what the stream can do now. */
static void watch(struct stream *stream) {
  bool reads = !stream->is_read_ended && !stream->is_engine_full;
  uint32_t events = (reads ? (uint32_t)EPOLLIN : 0) | (stream->is_tcp_full ? (uint32_t)EPOLLOUT : 0);
  /* with both directions shut down a hang-up is reported for ever */
  if (events == 0 && stream->is_write_ended) loop_unwatch(&stream->watch);
  else if (!loop_watch(&stream->watch, events)) fail(stream, errno);
}

void stream_start(struct stream *stream) {
  stream->is_connecting = false;
  stream->watch.on_ready = on_ready;
  watch(stream);
}

/* Spans of the engine as vectors of at most `limit` bytes in all. Returns the bytes. */
static size_t vectors_of(int32_t count, struct iovec *vectors, size_t limit) {
  const uint32_t at = (uint32_t)core_spans_ptr(&engine);
  size_t total = 0;
  for (int32_t i = 0; i < count; i++) {
    uint32_t length = core_load(&engine, at + 8u * (uint32_t)i + 4);
    if (length > limit - total) length = (uint32_t)(limit - total);
    vectors[i] =
        (struct iovec){.iov_base = core_at(&engine, core_load(&engine, at + 8u * (uint32_t)i)), .iov_len = length};
    total += length;
  }
  return total;
}

static int socket_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

/* TCP to engine. Returns false if the stream has ended. */
static bool read_tcp(struct stream *stream) {
  for (int turn = 0; turn < READS_PER_TURN && !stream->is_read_ended; turn++) {
    struct iovec vectors[KCPTUN_SPAN_SLOTS];
    int32_t count = core_stream_reserve(&engine, stream->handle, MESSAGE_BYTES);
    if (count <= 0) {
      /* WRITABLE follows, or the end of the session */
      stream->is_engine_full = true;
      return true;
    }
    size_t wanted = vectors_of(count, vectors, MESSAGE_BYTES);
    ssize_t bytes = readv(stream->watch.fd, vectors, count);
    if (bytes < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return true;
      fail(stream, errno);
      return false;
    }
    if (bytes == 0) {
      stream->is_read_ended = true;
      core_stream_shutdown(&engine, stream->handle, clock_ticks());
      return true;
    }
    core_stream_commit(&engine, stream->handle, (uint32_t)bytes, clock_ticks());
    if ((size_t)bytes < wanted) return true;
  }
  return true;
}

/* Engine to TCP. What TCP does not take stays in the engine, whose window limits the peer. */
static bool write_tcp(struct stream *stream) {
  while (!stream->is_tcp_full) {
    struct iovec vectors[KCPTUN_SPAN_SLOTS];
    int32_t count = core_stream_peek(&engine, stream->handle);
    if (count <= 0) return true;
    size_t total = vectors_of(count, vectors, SIZE_MAX);
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)count};
    ssize_t bytes = sendmsg(stream->watch.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (bytes < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        fail(stream, errno);
        return false;
      }
      bytes = 0;
    }
    if (bytes > 0) core_stream_consume(&engine, stream->handle, (uint32_t)bytes, clock_ticks());
    stream->is_tcp_full = (size_t)bytes < total;
  }
  return true;
}

void stream_flush(struct stream *stream) {
  if (!stream->is_connecting && write_tcp(stream)) watch(stream);
}

void stream_refill(struct stream *stream) {
  if (stream->is_connecting) return;
  stream->is_engine_full = false;
  if (read_tcp(stream)) watch(stream);
}

void stream_end_write(struct stream *stream) {
  stream->is_write_ended = true;
  if (stream->is_connecting) return;
  if (shutdown(stream->watch.fd, SHUT_WR) != 0) fail(stream, errno);
  else watch(stream);
}

static void close_now(struct stream *stream) {
  loop_unwatch(&stream->watch);
  close(stream->watch.fd);
  stream->watch.fd = -1;
}

/* Discards what arrives, until FIN. */
static void discard(struct stream *stream) {
  static uint8_t nowhere[16384];
  for (int turn = 0; turn < READS_PER_TURN; turn++) {
    ssize_t bytes = recv(stream->watch.fd, nowhere, sizeof nowhere, MSG_DONTWAIT);
    if (bytes > 0) continue;
    if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    /* stays in the list of closing streams until its time is over */
    close_now(stream);
    return;
  }
}

void stream_close(struct stream *stream) {
  stream_table_remove(stream);
  stream->handle = 0;
  int fd = stream->watch.fd;
  bool must_read = fd >= 0 && !stream->is_connecting && !stream->is_read_ended;
  if (fd >= 0 && !stream->is_write_ended && !stream->is_connecting) must_read &= shutdown(fd, SHUT_WR) == 0;
  if (!must_read || !loop_watch(&stream->watch, EPOLLIN)) {
    if (fd >= 0) close_now(stream);
    dispose(stream);
    return;
  }
  static bool has_timer;
  if (!has_timer) loop_add_timer(&linger);
  has_timer = true;
  stream->closes_at = clock_ns() + LINGER_NS;
  stream->next = NULL;
  *closing_end = stream;
  closing_end = &stream->next;
  if (linger.at == TIMER_OFF) linger.at = closing->closes_at;
}

static void on_linger_end(struct timer *timer) {
  uint64_t now = clock_ns();
  while (closing != NULL && closing->closes_at <= now) {
    struct stream *stream = closing;
    closing = stream->next;
    if (closing == NULL) closing_end = &closing;
    if (stream->watch.fd >= 0) close_now(stream);
    dispose(stream);
  }
  timer->at = closing == NULL ? TIMER_OFF : closing->closes_at;
}

static void on_ready(struct watch *watched, uint32_t events) {
  struct stream *stream = (struct stream *)watched;
  if (stream->handle == 0) {
    discard(stream);
    return;
  }
  if (events & EPOLLERR) {
    fail(stream, socket_error(watched->fd));
    return;
  }
  if (events & EPOLLOUT) {
    stream->is_tcp_full = false;
    if (!write_tcp(stream)) return;
  }
  if ((events & (EPOLLIN | EPOLLHUP)) && !stream->is_engine_full && !stream->is_read_ended && !read_tcp(stream)) return;
  /* both directions are shut down, and bytes wait for room in the engine: nothing to watch for before WRITABLE */
  if ((events & EPOLLHUP) && stream->is_engine_full) loop_unwatch(&stream->watch);
  else watch(stream);
}
