/** Chooses which client to evict at a limit: the one with the most entries, so that no client can lock others out. */

/**
 * Returns the oldest entry of the holder with the most entries.
 * @param entries oldest first
 * @param holderOf the holder of an entry
 * @returns undefined if there are no entries
 */
export function oldestOfMost<T>(entries: Iterable<T>, holderOf: (entry: T) => string | undefined): T | undefined {
  const counts = new Map<string | undefined, number>()
  const first = new Map<string | undefined, T>()
  let most: T | undefined
  let count = 0
  for (const entry of entries) {
    const holder = holderOf(entry)
    const held = (counts.get(holder) ?? 0) + 1
    counts.set(holder, held)
    if (held === 1) first.set(holder, entry)
    if (held <= count) continue
    count = held
    most = first.get(holder)
  }
  return most
}
