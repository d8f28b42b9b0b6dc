/* Instances of the engine and their linear memory (docs/abi.md). core_calls.h, made by the build, has their calls. */
#ifndef CORE_H
#define CORE_H

#include <stdint.h>
#include <string.h>

#include "core_calls.h"
#include "kcptun_core.h"
#include "trap.h"

/* The memory of the engine is little-endian, and wasm2c stores it backwards on other machines. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "only for little-endian machines");

/* Creates an instance in `core`. Returns 0, or -1 if the module has another ABI version. */
int core_open(core_t *core);

/*
 * The bytes at an address of the engine's memory. Any call of the engine may move them where memory is checked in
 * software, so pointers are made anew after it.
 */
static inline uint8_t *core_at(core_t *core, uint32_t address) { return core_memory(core) + address; }

static inline uint32_t core_load(core_t *core, uint32_t address) {
  uint32_t word;
  memcpy(&word, core_at(core, address), sizeof word);
  return word;
}

static inline void core_store(core_t *core, uint32_t address, uint32_t word) {
  memcpy(core_at(core, address), &word, sizeof word);
}

#endif
