#include "resolver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

/* Enough for the resolver of glibc and its modules; only touched pages count. */
#define STACK_BYTES (256 * 1024)
#define PAUSE_MIN_NS (1 * NS_PER_SECOND)
#define PAUSE_MAX_NS (60 * NS_PER_SECOND)

/* Returns a status of getaddrinfo. */
static int resolve(const struct host_port *name, int flags, struct address *out, int *count) {
  struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = flags};
  struct addrinfo *list = NULL;
  int failure = getaddrinfo(name->host, NULL, &hints, &list);
  int limit = *count;
  *count = 0;
  if (failure != 0) return failure;
  for (struct addrinfo *entry = list; entry != NULL && *count < limit; entry = entry->ai_next) {
    struct sockaddr_storage storage = {0};
    if (entry->ai_addrlen > sizeof storage) continue;
    memcpy(&storage, entry->ai_addr, entry->ai_addrlen);
    if (!address_from_socket(&storage, &out[*count])) continue;
    out[(*count)++].port = name->port;
  }
  freeaddrinfo(list);
  return *count > 0 ? 0 : EAI_NONAME;
}

const char *resolve_bind(const struct host_port *name, struct address *out) {
  int count = 1;
  int failure = resolve(name, AI_PASSIVE, out, &count);
  return failure == 0 ? NULL : gai_strerror(failure);
}

static bool is_literal(const char *host) {
  struct in6_addr scratch;
  return inet_pton(AF_INET, host, &scratch) == 1 || inet_pton(AF_INET6, host, &scratch) == 1;
}

static void *run(void *argument) {
  struct lookup *lookup = argument;
  lookup->fresh_count = LOOKUP_ADDRESSES;
  lookup->failure = resolve(&lookup->name, 0, lookup->fresh, &lookup->fresh_count);
  uint64_t one = 1;
  /* the counter cannot overflow: one thread at a time */
  if (write(lookup->watch.fd, &one, sizeof one) < 0) return NULL;
  return NULL;
}

static bool start_thread(struct lookup *lookup) {
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes) != 0) return false;
  bool is_started = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
                    pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0 &&
                    pthread_create(&thread, &attributes, run, lookup) == 0;
  pthread_attr_destroy(&attributes);
  return is_started;
}

static void finish(struct lookup *lookup) {
  lookup->is_busy = false;
  if (lookup->failure == 0) {
    memcpy(lookup->found, lookup->fresh, sizeof lookup->found);
    lookup->count = lookup->fresh_count;
    lookup->pause_ns = 0;
    lookup->is_repeated = false;
    lookup->on_done(lookup);
    return;
  }
  if (!lookup->is_repeated)
    log_line(LOG_WARNING, "%s: cannot resolve %s: %s; trying again", lookup->what, lookup->name.host,
             gai_strerror(lookup->failure));
  lookup->is_repeated = true;
  lookup->pause_ns = lookup->pause_ns == 0 ? PAUSE_MIN_NS : 2 * lookup->pause_ns;
  if (lookup->pause_ns > PAUSE_MAX_NS) lookup->pause_ns = PAUSE_MAX_NS;
  lookup->retry.at = clock_ns() + lookup->pause_ns;
}

static void on_ready(struct watch *watch, uint32_t events) {
  (void)events;
  uint64_t count;
  if (read(watch->fd, &count, sizeof count) != (ssize_t)sizeof count) return;
  finish((struct lookup *)((char *)watch - offsetof(struct lookup, watch)));
}

static void on_retry(struct timer *timer) {
  lookup_start((struct lookup *)((char *)timer - offsetof(struct lookup, retry)));
}

bool lookup_open(struct lookup *lookup) {
  lookup->retry = (struct timer){.at = TIMER_OFF, .on_due = on_retry};
  lookup->watch = (struct watch){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .on_ready = on_ready};
  loop_add_timer(&lookup->retry);
  if (lookup->watch.fd >= 0 && loop_watch(&lookup->watch, EPOLLIN)) return true;
  log_line(LOG_ERROR, "%s: %s", lookup->what, strerror(errno));
  return false;
}

void lookup_start(struct lookup *lookup) {
  if (lookup->is_busy) return;
  lookup->retry.at = TIMER_OFF;
  if (is_literal(lookup->name.host)) {
    lookup->fresh_count = LOOKUP_ADDRESSES;
    lookup->failure = resolve(&lookup->name, AI_NUMERICHOST, lookup->fresh, &lookup->fresh_count);
    finish(lookup);
    return;
  }
  lookup->is_busy = true;
  if (start_thread(lookup)) return;
  lookup->failure = EAI_MEMORY;
  finish(lookup);
}
