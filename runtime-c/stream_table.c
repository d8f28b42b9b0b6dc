/* The streams by handle of their session: chains by the lower bits of the handle, whose number doubles with them. */
#include "stream_table.h"

#include <stdlib.h>

#define INITIAL_CHAINS 64u

static struct stream **chains;
static uint32_t chain_count;
static uint32_t stream_count;

static struct stream **chain_of(uint32_t handle) { return &chains[handle & (chain_count - 1)]; }

/* Without memory the chains stay longer, which is no error unless there are none. */
static bool grow(void) {
  uint32_t count = chain_count == 0 ? INITIAL_CHAINS : 2 * chain_count;
  struct stream **larger = calloc(count, sizeof *larger);
  if (larger == NULL) return chain_count > 0;
  struct stream **old = chains;
  uint32_t old_count = chain_count;
  chains = larger;
  chain_count = count;
  for (uint32_t i = 0; i < old_count; i++) {
    for (struct stream *stream = old[i], *next; stream != NULL; stream = next) {
      next = stream->next;
      stream->next = *chain_of(stream->handle);
      *chain_of(stream->handle) = stream;
    }
  }
  free(old);
  return true;
}

bool stream_table_add(struct stream *stream) {
  if (stream_count == chain_count && !grow()) return false;
  stream->next = *chain_of(stream->handle);
  *chain_of(stream->handle) = stream;
  stream_count++;
  return true;
}

void stream_table_remove(struct stream *stream) {
  struct stream **link = chain_of(stream->handle);
  while (*link != stream) link = &(*link)->next;
  *link = stream->next;
  stream->next = NULL;
  stream_count--;
}

struct stream *stream_find(uint32_t handle) {
  if (chain_count == 0) return NULL;
  struct stream *stream = *chain_of(handle);
  while (stream != NULL && stream->handle != handle) stream = stream->next;
  return stream;
}

struct stream *stream_any(void) {
  for (uint32_t i = 0; stream_count > 0 && i < chain_count; i++)
    if (chains[i] != NULL) return chains[i];
  return NULL;
}
