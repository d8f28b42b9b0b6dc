#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_keys.h"
#include "log.h"

#define SHOWN_BYTES 64
#define PSK_CHARACTERS 44

static bool is_secret(const char *name) { return strcmp(name, "psk") == 0 || strcmp(name, "password") == 0; }

/* Logs `config key KEY = VALUE: REASON` and returns false. */
static bool refuse(const char *group, const char *name, const char *value, const char *reason) {
  size_t length = strlen(value);
  log_line(LOG_ERROR, "config key %s%s%s%s%.*s%s: %s", group ? group : "", group ? "." : "", name,
           *value == '\0' ? "" : " = ", SHOWN_BYTES, value, length > SHOWN_BYTES ? "..." : "", reason);
  return false;
}

static bool refuse_json(const char *group, const char *name, const json_t *value, const char *reason) {
  char *text = is_secret(name) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
  refuse(group, name, text ? text : "(hidden)", reason);
  free(text);
  return false;
}

static const struct config_key *find_key(const char *group, const char *name) {
  for (size_t i = 0; i < config_key_count; i++) {
    const struct config_key *key = &config_keys[i];
    bool is_group = group == NULL ? key->group == NULL : key->group != NULL && strcmp(key->group, group) == 0;
    if (is_group && strcmp(key->name, name) == 0) return key;
  }
  return NULL;
}

static bool is_group_name(const char *name) {
  for (size_t i = 0; i < config_key_count; i++)
    if (config_keys[i].group != NULL && strcmp(config_keys[i].group, name) == 0) return true;
  return false;
}

static bool read_value(const struct config_key *key, const json_t *value, struct config *config,
                       struct config_texts *texts) {
  if (key->kind == KEY_STRING) {
    if (!json_is_string(value)) return refuse_json(key->group, key->name, value, "must be a string");
    const char *text = json_string_value(value);
    memcpy((char *)texts + key->offset, &text, sizeof text);
    return true;
  }
  if (key->kind == KEY_BOOLEAN) {
    if (!json_is_boolean(value)) return refuse_json(key->group, key->name, value, "must be true or false");
    bool flag = json_is_true(value);
    memcpy((char *)config + key->offset, &flag, sizeof flag);
    return true;
  }
  json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
  if (number < key->min || number > key->max) {
    char reason[80];
    snprintf(reason, sizeof reason, "must be an integer from %u to %u", key->min, key->max);
    return refuse_json(key->group, key->name, value, reason);
  }
  uint32_t word = (uint32_t)number;
  memcpy((char *)config + key->offset, &word, sizeof word);
  return true;
}

static bool is_refused(const char *name) {
  for (const char *const *refused = config_refused_keys; *refused != NULL; refused++)
    if (strcmp(*refused, name) == 0) return true;
  return false;
}

static bool read_object(const char *group, json_t *object, struct config *config, struct config_texts *texts) {
  const char *name;
  json_t *value;
  json_object_foreach(object, name, value) {
    const struct config_key *key = find_key(group, name);
    if (key != NULL) {
      if (!read_value(key, value, config, texts)) return false;
    } else if (group == NULL && is_group_name(name)) {
      if (!json_is_object(value)) return refuse_json(NULL, name, value, "must be an object");
      if (!read_object(name, value, config, texts)) return false;
    } else if (group == NULL && is_refused(name)) {
      return refuse_json(NULL, name, value, "not supported by the native host");
    }
  }
  return true;
}

/* After the values, so that `loglevel` is in force. */
static void warn_unknown(const char *group, json_t *object) {
  const char *name;
  json_t *value;
  json_object_foreach(object, name, value) {
    if (find_key(group, name) != NULL) continue;
    if (group == NULL && is_group_name(name)) warn_unknown(name, value);
    else
      log_line(LOG_WARNING, "config key %s%s%s: unknown or not supported, ignored", group ? group : "",
               group ? "." : "", name);
  }
}

static bool read_address(const char *name, const char *text, bool is_bind, struct host_port *out) {
  const char *reason = address_split(text, is_bind, out);
  return reason == NULL || refuse(NULL, name, text, reason);
}

static bool read_addresses(const struct config_texts *texts, struct config *config) {
  if (texts->listen != NULL && texts->connect != NULL)
    return refuse(NULL, "listen", texts->listen,
                  "conflicts with connect: listen selects client mode, connect server mode");
  if (texts->listen == NULL && texts->connect == NULL)
    return refuse(NULL, "listen", "", "missing: a client needs listen, a server connect");
  config->is_client = texts->listen != NULL;
  if (config->is_client && texts->kcp_connect == NULL)
    return refuse(NULL, "kcp_connect", "", "missing: required by a client (listen)");
  if (!config->is_client && texts->kcp_bind == NULL)
    return refuse(NULL, "kcp_bind", "", "missing: required by a server (connect)");
  config->has_kcp_bind = texts->kcp_bind != NULL;
  return (texts->listen == NULL || read_address("listen", texts->listen, true, &config->listen)) &&
         (texts->connect == NULL || read_address("connect", texts->connect, false, &config->connect)) &&
         (texts->kcp_bind == NULL || read_address("kcp_bind", texts->kcp_bind, true, &config->kcp_bind)) &&
         (texts->kcp_connect == NULL || read_address("kcp_connect", texts->kcp_connect, false, &config->kcp_connect));
}

static bool read_security(const struct config_texts *texts, struct config *config) {
  if (texts->method == NULL) {
    log_line(LOG_WARNING, "packets will not be encrypted: no method is set");
    return true;
  }
  config->method = crypto_method(texts->method);
  if (config->method == NULL) {
    char reason[160];
    snprintf(reason, sizeof reason, "must be one of %s", crypto_method_names());
    return refuse(NULL, "method", texts->method, reason);
  }
  if (texts->psk != NULL && texts->password != NULL) return refuse(NULL, "psk", "(hidden)", "conflicts with password");
  if (texts->password != NULL) {
    if (*texts->password == '\0') return refuse(NULL, "password", "", "must not be empty");
    return crypto_key_of_password(texts->password, config->key) ||
           refuse(NULL, "password", "(hidden)", "out of memory while the key is derived");
  }
  if (texts->psk == NULL) return refuse(NULL, "psk", "", "missing: required by method, or password");
  size_t bytes = 0;
  size_t characters = strlen(texts->psk);
  int bad = sodium_base642bin(config->key, sizeof config->key, texts->psk, characters, NULL, &bytes, NULL,
                              sodium_base64_VARIANT_ORIGINAL);
  if (bad != 0 || bytes != CRYPTO_KEY_BYTES || characters != PSK_CHARACTERS)
    return refuse(NULL, "psk", "(hidden)", "must be 32 bytes in standard Base64, 44 characters");
  return true;
}

static bool read_choice(const char *group, const char *name, const char *text, const char *first, const char *second,
                        bool *is_second) {
  *is_second = text != NULL && strcmp(text, second) == 0;
  if (text == NULL || *is_second || strcmp(text, first) == 0) return true;
  char reason[64];
  snprintf(reason, sizeof reason, "must be one of %s, %s", first, second);
  return refuse(group, name, text, reason);
}

static bool read_tree(json_t *tree, struct config *config) {
  struct config_texts texts = {0};
  if (!json_is_object(tree)) {
    log_line(LOG_ERROR, "config file: must be an object");
    return false;
  }
  for (size_t i = 0; i < config_key_count; i++) {
    const struct config_key *key = &config_keys[i];
    bool flag = key->fallback != 0;
    if (key->kind == KEY_INTEGER) memcpy((char *)config + key->offset, &key->fallback, sizeof key->fallback);
    if (key->kind == KEY_BOOLEAN) memcpy((char *)config + key->offset, &flag, sizeof flag);
  }
  if (!read_object(NULL, tree, config, &texts)) return false;
  log_level = (int)config->loglevel;
  warn_unknown(NULL, tree);
  bool is_gso_off, is_gro_off;
  if (!read_choice(NULL, "replay", texts.replay, "auto", "strict", &config->is_replay_strict) ||
      !read_choice("udp", "gso", texts.gso, "auto", "off", &is_gso_off) ||
      !read_choice("udp", "gro", texts.gro, "auto", "off", &is_gro_off))
    return false;
  config->udp_gso = !is_gso_off;
  config->udp_gro = !is_gro_off;
  if (texts.user != NULL && (config->user = strdup(texts.user)) == NULL) {
    log_line(LOG_ERROR, "config key user: %s", strerror(errno));
    return false;
  }
  return read_addresses(&texts, config) && read_security(&texts, config);
}

bool config_read(const char *path, struct config *config) {
  memset(config, 0, sizeof *config);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) {
    log_line(LOG_ERROR, "config file %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return false;
  }
  json_error_t error;
  json_t *tree = json_loadfd(fd, JSON_REJECT_DUPLICATES, &error);
  close(fd);
  if (tree == NULL) {
    log_line(LOG_ERROR, "config file %s: line %d, column %d: %s", path, error.line, error.column, error.text);
    return false;
  }
  bool is_good = read_tree(tree, config);
  if (is_good && config->method != NULL && (status.st_mode & 077) != 0)
    log_line(LOG_WARNING, "config file %s: others may read the key in it; chmod 600", path);
  json_decref(tree);
  return is_good;
}

void config_wipe(struct config *config) { sodium_memzero(config->key, sizeof config->key); }
