/**
 * The engine's module seen from TypeScript: instantiation, typed exports, and every name of docs/abi.md in one place.
 *
 * Other hosts use this file alone (it is the package's library entry). It leaves the loop that drives the engine to
 * `driver.ts`, and everything about sockets and ciphers to others.
 */
import base64 from 'kcptun-core-wasm'

/** ABI version this file describes. */
export const ABI_VERSION = 1
/** Clock of the engine: ticks in a millisecond. */
export const TICKS_PER_MS = 8
/** A config field that is not set. */
export const UNSET = 0xffffffff
/** Longest datagram that is looked at, bytes (protocol.md 3.5). */
export const DATAGRAM_MAX = 1500

/** Bits of the config field `mode`. */
export const Mode = { SERVER: 1, CLIENT: 2, RENDEZVOUS: 4 } as const

/** Values of the config field `nonceStrategy`. */
export const NonceStrategy = { NONE: 0, RANDOM: 1, COUNTER: 2 } as const

/** Index (u32) of each field of the config block. */
export const ConfigField = {
  mode: 0,
  tagBytes: 1,
  nonceBytes: 2,
  nonceStrategy: 3,
  kcpMtu: 4,
  sndwnd: 5,
  rcvwnd: 6,
  nodelay: 7,
  interval: 8,
  resend: 9,
  nc: 10,
  flush: 11,
  timeout: 12,
  linger: 13,
  keepalive: 14,
  timeWait: 15,
  memoryCeiling: 16,
  maxSessions: 17,
  replayCapacity: 18,
  maxHalfOpen: 19,
  confirm: 20,
} as const
export type ConfigFieldName = keyof typeof ConfigField
/** Values of the config block, in the units of docs/abi.md. */
export type CoreConfig = Record<ConfigFieldName, number>

/** Address record: 24 bytes; word 0 is family | port << 16, word 1 the scope, words 2-5 the IP in network order. */
export const ADDRESS_BYTES = 24
export const ADDRESS_WORDS = 6

/** Receive descriptor, offsets in u32 words. */
export const Rx = { ptr: 0, capacity: 1, length: 2, flags: 3, address: 4, WORDS: 12, OPENED: 1 } as const

/** Transmit descriptor, offsets in u32 words. */
export const Tx = { source: 0, length: 1, out: 2, nonce: 3, address: 4, handle: 5, WORDS: 8 } as const

/** Event, offsets in u32 words. */
export const Event = { type: 0, handle: 1, arg: 2, arg2: 3, WORDS: 4 } as const

/** Values of an event's type. */
export const EventType = {
  DIAL: 1,
  READABLE: 2,
  WRITABLE: 3,
  EOF: 4,
  ABORT: 5,
  DETACH: 6,
  PONG: 7,
  RESOLVE: 8,
  PEER_FOUND: 9,
  MIGRATED: 10,
  MTU: 11,
  OBFS_READY: 12,
  OBFS_ENDED: 13,
} as const

/** Text for the reasons of ABORT, by code. */
export const ABORT_REASONS: readonly string[] = [
  'unknown reason',
  'timeout',
  'linger timeout',
  'no answer',
  'reset by peer',
  'protocol error',
  'out of memory',
  'stale peer address',
  'large datagrams do not pass',
  'the obfuscated connection ended',
]

/** Span, offsets in u32 words. */
export const Span = { ptr: 0, length: 1, WORDS: 2 } as const

/** Negative results. -(100 + i) from `configure` names config field i. */
export const ErrorCode = {
  STATE: -1,
  HANDLE: -2,
  NO_PEER: -3,
  SESSIONS: -4,
  MEMORY: -5,
  ENTROPY: -6,
  ARGUMENT: -7,
  CONFIG_BASE: -100,
} as const

/** Info block of `session_info`, offsets in bytes. */
export const Info = {
  conv: 0,
  state: 4,
  age: 8,
  idle: 12,
  srtt: 16,
  rto: 20,
  waitsnd: 24,
  pace: 28,
  tcpRead: 32,
  tcpWritten: 40,
  address: 48,
  sndwnd: 72,
  rmtWnd: 76,
  cwnd: 80,
  retransmissions: 84,
  rttvar: 88,
  congestion: 92,
  BYTES: 96,
} as const

/** Block of `obfs_ptr`, offsets in bytes. */
export const Obfs = { kind: 0, local: 16, remote: 40, filterLength: 64, filter: 72 } as const
/** `kind` of that block. */
export const ObfsKind = { NONE: 0, TCP_WND: 1, TCP: 2 } as const

/** Descriptor of a captured packet, offsets in u32 words. */
export const ObfsRx = {
  ptr: 0,
  capacity: 1,
  length: 2,
  flags: 3,
  payload: 4,
  payloadLength: 5,
  address: 6,
  context: 7,
  WORDS: 8,
  HAS_PAYLOAD: 1,
} as const

/** Descriptor of a packet to send, offsets in u32 words. */
export const ObfsTx = { ptr: 0, capacity: 1, length: 2, packet: 4, packetLength: 5, address: 8, WORDS: 16 } as const

/** Info block of `obfs_context_info`, offsets in bytes. */
export const ObfsInfo = {
  state: 0,
  idle: 4,
  bytesIn: 8,
  bytesOut: 16,
  congested: 24,
  echoes: 28,
  address: 32,
  context: 56,
  age: 60,
  BYTES: 96,
} as const

/** `state` of that block: nothing of the other side known, its numbers known, a payload was authentic. */
export const ObfsState = { NEW: 1, CAPTURED: 2, AUTHENTICATED: 3 } as const

/** Session states (protocol.md 6.4). */
export const SessionState = { CONNECT: 1, ESTABLISHED: 2, LINGER: 3, TIME_WAIT: 4 } as const

/** Names of the counters; the place in the list is the index in the block of u64 values. */
export const COUNTERS = [
  'tcp_read_bytes',
  'tcp_written_bytes',
  'kcp_received_bytes',
  'kcp_sent_bytes',
  'pkt_received_bytes',
  'pkt_sent_bytes',
  'pkt_received',
  'pkt_sent',
  'segments_received',
  'segments_sent',
  'segments_retransmitted',
  'fast_retransmits',
  'segments_duplicate',
  'acks_sent',
  'acks_received',
  'drop_auth',
  'drop_replay',
  'drop_oversize',
  'drop_short',
  'drop_malformed',
  'drop_memory',
  'drop_window',
  'sessions_opened',
  'sessions_refused',
  'sessions_aborted',
  'resets_sent',
  'resets_received',
  'pings_sent',
  'pongs_received',
  'discarded_bytes',
  'keepalives_sent',
  'rtos',
  'sessions_connect',
  'sessions_established',
  'sessions_linger',
  'sessions_time_wait',
  'waitsnd',
  'memory_used',
  'last_received_age',
  'peer_silent_pings',
  'entropy_left',
  'obfs_dropped_bytes',
  'obfs_dropped',
  'obfs_contexts',
  'obfs_unauthenticated',
  'obfs_refused',
  'obfs_control_sent',
  'drop_reflected',
  'sessions_unconfirmed',
  'pongs_unasked',
] as const
export type CounterName = (typeof COUNTERS)[number]
/** `last_received_age` before the first datagram. */
export const NEVER_RECEIVED = 0xffff_ffff_ffff_ffffn

/** Every export of the module; all arguments and results are i32 (docs/abi.md). */
export interface CoreExports {
  readonly memory: { readonly buffer: ArrayBuffer }
  abi_version(): number
  config_ptr(): number
  entropy_ptr(): number
  entropy_capacity(): number
  secret_ptr(): number
  rx_ptr(): number
  rx_slots(): number
  tx_ptr(): number
  tx_slots(): number
  events_ptr(): number
  event_slots(): number
  io_ptr(): number
  io_capacity(): number
  spans_ptr(): number
  span_slots(): number
  peer_ptr(): number
  stats_ptr(): number
  info_ptr(): number
  configure(now: number): number
  entropy_filled(length: number): number
  set_peer(now: number): number
  rendezvous_ptr(): number
  local_ptr(): number
  service_ptr(): number
  set_rendezvous(idBytes: number, now: number): number
  renew_nonce(): number
  ping_peer(now: number): number
  handle_datagrams(count: number, now: number): number
  handle_timeout(now: number): number
  next_timeout(now: number): number
  poll_transmit(max: number, now: number): number
  poll_events(): number
  stream_open(now: number): number
  stream_connected(handle: number, ok: number, now: number): number
  stream_reserve(handle: number, want: number): number
  stream_commit(handle: number, length: number, now: number): number
  stream_peek(handle: number): number
  stream_consume(handle: number, length: number, now: number): number
  stream_shutdown(handle: number, now: number): number
  stream_abort(handle: number, now: number): number
  set_host_bytes(toTcp: number, fromTcp: number): number
  session_slots(): number
  session_info(slot: number, now: number): number
  obfs_ptr(): number
  obfs_slots(): number
  obfs_rx_ptr(): number
  obfs_early_ptr(): number
  obfs_tx_ptr(): number
  obfs_control_ptr(): number
  obfs_info_ptr(): number
  obfs_configure(now: number): number
  obfs_accept(now: number): number
  obfs_dial(now: number): number
  obfs_release(context: number, now: number): number
  obfs_ended(): number
  obfs_handle_packets(count: number, now: number): number
  obfs_transmit(count: number, now: number): number
  obfs_control(): number
  obfs_context_slots(): number
  obfs_context_info(slot: number): number
}

const CALLS: readonly Exclude<keyof CoreExports, 'memory'>[] = [
  'abi_version',
  'config_ptr',
  'entropy_ptr',
  'entropy_capacity',
  'secret_ptr',
  'rx_ptr',
  'rx_slots',
  'tx_ptr',
  'tx_slots',
  'events_ptr',
  'event_slots',
  'io_ptr',
  'io_capacity',
  'spans_ptr',
  'span_slots',
  'peer_ptr',
  'stats_ptr',
  'info_ptr',
  'configure',
  'entropy_filled',
  'set_peer',
  'rendezvous_ptr',
  'local_ptr',
  'service_ptr',
  'set_rendezvous',
  'renew_nonce',
  'ping_peer',
  'handle_datagrams',
  'handle_timeout',
  'next_timeout',
  'poll_transmit',
  'poll_events',
  'stream_open',
  'stream_connected',
  'stream_reserve',
  'stream_commit',
  'stream_peek',
  'stream_consume',
  'stream_shutdown',
  'stream_abort',
  'set_host_bytes',
  'session_slots',
  'session_info',
  'obfs_ptr',
  'obfs_slots',
  'obfs_rx_ptr',
  'obfs_early_ptr',
  'obfs_tx_ptr',
  'obfs_control_ptr',
  'obfs_info_ptr',
  'obfs_configure',
  'obfs_accept',
  'obfs_dial',
  'obfs_release',
  'obfs_ended',
  'obfs_handle_packets',
  'obfs_transmit',
  'obfs_control',
  'obfs_context_slots',
  'obfs_context_info',
]

let embedded: WebAssembly.Module | undefined

/** Bytes of base64 text. */
function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
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
 * A fresh instance of the engine, compiled and started synchronously. One instance is one endpoint.
 * @param bytes the module; without it the one that is built into this package
 * @throws Error when the module lacks an export or speaks another ABI version
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
 * The engine's exports with views over its memory and the constant addresses, in u32 words where the structure is made
 * of words. `refresh()` must follow every call after which memory is read: the engine may have grown it.
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
  }

  /** Re-makes the views when memory has grown. */
  refresh(): void {
    // growth detaches them; to ask for memory.buffer takes 40 ns in Node
    if (this.u8.length > 0) return
    const { buffer } = this.calls.memory
    this.#buffer = buffer
    this.u8 = new Uint8Array(buffer)
    this.u32 = new Uint32Array(buffer)
  }

  /** Fills the entropy block from the system's random source. */
  fillEntropy(): void {
    this.refresh()
    // getRandomValues takes at most 65536 bytes, the capacity of the block
    crypto.getRandomValues(this.u8.subarray(this.entropyPtr, this.entropyPtr + this.entropyCapacity))
    this.calls.entropy_filled(this.entropyCapacity)
    this.refresh()
  }

  /**
   * Writes the config block and applies it. See docs/abi.md for what later calls change.
   * @throws Error naming the first field out of range
   */
  configure(config: CoreConfig, now: number): void {
    this.refresh()
    const word = this.calls.config_ptr() >>> 2
    const names = Object.keys(ConfigField) as ConfigFieldName[]
    for (const name of names) this.u32[word + ConfigField[name]] = config[name]
    const result = this.calls.configure(now)
    this.refresh()
    if (result === 0) return
    const name = names[ErrorCode.CONFIG_BASE - result]
    if (name === undefined) throw new Error(`engine: configure failed with code ${result}`)
    throw new Error(`engine: ${name} = ${config[name]} is out of range`)
  }

  /** Writes the block at `secret_ptr`: before the first `configure`, or before `renew_nonce`. */
  writeSecret(block: Uint8Array): void {
    this.refresh()
    this.u8.set(block, this.calls.secret_ptr() >>> 0)
  }

  /** One counter as a bigint. Calls nothing: it may be read after a trap. */
  counter(name: CounterName): bigint {
    this.refresh()
    return new DataView(this.#buffer).getBigUint64(this.statsPtr + COUNTERS.indexOf(name) * 8, true)
  }

  /** A view over the info block that `session_info` filled last. */
  info(): DataView<ArrayBuffer> {
    this.refresh()
    return new DataView(this.#buffer, this.calls.info_ptr() >>> 0, Info.BYTES)
  }
}
