#include "crypto.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "kcptun_core.h"

/* Argon2id parameters and salt length of docs/abi.md. */
#define PASSES 2
#define MEMORY_BYTES 8192

enum cipher { XCHACHA20, XSALSA20, CHACHA20, AES256GCM, CIPHERS };

static const struct method methods[CIPHERS] = {
    [XCHACHA20] = {"xchacha20poly1305_ietf", 24, KCPTUN_NONCE_RANDOM},
    [XSALSA20] = {"xsalsa20poly1305", 24, KCPTUN_NONCE_RANDOM},
    [CHACHA20] = {"chacha20poly1305_ietf", 12, KCPTUN_NONCE_COUNTER},
    [AES256GCM] = {"aes256gcm", 12, KCPTUN_NONCE_COUNTER},
};

/* Associated data, with their NUL. */
static const uint8_t associated[] = "kcptun-libev";

static const struct method *used;
static uint8_t used_key[CRYPTO_KEY_BYTES];
/* The expanded key of aes256gcm; its type demands alignment. */
static crypto_aead_aes256gcm_state aes_state;

bool crypto_init(void) { return sodium_init() >= 0; }

static bool is_available(const struct method *method) {
  return method != &methods[AES256GCM] || crypto_aead_aes256gcm_is_available();
}

const struct method *crypto_method(const char *name) {
  for (int i = 0; i < CIPHERS; i++)
    if (strcmp(methods[i].name, name) == 0 && is_available(&methods[i])) return &methods[i];
  return NULL;
}

const char *crypto_method_names(void) {
  static char names[128];
  names[0] = '\0';
  for (int i = 0; i < CIPHERS; i++) {
    if (!is_available(&methods[i])) continue;
    size_t length = strlen(names);
    snprintf(names + length, sizeof names - length, "%s%s", length == 0 ? "" : ", ", methods[i].name);
  }
  return names;
}

bool crypto_key_of_password(const char *password, uint8_t key[CRYPTO_KEY_BYTES]) {
  uint8_t salt[crypto_pwhash_SALTBYTES];
  crypto_generichash(salt, sizeof salt, associated, sizeof associated - 1, NULL, 0);
  return crypto_pwhash(key, CRYPTO_KEY_BYTES, password, strlen(password), salt, PASSES, MEMORY_BYTES,
                       crypto_pwhash_ALG_ARGON2ID13) == 0;
}

void crypto_use(const struct method *method, const uint8_t key[CRYPTO_KEY_BYTES]) {
  used = method;
  if (method == NULL) return;
  memcpy(used_key, key, CRYPTO_KEY_BYTES);
  if (method == &methods[AES256GCM]) crypto_aead_aes256gcm_beforenm(&aes_state, used_key);
}

size_t crypto_overhead(void) { return used == NULL ? 0 : CRYPTO_TAG_BYTES + used->nonce_bytes; }

bool crypto_open(uint8_t *text, const uint8_t *datagram, size_t length) {
  if (used == NULL) {
    memcpy(text, datagram, length);
    return true;
  }
  size_t overhead = crypto_overhead();
  if (length < overhead) return false;
  size_t bytes = length - overhead;
  const uint8_t *tag = datagram + bytes;
  const uint8_t *nonce = tag + CRYPTO_TAG_BYTES;
  int bad = -1;
  switch ((enum cipher)(used - methods)) {
  case XCHACHA20:
    bad = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(text, NULL, datagram, bytes, tag, associated,
                                                              sizeof associated, nonce, used_key);
    break;
  case XSALSA20: bad = crypto_secretbox_open_detached(text, datagram, tag, bytes, nonce, used_key); break;
  case CHACHA20:
    bad = crypto_aead_chacha20poly1305_ietf_decrypt_detached(text, NULL, datagram, bytes, tag, associated,
                                                             sizeof associated, nonce, used_key);
    break;
  case AES256GCM:
    bad = crypto_aead_aes256gcm_decrypt_detached_afternm(text, NULL, datagram, bytes, tag, associated,
                                                         sizeof associated, nonce, &aes_state);
    break;
  case CIPHERS: break;
  }
  if (bad != 0) return false;
  memcpy(text + bytes + CRYPTO_TAG_BYTES, nonce, used->nonce_bytes);
  return true;
}

void crypto_seal(uint8_t *out, const uint8_t *text, size_t length) {
  if (used == NULL) return;
  uint8_t *tag = out + length;
  const uint8_t *nonce = tag + CRYPTO_TAG_BYTES;
  switch ((enum cipher)(used - methods)) {
  case XCHACHA20:
    crypto_aead_xchacha20poly1305_ietf_encrypt_detached(out, tag, NULL, text, length, associated, sizeof associated,
                                                        NULL, nonce, used_key);
    break;
  case XSALSA20: crypto_secretbox_detached(out, tag, text, length, nonce, used_key); break;
  case CHACHA20:
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(out, tag, NULL, text, length, associated, sizeof associated,
                                                       NULL, nonce, used_key);
    break;
  case AES256GCM:
    crypto_aead_aes256gcm_encrypt_detached_afternm(out, tag, NULL, text, length, associated, sizeof associated, NULL,
                                                   nonce, &aes_state);
    break;
  case CIPHERS: break;
  }
}

void crypto_wipe(void) {
  sodium_memzero(used_key, sizeof used_key);
  sodium_memzero(&aes_state, sizeof aes_state);
}
