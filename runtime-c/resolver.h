/* Name resolution that does not block the loop: each lookup runs in a thread of its own. */
#ifndef RESOLVER_H
#define RESOLVER_H

#include "address.h"
#include "loop.h"

#define LOOKUP_ADDRESSES 8

/* A name and its addresses. Zero-initialized but for name, what and on_done. */
struct lookup {
  struct host_port name;
  /* For the log: the key of the name. */
  const char *what;
  /* A lookup succeeded: `found` has at least one address. */
  void (*on_done)(struct lookup *lookup);
  struct address found[LOOKUP_ADDRESSES];
  int count;
  /* The rest is private. */
  bool is_busy;
  bool is_repeated;
  uint64_t pause_ns;
  struct timer retry;
  struct watch watch;
  struct address fresh[LOOKUP_ADDRESSES];
  int fresh_count;
  int failure;
};

/* Resolves a local address, and waits for it. Returns NULL, or the reason of the failure. */
const char *resolve_bind(const struct host_port *name, struct address *out);

/* To be called once for each lookup. Returns false if the system has no descriptors left. */
bool lookup_open(struct lookup *lookup);

/*
 * Looks the name up, unless that is under way. A literal calls back at once. Failures are logged, and repeated until
 * one succeeds; `found` stays as it was.
 */
void lookup_start(struct lookup *lookup);

#endif
