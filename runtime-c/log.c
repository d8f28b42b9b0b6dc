#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "clock.h"

#define LINE_BYTES 1024

int log_level = LOG_NOTICE;

static void write_line(int level, const char *format, va_list arguments, unsigned long suppressed) {
  static const char letters[LOG_LEVEL_MAX + 1] = {'-', 'F', 'E', 'W', 'I', 'I', 'D', 'V', 'V'};
  char text[LINE_BYTES];
  int length = vsnprintf(text, sizeof text, format, arguments);
  if (length < 0) return;
  /* names from the configuration or of peers must not control a terminal */
  for (char *c = text; *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  char stamp[32] = "";
  char zone[8] = "";
  time_t now = time(NULL);
  struct tm local;
  if (localtime_r(&now, &local) != NULL) {
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &local);
    if (local.tm_gmtoff == 0) snprintf(zone, sizeof zone, "Z");
    else strftime(zone, sizeof zone, "%z", &local);
  }
  printf("%c %s%s %s", letters[level], stamp, zone, text);
  if (suppressed > 0) printf(" (similar lines suppressed: %lu)", suppressed);
  putchar('\n');
  fflush(stdout);
}

void log_line(int level, const char *format, ...) {
  if (level > log_level) return;
  va_list arguments;
  va_start(arguments, format);
  write_line(level, format, arguments, 0);
  va_end(arguments);
}

void log_limited(struct log_limit *limit, int level, const char *format, ...) {
  if (level > log_level) return;
  uint64_t now = clock_ns();
  if (limit->last_ns != 0 && now - limit->last_ns < NS_PER_SECOND) {
    limit->suppressed++;
    return;
  }
  va_list arguments;
  va_start(arguments, format);
  write_line(level, format, arguments, limit->suppressed);
  va_end(arguments);
  limit->last_ns = now;
  limit->suppressed = 0;
}
