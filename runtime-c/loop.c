#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

#define EVENTS 256

static int epoll_fd = -1;
static struct timer *timers;
static struct watch signals = {.fd = -1};
static int stop_signal;

/* Memory to be freed after this turn, linked through its first bytes. */
static void **garbage;

static void on_signal(struct watch *watch, uint32_t events) {
  (void)events;
  struct signalfd_siginfo info;
  if (read(watch->fd, &info, sizeof info) == (ssize_t)sizeof info) stop_signal = (int)info.ssi_signo;
}

bool loop_open(void) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGINT);
  /* a reload is not supported; without this the default would end the process */
  if (signal(SIGHUP, SIG_IGN) == SIG_ERR || signal(SIGPIPE, SIG_IGN) == SIG_ERR) goto failed;
  if (sigprocmask(SIG_BLOCK, &mask, NULL) != 0) goto failed;
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  signals.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  signals.on_ready = on_signal;
  if (epoll_fd >= 0 && signals.fd >= 0 && loop_watch(&signals, EPOLLIN)) return true;
failed:
  log_line(LOG_ERROR, "event loop: %s", strerror(errno));
  return false;
}

void loop_add_timer(struct timer *timer) {
  timer->next = timers;
  timers = timer;
}

bool loop_watch(struct watch *watch, uint32_t events) {
  if (watch->is_added && watch->events == events) return true;
  struct epoll_event event = {.events = events, .data.ptr = watch};
  if (epoll_ctl(epoll_fd, watch->is_added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) != 0) return false;
  watch->is_added = true;
  watch->events = events;
  return true;
}

void loop_unwatch(struct watch *watch) {
  if (!watch->is_added) return;
  /* cannot fail for a descriptor that is open and was added */
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
  watch->is_added = false;
}

void loop_free_later(void *memory) {
  void **entry = memory;
  *entry = garbage;
  garbage = entry;
}

static void free_garbage(void) {
  while (garbage != NULL) {
    void **next = *garbage;
    free(garbage);
    garbage = next;
  }
}

/* Milliseconds until the first timer, rounded up; -1 = none. */
static int wait_ms(void) {
  uint64_t first = TIMER_OFF;
  for (const struct timer *timer = timers; timer != NULL; timer = timer->next)
    if (timer->at < first) first = timer->at;
  if (first == TIMER_OFF) return -1;
  uint64_t now = clock_ns();
  if (first <= now) return 0;
  uint64_t ms = (first - now + NS_PER_MS - 1) / NS_PER_MS;
  return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static void run_timers(void) {
  uint64_t now = clock_ns();
  for (struct timer *timer = timers; timer != NULL; timer = timer->next) {
    if (timer->at > now) continue;
    timer->at = TIMER_OFF;
    timer->on_due(timer);
  }
}

int loop_run(void (*drain)(void)) {
  static struct epoll_event ready[EVENTS];
  drain();
  while (stop_signal == 0) {
    int count = epoll_wait(epoll_fd, ready, EVENTS, wait_ms());
    if (count < 0 && errno != EINTR) {
      log_line(LOG_ERROR, "epoll_wait: %s", strerror(errno));
      return -1;
    }
    for (int i = 0; i < count; i++) {
      struct watch *watch = ready[i].data.ptr;
      /* removed by an earlier callback of this turn; its memory is still there */
      if (watch->is_added) watch->on_ready(watch, ready[i].events);
    }
    run_timers();
    drain();
    free_garbage();
  }
  return stop_signal;
}
