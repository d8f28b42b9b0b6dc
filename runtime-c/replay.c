/*
 * kcptun-wasm-replay < SCRIPT: makes the recorded calls to a fresh engine and prints what they return, for comparison
 * with other hosts of the same module. One step a line:
 *
 *   call NAME ARG...    calls an export; prints `= RESULT`, signed
 *   write ADDRESS HEX   writes bytes to linear memory; prints `-`
 *   read ADDRESS BYTES  prints the bytes in hex
 *
 * ARG, ADDRESS and BYTES are sums of terms, as in $3+16. A term is a number (decimal or 0x...) or $n, the value of step
 * n; steps count from 1. The value of a call is its result, that of a read its first 4 bytes, little-endian (as many as
 * it has), that of a write 0. Sums wrap at 2^32. Empty lines and lines that start with # are no steps and print
 * nothing.
 *
 * Exit status: 0; 1 for a bad script, with its line on stderr; 70 at a trap.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core.h"

#define MAX_ARGUMENTS 4

static core_t core;

#define ARGUMENTS_0
#define ARGUMENTS_1 , a[0]
#define ARGUMENTS_2 , a[0], a[1]
#define ARGUMENTS_3 , a[0], a[1], a[2]
#define CALL(name, arity)                         \
  static int32_t call_##name(const uint32_t *a) { \
    (void)a;                                      \
    return core_##name(&core ARGUMENTS_##arity);  \
  }
CORE_CALLS(CALL)

static const struct export {
  const char *name;
  int arity;
  int32_t (*call)(const uint32_t *arguments);
}
exports[] = {
#define EXPORT(name, arity) {#name, arity, call_##name},
    CORE_CALLS(EXPORT)};

static uint32_t *values;
static size_t steps;
static size_t capacity;
static unsigned long line_number;

static void refuse(const char *reason, const char *word) {
  fprintf(stderr, "line %lu: %s: %s\n", line_number, reason, word ? word : "");
  exit(1);
}

static uint32_t term(const char *word, char **end) {
  bool is_step = *word == '$';
  errno = 0;
  unsigned long number = strtoul(word + is_step, end, is_step ? 10 : 0);
  if (errno != 0 || *end == word + is_step || number > UINT32_MAX) refuse("bad number", word);
  if (!is_step) return (uint32_t)number;
  if (number == 0 || number > steps) refuse("no such step yet", word);
  return values[number - 1];
}

static uint32_t sum(const char *word) {
  if (word == NULL) refuse("missing number", NULL);
  char *end;
  uint32_t total = term(word, &end);
  while (*end == '+') total += term(end + 1, &end);
  if (*end != '\0') refuse("bad number", word);
  return total;
}

static char *next_word(void) { return strtok(NULL, " \t\r\n"); }

static uint8_t *range(uint32_t address, uint64_t bytes) {
  if (address + bytes > core_memory_size(&core)) refuse("not in linear memory", NULL);
  return core_at(&core, address);
}

static uint32_t on_call(void) {
  const char *name = next_word();
  for (size_t i = 0; name != NULL && i < sizeof exports / sizeof exports[0]; i++) {
    if (strcmp(exports[i].name, name) != 0) continue;
    uint32_t arguments[MAX_ARGUMENTS] = {0};
    for (int n = 0; n < exports[i].arity; n++) arguments[n] = sum(next_word());
    int32_t result = exports[i].call(arguments);
    printf("= %d\n", result);
    return (uint32_t)result;
  }
  refuse("no such export", name);
  return 0;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static uint32_t on_write(void) {
  uint32_t address = sum(next_word());
  const char *hex = next_word();
  size_t length = hex ? strlen(hex) : 0;
  if (length == 0 || length % 2 != 0) refuse("bad hex", hex);
  uint8_t *to = range(address, length / 2);
  for (size_t i = 0; i < length; i += 2) {
    int high = digit(hex[i]);
    int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) refuse("bad hex", hex);
    to[i / 2] = (uint8_t)(high << 4 | low);
  }
  puts("-");
  return 0;
}

static uint32_t on_read(void) {
  uint32_t address = sum(next_word());
  uint32_t bytes = sum(next_word());
  const uint8_t *from = range(address, bytes);
  uint32_t value = 0;
  for (uint32_t i = 0; i < bytes; i++) {
    printf("%02x", from[i]);
    if (i < 4) value |= (uint32_t)from[i] << (8 * i);
  }
  putchar('\n');
  return value;
}

static void on_line(char *line) {
  const char *verb = strtok(line, " \t\r\n");
  if (verb == NULL || *verb == '#') return;
  uint32_t value = 0;
  if (strcmp(verb, "call") == 0) value = on_call();
  else if (strcmp(verb, "write") == 0) value = on_write();
  else if (strcmp(verb, "read") == 0) value = on_read();
  else refuse("expected call, write or read", verb);
  const char *rest = next_word();
  if (rest != NULL) refuse("too many words", rest);
  if (steps == capacity) {
    capacity = capacity ? 2 * capacity : 1024;
    values = realloc(values, capacity * sizeof *values);
    if (values == NULL) refuse("out of memory", NULL);
  }
  values[steps++] = value;
}

int main(void) {
  if (core_open(&core) != 0) {
    fputs("core.wasm has another ABI version\n", stderr);
    return 1;
  }
  /* a trap ends the process without flushing */
  setvbuf(stdout, NULL, _IOLBF, 0);
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, stdin) >= 0) {
    line_number++;
    on_line(line);
  }
  free(line);
  free(values);
  if (ferror(stdin) || fflush(stdout) != 0) {
    perror("replay");
    return 1;
  }
  return 0;
}
