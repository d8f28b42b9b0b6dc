/*
 * The config block: what the host wrote, and whether it is in range (docs/abi.md, "Config block").
 */
import {
  CONFIG_FIELDS,
  CONFIG_MODE,
  CONFIG_NONCE_BYTES,
  CONFIG_NONCE_STRATEGY,
  CONFIG_RANGES,
  CONFIG_TAG_BYTES,
  MODE_CLIENT,
  MODE_SERVER,
  NONCE_COUNTER,
  UNSET,
} from '../abi'

export const config: usize = memory.data(32 * 4, 8)

/** @returns value of a config field */
export function field(i: u32): u32 {
  return load<u32>(config + ((<usize>i) << 2))
}

/**
 * Checks the config block.
 * @returns -1 if it is valid, otherwise the index of the first invalid field
 */
export function badField(): i32 {
  for (let i: u32 = 0; i < CONFIG_FIELDS; i++) {
    if (!isInRange(i) || !isPossible(i)) return i
  }
  return -1
}

function isInRange(i: u32): bool {
  const value = field(i)
  const range = 3 * i
  if (CONFIG_RANGES[range + 2] && value == UNSET) return true
  return value >= CONFIG_RANGES[range] && value <= CONFIG_RANGES[range + 1]
}

/** What a range cannot say. */
function isPossible(i: u32): bool {
  const value = field(i)
  if (i == CONFIG_MODE) return (value & (MODE_SERVER | MODE_CLIENT)) != (MODE_SERVER | MODE_CLIENT)
  if (i == CONFIG_TAG_BYTES) return value == 0 || value == 16
  if (i == CONFIG_NONCE_BYTES) return value == 0 || value == 12 || value == 24
  if (i == CONFIG_NONCE_STRATEGY) return value != NONCE_COUNTER || field(CONFIG_NONCE_BYTES) == 12
  return true
}
