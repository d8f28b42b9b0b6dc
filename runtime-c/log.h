/* The log: one line on standard output for each event, `<letter> <local time> <text>`. */
#ifndef LOG_H
#define LOG_H

#include <stdint.h>

enum log_level { LOG_SILENCE, LOG_FATAL, LOG_ERROR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG, LOG_VERBOSE };
#define LOG_LEVEL_MAX 8

/* Lines above this level are not written. */
extern int log_level;

__attribute__((format(printf, 2, 3))) void log_line(int level, const char *format, ...);

/* State of one place that writes at most one line a second. */
struct log_limit {
  uint64_t last_ns;
  unsigned long suppressed;
};

/* Like log_line, at most once a second for each `limit`; the next line reports how many were suppressed. */
__attribute__((format(printf, 3, 4))) void log_limited(struct log_limit *limit, int level, const char *format, ...);

#endif
