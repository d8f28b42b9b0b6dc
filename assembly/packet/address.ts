/*
 * Peer addresses: 24-byte records that hosts fill from a sockaddr and that compare as plain bytes.
 *
 *   0      2      4          8                      24
 *   +------+------+----------+----------------------+
 *   |family| port | scope id | IP, network order    |   family 4: IP in the first 4 bytes, 12 zero bytes
 *   +------+------+----------+----------------------+
 */

export const ADDRESS_BYTES: u32 = 24

export function sameAddress(a: usize, b: usize): bool {
  return load<u64>(a) == load<u64>(b) && load<u64>(a, 8) == load<u64>(b, 8) && load<u64>(a, 16) == load<u64>(b, 16)
}

export function copyAddress(to: usize, from: usize): void {
  store<u64>(to, load<u64>(from))
  store<u64>(to, load<u64>(from, 8), 8)
  store<u64>(to, load<u64>(from, 16), 16)
}

/** False for an empty record (family 0). */
export function isAddress(record: usize): bool {
  return load<u16>(record) != 0
}

/** Hash of an address and a conv, well mixed in all bits. */
export function hashAddress(record: usize, conv: u32): u32 {
  const prime: u64 = 0x9e3779b97f4a7c15
  let h = load<u64>(record) ^ (<u64>conv * prime)
  h = (h ^ (h >> 32)) * prime
  h ^= load<u64>(record, 8)
  h = (h ^ (h >> 29)) * prime
  h ^= load<u64>(record, 16)
  h = (h ^ (h >> 32)) * prime
  return <u32>(h >> 32)
}
