/* The event loop: readiness of descriptors, timers, and signals that end the process. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* A descriptor that is watched. Its owner may not be freed inside a callback, but by loop_free_later. */
struct watch {
  int fd;
  /* Events of interest, and whether the descriptor is in the set at all. */
  uint32_t events;
  bool is_added;
  void (*on_ready)(struct watch *watch, uint32_t events);
};

/* A timer; `at` is in ns of clock_ns, UINT64_MAX = not armed. Set to UINT64_MAX before `on_due` is called. */
struct timer {
  uint64_t at;
  void (*on_due)(struct timer *timer);
  struct timer *next;
};

#define TIMER_OFF UINT64_MAX

/* Returns false, and logs why, if the system has no room for a loop. */
bool loop_open(void);

/* Adds a timer for good. */
void loop_add_timer(struct timer *timer);

/*
 * Sets the events of interest of a descriptor, 0 = errors and hang-ups alone.
 * Returns false if the system refused.
 */
bool loop_watch(struct watch *watch, uint32_t events);

/* Removes a descriptor from the set; no callback follows. The caller closes it. */
void loop_unwatch(struct watch *watch);

/* Frees memory when the events of this turn have been handled. */
void loop_free_later(void *memory);

/* Runs until SIGTERM or SIGINT. `drain` is called after the events of each turn. Returns the signal. */
int loop_run(void (*drain)(void));

#endif
