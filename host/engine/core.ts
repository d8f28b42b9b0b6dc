/**
 * Instantiates the engine's module; typed exports and views over its memory. Constants are in abi.ts.
 *
 * Other hosts use only this file (it is the package's library entry). The loop that drives the engine is in driver/;
 * sockets and ciphers are elsewhere.
 */
import base64 from 'kcptun-core-wasm'
import {
  ABI_VERSION,
  CALLS,
  COUNTERS,
  ConfigField,
  type ConfigFieldName,
  type CoreConfig,
  type CoreExports,
  type CounterName,
  ErrorCode,
  Info,
  MAX_DATAGRAM_BYTES,
  UNSET,
} from './abi.ts'

export * from './abi.ts'

/** Longest datagram that is processed, bytes (protocol.md 3.5). */
export const DATAGRAM_MAX = MAX_DATAGRAM_BYTES
/** Value of `last_received_age` before the first datagram. */
export const NEVER_RECEIVED = 0xffff_ffff_ffff_ffffn

let embedded: WebAssembly.Module | undefined

/** Decoders that are part of some runtimes. */
interface Decoders {
  readonly Uint8Array: { readonly fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }
  readonly Buffer?: { from(text: string, encoding: 'base64'): Uint8Array<ArrayBuffer> }
}

/**
 * Decodes base64 text. The loop over the characters of the module would be hot: a runtime would load its optimizing
 * compiler for it, which takes 3 to 5 MiB of an idle process.
 */
function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const { Uint8Array: array, Buffer: buffer }: Decoders = globalThis
  if (array.fromBase64 !== undefined) return array.fromBase64(text)
  if (buffer !== undefined) return buffer.from(text, 'base64')
  const binary = atob(text)
  const bytes = new Uint8Array(binary.length)
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i)
  return bytes
}

function isCoreExports(exports: object): exports is CoreExports {
  if (!('memory' in exports)) return false
  const calls = new Map<string, unknown>(Object.entries(exports))
  return CALLS.every((name) => typeof calls.get(name) === 'function')
}

/**
 * Compiles and starts a new instance of the engine, synchronously. One instance is one endpoint.
 * @param bytes the module; default: the module built into this package
 * @throws Error if an export is missing or the ABI version differs
 */
export function instantiate(bytes?: Uint8Array<ArrayBuffer>): CoreExports {
  let module: WebAssembly.Module
  if (bytes) module = new WebAssembly.Module(bytes)
  else module = embedded ??= new WebAssembly.Module(decodeBase64(base64))
  const exports: object = new WebAssembly.Instance(module, {}).exports
  if (!isCoreExports(exports)) {
    const missing = CALLS.filter((name) => !(name in exports))
    throw new Error(`core.wasm: missing exports: ${missing.join(', ')}`)
  }
  const version = exports.abi_version()
  if (version !== ABI_VERSION) throw new Error(`core.wasm: ABI version ${version}, expected ${ABI_VERSION}`)
  return exports
}

/**
 * The engine's exports with views over its memory and its constant addresses, in u32 words for structures made of
 * words. Call `refresh()` after each engine call before reading memory: the engine may have grown it.
 */
export class Core {
  readonly calls: CoreExports
  readonly rxWord: number
  readonly rxSlots: number
  readonly txWord: number
  readonly txSlots: number
  readonly eventWord: number
  readonly spanWord: number
  readonly ioPtr: number
  readonly ioCapacity: number
  readonly entropyPtr: number
  readonly entropyCapacity: number
  readonly statsPtr: number
  readonly keysPtr: number
  u8: Uint8Array<ArrayBuffer>
  u32: Uint32Array<ArrayBuffer>
  #buffer: ArrayBuffer

  constructor(calls: CoreExports) {
    this.calls = calls
    this.#buffer = calls.memory.buffer
    this.u8 = new Uint8Array(this.#buffer)
    this.u32 = new Uint32Array(this.#buffer)
    this.rxWord = calls.rx_ptr() >>> 2
    this.rxSlots = calls.rx_slots()
    this.txWord = calls.tx_ptr() >>> 2
    this.txSlots = calls.tx_slots()
    this.eventWord = calls.events_ptr() >>> 2
    this.spanWord = calls.spans_ptr() >>> 2
    this.ioPtr = calls.io_ptr() >>> 0
    this.ioCapacity = calls.io_capacity()
    this.entropyPtr = calls.entropy_ptr() >>> 0
    this.entropyCapacity = calls.entropy_capacity()
    this.statsPtr = calls.stats_ptr() >>> 0
    this.keysPtr = calls.key_ptr() >>> 0
  }

  /** Recreates the views if memory has grown. */
  refresh(): void {
    // growth detaches the views; reading memory.buffer takes 40 ns in Node
    if (this.u8.length > 0) return
    const { buffer } = this.calls.memory
    this.#buffer = buffer
    this.u8 = new Uint8Array(buffer)
    this.u32 = new Uint32Array(buffer)
  }

  /** Fills the entropy block from the system's random source. */
  fillEntropy(): void {
    this.refresh()
    // getRandomValues accepts at most 65536 bytes, the capacity of the block
    crypto.getRandomValues(this.u8.subarray(this.entropyPtr, this.entropyPtr + this.entropyCapacity))
    this.calls.entropy_filled(this.entropyCapacity)
    this.refresh()
  }

  /**
   * Writes and applies the config block. docs/abi.md lists what later calls may change.
   * @throws Error naming the first field out of range
   */
  configure(config: CoreConfig, now: number): void {
    this.refresh()
    const word = this.calls.config_ptr() >>> 2
    const names = Object.keys(ConfigField) as ConfigFieldName[]
    for (const name of names) this.u32[word + ConfigField[name]] = config[name] ?? UNSET
    const result = this.calls.configure(now)
    this.refresh()
    if (result === 0) return
    const name = names[ErrorCode.CONFIG - result]
    if (name === undefined) throw new Error(`engine: configure failed with code ${result}`)
    throw new Error(`engine: ${name} = ${config[name]} is out of range`)
  }

  /** Writes the block at `secret_ptr`: before the first `configure`, or before `renew_nonce`. */
  writeSecret(block: Uint8Array): void {
    this.refresh()
    this.u8.set(block, this.calls.secret_ptr() >>> 0)
  }

  /** One counter as a bigint. Calls no export, so it can be read after a trap. */
  counter(name: CounterName): bigint {
    this.refresh()
    return new DataView(this.#buffer).getBigUint64(this.statsPtr + COUNTERS.indexOf(name) * 8, true)
  }

  /** @returns ms since the last authentic datagram, undefined before the first */
  receivedAge(now: number): number | undefined {
    this.calls.refresh_gauges(now)
    const age = this.counter('last_received_age')
    return age === NEVER_RECEIVED ? undefined : Number(age)
  }

  /** View over the info block that `session_info` last filled. */
  info(): DataView<ArrayBuffer> {
    this.refresh()
    return new DataView(this.#buffer, this.calls.info_ptr() >>> 0, Info.BYTES)
  }
}
