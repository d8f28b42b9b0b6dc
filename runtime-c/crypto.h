/* The ciphers of docs/abi.md, by libsodium. One key for the process. */
#ifndef CRYPTO_H
#define CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRYPTO_KEY_BYTES 32
#define CRYPTO_TAG_BYTES 16

struct method {
  const char *name;
  uint32_t nonce_bytes;
  /* KCPTUN_NONCE_* */
  uint32_t nonce_strategy;
};

/* Prepares libsodium. Returns false if it cannot be used. */
bool crypto_init(void);

/* Returns NULL for an unknown name, and for a cipher that this CPU does not have. */
const struct method *crypto_method(const char *name);

/* Names of all methods of this machine, for messages. */
const char *crypto_method_names(void);

/* Derives the key of a password. Returns false if memory is exhausted. */
bool crypto_key_of_password(const char *password, uint8_t key[CRYPTO_KEY_BYTES]);

/* Sets method and key, of which a copy is kept; NULL = plaintext. */
void crypto_use(const struct method *method, const uint8_t key[CRYPTO_KEY_BYTES]);

/* Bytes that sealing adds. */
size_t crypto_overhead(void);

/*
 * Opens a datagram as received into `text` and copies its nonce to where it would be if the datagram had been copied
 * there; without method copies it. Returns false if it is not authentic; `text` is then unspecified.
 */
bool crypto_open(uint8_t *text, const uint8_t *datagram, size_t length);

/* Seals `length` bytes into `out`, which may be `text`: ciphertext and tag. The nonce follows them there already. */
void crypto_seal(uint8_t *out, const uint8_t *text, size_t length);

/* Overwrites the key. */
void crypto_wipe(void);

#endif
