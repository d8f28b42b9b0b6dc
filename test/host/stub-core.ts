/** A stub engine controlled by the test, for the mechanics of the driver without the protocol. */
import { Core, type CoreExports, Event, Rx, Tx } from '../../host/engine/core.ts'

const RX_PTR = 4096
const RX_SLOTS = 4
const RX_BLOCKS = 8192
const RX_BLOCK_BYTES = 2048
const TX_PTR = 20480
const TX_SLOTS = 4
const TX_BLOCK = 24576
const EVENTS_PTR = 32768
const SPANS_PTR = 36864
const DATA_PTR = 40960
const INFO_PTR = 49152
const STATS_PTR = 50176
const CONFIG_PTR = 51200
const ENTROPY_PTR = 65536
/** A span lies within one datagram. */
const SPAN_BYTES = 1400
const IO_PTR = 131072
const PAGES = 4

/** A datagram as passed to the engine. */
export interface SeenDatagram {
  readonly length: number
  readonly opened: boolean
  readonly port: number
  readonly first: number
}

export interface StubCore {
  readonly core: Core
  readonly memory: WebAssembly.Memory
  /** Names of the calls made, without getters. */
  readonly calls: string[]
  readonly seen: SeenDatagram[]
  /** First bytes of the datagrams to send. */
  readonly outgoing: number[]
  readonly events: [type: number, handle: number, arg: number][]
  /** Bytes for stream_peek, by handle. */
  readonly readable: Map<number, Uint8Array>
  /** Bytes written, by handle. */
  readonly written: Map<number, number[]>
  /** Result of receive_delay, ticks. */
  delay: number
  /** Result of timeout_slack, ticks. */
  slack: number
  /** Result of next_timeout. */
  timeout: number
  /** Number of entropy refills for which poll_transmit still returns E_ENTROPY. */
  thirst: number
  /** Room of stream_reserve in bytes. */
  room: number
}

/** @param overrides calls with other behaviour, such as throwing */
export function stubCore(overrides: Partial<Omit<CoreExports, 'memory'>> = {}): StubCore {
  const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES * 4 })
  const words = (): Uint32Array => new Uint32Array(memory.buffer)
  const bytes = (): Uint8Array => new Uint8Array(memory.buffer)
  const calls: string[] = []
  for (let slot = 0; slot < RX_SLOTS; slot++) {
    const at = RX_PTR / 4 + slot * Rx.WORDS
    words()[at + Rx.ptr] = RX_BLOCKS + slot * RX_BLOCK_BYTES
    words()[at + Rx.capacity] = RX_BLOCK_BYTES
  }
  // destination of datagrams: 127.0.0.1:7000
  words().set([4 | (7000 << 16), 0, 0x0100007f], (CONFIG_PTR + 512) / 4)
  let nextHandle = 1
  const note = (name: string, result = 0): number => {
    calls.push(name)
    return result
  }
  const exports: CoreExports = {
    memory: memory as { readonly buffer: ArrayBuffer },
    abi_version: () => 2,
    capabilities: () => 7,
    config_ptr: () => CONFIG_PTR,
    entropy_ptr: () => ENTROPY_PTR,
    entropy_capacity: () => 65536,
    key_ptr: () => CONFIG_PTR,
    set_key: () => 0,
    find_key: () => -1,
    key_age: () => -1,
    end_key: () => 0,
    secret_ptr: () => 0,
    rx_ptr: () => RX_PTR,
    rx_slots: () => RX_SLOTS,
    tx_ptr: () => TX_PTR,
    tx_slots: () => TX_SLOTS,
    events_ptr: () => EVENTS_PTR,
    event_slots: () => 16,
    io_ptr: () => IO_PTR,
    io_capacity: () => 65536,
    spans_ptr: () => SPANS_PTR,
    span_slots: () => 4,
    peer_ptr: () => CONFIG_PTR + 512,
    stats_ptr: () => STATS_PTR,
    info_ptr: () => INFO_PTR,
    configure: () => note('configure'),
    entropy_filled: () => {
      stub.thirst = Math.max(0, stub.thirst - 1)
      return note('entropy_filled')
    },
    set_peer: () => note('set_peer'),
    rendezvous_ptr: () => CONFIG_PTR + 768,
    local_ptr: () => CONFIG_PTR + 800,
    service_ptr: () => CONFIG_PTR + 832,
    set_rendezvous: () => note('set_rendezvous'),
    add_rendezvous: () => note('add_rendezvous'),
    renew_nonce: () => note('renew_nonce'),
    ping_peer: () => note('ping_peer'),
    ping_address: () => note('ping_address'),
    poll_pongs: () => 0,
    pongs_ptr: () => CONFIG_PTR + 1280,
    punched_ptr: () => CONFIG_PTR + 1312,
    echo_open: () => note('echo_open', -1),
    probe_sessions: () => note('probe_sessions'),
    probe_path: () => note('probe_path'),
    path_moved: () => note('path_moved'),
    handle_datagrams: (count) => {
      for (let slot = 0; slot < count; slot++) {
        const at = RX_PTR / 4 + slot * Rx.WORDS
        stub.seen.push({
          length: words()[at + Rx.length] ?? 0,
          opened: words()[at + Rx.flags] === Rx.OPENED,
          port: (words()[at + Rx.address] ?? 0) >>> 16,
          first: bytes()[words()[at + Rx.ptr] ?? 0] ?? 0,
        })
      }
      return note(`handle_datagrams ${count}`, count)
    },
    handle_timeout: () => {
      stub.timeout = -1
      return note('handle_timeout')
    },
    next_timeout: () => stub.timeout,
    timeout_slack: () => stub.slack,
    receive_delay: () => stub.delay,
    refresh_gauges: () => 0,
    session_find: () => 0,
    poll_transmit: (max) => {
      if (stub.thirst > 0) return -6
      let count = 0
      while (count < Math.min(max, TX_SLOTS)) {
        const first = stub.outgoing.shift()
        if (first === undefined) break
        const at = TX_PTR / 4 + count * Tx.WORDS
        const source = TX_BLOCK + count * 1984
        bytes().fill(first, source, source + 100)
        words()[at + Tx.source] = source
        words()[at + Tx.length] = 100
        words()[at + Tx.address] = CONFIG_PTR + 512
        count++
      }
      if (count > 0) note(`poll_transmit ${count}`)
      return count
    },
    poll_events: () => {
      let count = 0
      for (const [type, handle, arg] of stub.events.splice(0, 16)) {
        const at = EVENTS_PTR / 4 + count * Event.WORDS
        words()[at + Event.type] = type
        words()[at + Event.handle] = handle
        words()[at + Event.arg] = arg
        count++
      }
      return count
    },
    stream_open: () => note('stream_open', nextHandle++),
    stream_connected: (handle, ok) => note(`stream_connected ${handle} ${ok}`),
    stream_limit_unsent: () => 0,
    stream_reserve: () => {
      if (stub.room === 0) return 0
      // two spans, to exercise the loop
      const half = stub.room >> 1
      words().set([DATA_PTR, half, DATA_PTR + half, stub.room - half], SPANS_PTR / 4)
      return 2
    },
    stream_commit: (handle, length) => {
      const list = stub.written.get(handle) ?? []
      list.push(...bytes().slice(DATA_PTR, DATA_PTR + length))
      stub.written.set(handle, list)
      stub.room -= length
      return note(`stream_commit ${handle} ${length}`)
    },
    stream_peek: (handle) => {
      const data = stub.readable.get(handle)
      if (data === undefined || data.length === 0) return 0
      const part = data.subarray(0, 4096)
      bytes().set(part, DATA_PTR)
      let count = 0
      for (let at = 0; at < part.length; at += SPAN_BYTES) {
        words().set([DATA_PTR + at, Math.min(SPAN_BYTES, part.length - at)], SPANS_PTR / 4 + 2 * count++)
      }
      return count
    },
    stream_consume: (handle, length) => {
      stub.readable.set(handle, (stub.readable.get(handle) ?? new Uint8Array()).slice(length))
      return note(`stream_consume ${handle} ${length}`)
    },
    stream_shutdown: (handle) => note(`stream_shutdown ${handle}`),
    stream_abort: (handle) => note(`stream_abort ${handle}`),
    stream_reset: (handle) => note(`stream_reset ${handle}`),
    set_host_bytes: (toTcp, fromTcp) => note(`set_host_bytes ${toTcp} ${fromTcp}`),
    share_rate: (up, down) => note(`share_rate ${up} ${down}`),
    session_slots: () => 0,
    session_info: () => 0,
    obfs_ptr: () => 0,
    obfs_slots: () => 0,
    obfs_rx_ptr: () => 0,
    obfs_early_ptr: () => 0,
    obfs_tx_ptr: () => 0,
    obfs_control_ptr: () => 0,
    obfs_info_ptr: () => 0,
    obfs_configure: () => 0,
    obfs_accept: () => 0,
    obfs_dial: () => 0,
    obfs_release: () => 0,
    obfs_ended: () => 0,
    obfs_handle_packets: () => 0,
    obfs_transmit: () => 0,
    obfs_control: () => 0,
    obfs_context_slots: () => 0,
    obfs_context_info: () => 0,
    ...overrides,
  }
  const stub: StubCore = {
    core: new Core(exports),
    memory,
    calls,
    seen: [],
    outgoing: [],
    events: [],
    readable: new Map(),
    written: new Map(),
    delay: 0,
    slack: 0,
    timeout: -1,
    thirst: 0,
    room: 1 << 20,
  }
  return stub
}
