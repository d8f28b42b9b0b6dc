/*
 * Doubly linked lists of entries in blocks of their own, the oldest first. Each entry has two adjacent fields for its
 * links, `older` and `younger`; `links` is the offset of the first.
 */
@unmanaged
export class List {
  oldest: usize
  youngest: usize
}

const YOUNGER: usize = 4

/** Appends an entry. */
export function appendEntry(list: List, entry: usize, links: usize): void {
  const before = list.youngest
  store<usize>(entry + links, before)
  store<usize>(entry + links, 0, YOUNGER)
  if (before) store<usize>(before + links, entry, YOUNGER)
  else list.oldest = entry
  list.youngest = entry
}

/** Removes an entry from any position. */
export function unlinkEntry(list: List, entry: usize, links: usize): void {
  const older = load<usize>(entry + links)
  const younger = load<usize>(entry + links, YOUNGER)
  if (older) store<usize>(older + links, younger, YOUNGER)
  else list.oldest = younger
  if (younger) store<usize>(younger + links, older)
  else list.youngest = older
}
