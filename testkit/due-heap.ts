export interface Due {
  /** ms */
  readonly due: number
  /** Order of entry, for items due at the same time. */
  readonly order: number
}

const before = (a: Due, b: Due): boolean => a.due < b.due || (a.due === b.due && a.order < b.order)

/** A binary heap of items with a due time, earliest first. */
export class DueHeap<Item extends Due> {
  readonly #heap: Item[] = []

  get length(): number {
    return this.#heap.length
  }

  first(): Item | undefined {
    return this.#heap[0]
  }

  push(item: Item): void {
    const heap = this.#heap
    let i = heap.length
    heap.push(item)
    while (i > 0) {
      const parent = (i - 1) >> 1
      const above = heap[parent]
      if (above === undefined || !before(item, above)) break
      heap[i] = above
      i = parent
    }
    heap[i] = item
  }

  pop(): Item | undefined {
    const heap = this.#heap
    const top = heap[0]
    const item = heap.pop()
    if (top === undefined || item === undefined || heap.length === 0) return top
    let i = 0
    for (;;) {
      const left = 2 * i + 1
      let child = heap[left]
      let at = left
      if (child === undefined) break
      const right = heap[left + 1]
      if (right !== undefined && before(right, child)) {
        child = right
        at = left + 1
      }
      if (!before(child, item)) break
      heap[i] = child
      i = at
    }
    heap[i] = item
    return top
  }

  clear(): void {
    this.#heap.length = 0
  }
}
