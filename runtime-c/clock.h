/* The monotonic clock. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000ull
#define NS_PER_SECOND 1000000000ull
/* A tick of the engine's clock is 1/8 ms. */
#define NS_PER_TICK 125000ull

static inline uint64_t clock_ns(void) {
  struct timespec now;
  /* cannot fail: the clock exists on every Linux */
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* The engine's clock, which wraps. */
static inline uint32_t clock_ticks(void) { return (uint32_t)(clock_ns() / NS_PER_TICK); }

#endif
