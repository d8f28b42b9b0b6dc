/**
 * Records what a host does with an engine as a script for `replay`: its calls, what it writes to linear memory, and
 * reads of what it gets (datagrams, events, bytes of streams).
 */

import { CALLS, type CoreExports, Event, Span, Tx } from '../host/engine/core.ts'
import { toHex } from './replay.ts'

/** Memory is compared in blocks of this size. */
const BLOCK_BYTES = 4096
/** Equal bytes between two changes that are worth a line of their own. */
const GAP_BYTES = 16

export class Recorder {
  readonly #calls: CoreExports
  readonly #lines: string[] = []
  /** The memory after the last call. */
  #known: Buffer

  constructor(calls: CoreExports) {
    this.#calls = calls
    this.#known = Buffer.from(this.#memory)
  }

  /** The script so far, with a read of the whole memory at its end. */
  get script(): string {
    return [...this.#lines, ...this.#writes(), `read 0 ${this.#memory.length}`, ''].join('\n')
  }

  /** The exports to use in place of the engine's. */
  get exports(): CoreExports {
    const exports: Record<string, unknown> = { memory: this.#calls.memory }
    const calls = this.#calls as unknown as Record<string, (...args: number[]) => number>
    for (const name of CALLS) exports[name] = (...args: number[]) => this.#call(name, calls[name], args)
    return exports as unknown as CoreExports
  }

  get #memory(): Buffer {
    return Buffer.from(this.#calls.memory.buffer)
  }

  #call(name: string, call: ((...args: number[]) => number) | undefined, args: readonly number[]): number {
    this.#lines.push(...this.#writes(), ['call', name, ...args.map((arg) => arg >>> 0)].join(' '))
    const result = call?.(...args) ?? 0
    this.#lines.push(...this.#reads(name, result))
    const memory = this.#memory
    if (memory.length === this.#known.length) memory.copy(this.#known)
    else this.#known = Buffer.from(memory)
    return result
  }

  /** What the host wrote since the last call. */
  *#writes(): Generator<string> {
    const memory = this.#memory
    for (let at = 0; at < memory.length; at += BLOCK_BYTES) {
      const end = at + BLOCK_BYTES
      if (memory.compare(this.#known, at, end, at, end) === 0) continue
      for (let i = at; i < end; i++) {
        if (memory[i] === this.#known[i]) continue
        let last = i
        for (let j = i; j < end && j - last < GAP_BYTES; j++) if (memory[j] !== this.#known[j]) last = j
        yield `write ${i} ${toHex(memory.subarray(i, last + 1))}`
        i = last
      }
    }
  }

  /** Reads of what a call gave to the host. */
  *#reads(name: string, count: number): Generator<string> {
    if (count <= 0) return
    const words = new Uint32Array(this.#calls.memory.buffer)
    if (name === 'poll_events') yield `read ${this.#calls.events_ptr()} ${4 * Event.WORDS * count}`
    const isPeek = name === 'stream_peek'
    if (!isPeek && name !== 'poll_transmit') return
    const table = isPeek ? this.#calls.spans_ptr() : this.#calls.tx_ptr()
    const size = isPeek ? Span.WORDS : Tx.WORDS
    yield `read ${table} ${4 * size * count}`
    for (let at = table >>> 2; count > 0; at += size, count--) {
      yield `read ${words[at + (isPeek ? Span.ptr : Tx.source)]} ${words[at + (isPeek ? Span.length : Tx.length)]}`
    }
  }
}
