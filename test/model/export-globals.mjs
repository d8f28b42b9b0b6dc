// Exports each mutable global of a WebAssembly module as `global:N`. Together with linear memory they are the whole
// state of a module that changes no tables.

const GLOBALS = 6
const EXPORTS = 7
const GLOBAL_KIND = 3

class Reader {
  /** @param {Uint8Array} bytes @param {number} [at] */
  constructor(bytes, at = 0) {
    this.bytes = bytes
    this.at = at
  }

  byte() {
    return this.bytes[this.at++] ?? 0
  }

  /** Reads LEB128; the result is exact only for small values. */
  leb() {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte()
      value += (byte & 127) * 2 ** shift
      if (byte < 128) return value
    }
  }

  /** Skips the initial value of a global. */
  skipInit() {
    for (;;) {
      const op = this.byte()
      if (op === 0x0b) return
      if (op === 0x41 || op === 0x42 || op === 0x23) this.leb()
      else if (op === 0x43) this.at += 4
      else if (op === 0x44) this.at += 8
      else throw new Error(`initial value of a global: unknown operation ${op}`)
    }
  }
}

/** @param {number} value */
function leb(value) {
  const bytes = []
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return [...bytes, left]
    bytes.push((left % 128) + 128)
  }
}

/** @param {Uint8Array} bytes @param {number} at */
function mutableGlobals(bytes, at) {
  const reader = new Reader(bytes, at)
  const count = reader.leb()
  /** @type {number[]} */
  const list = []
  for (let i = 0; i < count; i++) {
    reader.byte()
    if (reader.byte() === 1) list.push(i)
    reader.skipInit()
  }
  return list
}

/** @param {Uint8Array} bytes @returns {Uint8Array<ArrayBuffer>} */
export function exportGlobals(bytes) {
  /** @type {Uint8Array[]} */
  const parts = [bytes.subarray(0, 8)]
  /** @type {number[]} */
  let globals = []
  for (const reader = new Reader(bytes, 8); reader.at < bytes.length; ) {
    const start = reader.at
    const id = reader.byte()
    const size = reader.leb()
    const body = reader.at
    reader.at = body + size
    if (id === GLOBALS) globals = mutableGlobals(bytes, body)
    if (id !== EXPORTS) {
      parts.push(bytes.subarray(start, reader.at))
      continue
    }
    const old = new Reader(bytes, body)
    const count = old.leb()
    const entries = globals.flatMap((index) => {
      const name = new TextEncoder().encode(`global:${index}`)
      return [...leb(name.length), ...name, GLOBAL_KIND, ...leb(index)]
    })
    const kept = bytes.subarray(old.at, reader.at)
    const head = leb(count + globals.length)
    parts.push(new Uint8Array([EXPORTS, ...leb(head.length + kept.length + entries.length), ...head]), kept)
    parts.push(new Uint8Array(entries))
  }
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    result.set(part, at)
    at += part.length
  }
  return result
}
