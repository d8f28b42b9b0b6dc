/* One TCP connection and its session. Bytes pass between the socket and the engine's memory without a copy. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"

struct stream {
  struct watch watch;
  /* Of the session, 0 = there is none any more. */
  uint32_t handle;
  /* Server: the dial is under way, to this address of the target. */
  bool is_connecting;
  int address;
  /* FIN of TCP was read; EOF of the peer was passed on to TCP. */
  bool is_read_ended;
  bool is_write_ended;
  /* The engine has no room for bytes from TCP; TCP has no room for bytes of the peer. */
  bool is_engine_full;
  bool is_tcp_full;
  /* Next of its chain in the table, or of those that are closing. */
  struct stream *next;
  uint64_t closes_at;
};

/* Creates the stream of a session, without connection yet. Returns NULL without memory. */
struct stream *stream_new(uint32_t handle);

/* The stream of a session; NULL for an unknown handle. */
struct stream *stream_find(uint32_t handle);

/* Any stream of the table, NULL = it is empty. */
struct stream *stream_any(void);

/* The connection is established: passes bytes in both directions from now on. */
void stream_start(struct stream *stream);

/* READABLE, WRITABLE and EOF of the engine. */
void stream_flush(struct stream *stream);
void stream_refill(struct stream *stream);
void stream_end_write(struct stream *stream);

/* Ends a stream whose session is gone: with RST, or after everything was delivered. */
void stream_reset(struct stream *stream);
void stream_close(struct stream *stream);

/* Sets RST to be sent at close, and closes. */
void reset_socket(int fd);

#endif
