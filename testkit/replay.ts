/**
 * Makes recorded calls to an engine, for comparison of hosts. Uses nothing of a runtime. The format of scripts is that
 * of kcptun-wasm-replay (runtime-c/replay.c).
 */

import type { CoreExports } from '../host/engine/core.ts'

/** Values of a u32. */
const WORD = 0x1_0000_0000
/** Bytes of a read that make its value. */
const VALUE_BYTES = 4

export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += (byte + 0x100).toString(16).slice(1)
  return text
}

function fromHex(hex: string): Uint8Array {
  if (hex.length === 0 || !/^(?:[0-9a-f]{2})+$/i.test(hex)) throw new Error(`bad hex: ${hex}`)
  const bytes = new Uint8Array(hex.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return bytes
}

/** The script's steps on one engine. */
class Replay {
  readonly #calls: CoreExports
  readonly #values: number[] = []

  constructor(calls: CoreExports) {
    this.#calls = calls
  }

  /** @returns what a step prints */
  step(line: string): string {
    const [verb, ...words] = line.trim().split(/\s+/)
    if (verb === 'call') {
      const [name = '', ...args] = words
      const call = (this.#calls as unknown as Record<string, (...args: number[]) => number>)[name]
      if (typeof call !== 'function') throw new Error(`no such export: ${name}`)
      const result = call(...args.map((word) => this.#sum(word)))
      this.#values.push(result >>> 0)
      return `= ${result}`
    }
    if (verb === 'write') {
      const bytes = fromHex(words[1] ?? '')
      this.#range(words[0], bytes.length).set(bytes)
      this.#values.push(0)
      return '-'
    }
    if (verb !== 'read') throw new Error(`expected call, write or read: ${verb}`)
    const bytes = this.#range(words[0], this.#sum(words[1]))
    this.#values.push(bytes.subarray(0, VALUE_BYTES).reduceRight((value, byte) => value * 0x100 + byte, 0))
    return toHex(bytes)
  }

  #sum(word = ''): number {
    return word.split('+').reduce((sum, term) => (sum + this.#term(term)) % WORD, 0)
  }

  #term(term: string): number {
    const value = term.startsWith('$') ? this.#values[Number(term.slice(1)) - 1] : Number(term)
    if (value === undefined || term === '' || !(value >= 0 && value < WORD)) throw new Error(`bad number: ${term}`)
    return value
  }

  #range(address: string | undefined, length: number): Uint8Array {
    const { buffer } = this.#calls.memory
    const at = this.#sum(address)
    if (at + length > buffer.byteLength) throw new Error('not in linear memory')
    return new Uint8Array(buffer, at, length)
  }
}

/**
 * Runs a script on a fresh engine.
 * @returns the lines that the steps print
 * @throws Error for a bad script, with its line
 */
export function replay(script: string, calls: CoreExports): string {
  const run = new Replay(calls)
  const printed: string[] = []
  for (const [i, line] of script.split('\n').entries()) {
    if (/^\s*(?:#|$)/.test(line)) continue
    try {
      printed.push(run.step(line))
    } catch (error) {
      throw new Error(`line ${i + 1}: ${error instanceof Error ? error.message : error}`)
    }
  }
  return `${printed.join('\n')}\n`
}
