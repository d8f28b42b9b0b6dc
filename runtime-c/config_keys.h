/* The keys of the configuration file: name, type, range and default of each. */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include <stddef.h>

#include "config.h"

enum key_kind { KEY_INTEGER, KEY_BOOLEAN, KEY_STRING };

/* The strings of a file, until config.c interprets them; NULL = not set. They belong to the JSON tree. */
struct config_texts {
  const char *listen, *connect, *kcp_bind, *kcp_connect, *method, *psk, *password, *replay, *gso, *gro, *user;
};

struct config_key {
  /* NULL = top level */
  const char *group;
  const char *name;
  enum key_kind kind;
  /* Of the value: in struct config_texts for strings, in struct config for others. */
  size_t offset;
  uint32_t min, max, fallback;
};

extern const struct config_key config_keys[];
extern const size_t config_key_count;

/* Keys of other implementations without which a tunnel would not be the configured one; others are ignored. */
extern const char *const config_refused_keys[];

#endif
