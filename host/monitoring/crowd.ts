/** Which client is evicted when places are few: the one that holds most of them, so that no client can lock others out. */

/**
 * The oldest entry of the holder that has most entries.
 * @param entries oldest first
 * @param holderOf who holds an entry
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
