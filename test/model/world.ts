/** Transitions: loads a state into the two engines, applies an action, and saves the resulting state. */
import { type CoreConfig, EventType, Info, Mode, NonceStrategy, SessionState } from '../../host/engine/core.ts'
import { decode, decodeSegments } from '../../testkit/decode.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { defaultConfig } from '../../testkit/sim/endpoint.ts'
import { checkDial, checkEnd, checkReset, onBytes } from './checks.ts'
import { hashBytes, hashWords } from './hash.ts'
import { insist, Machine, must } from './machine.ts'
import type { Scenario } from './scenario.ts'
import type { Action, Budgets, Datagram, Side, State, Stream } from './state.ts'
import { Violation } from './state.ts'

const SERVER = 0
const ADDRESSES: readonly Address[] = [address4(1, 29900), address4(2, 40001), address4(3, 40002), address4(4, 40003)]
const KEYS = ADDRESSES.map(addressKey)
/** Ticks of a wait that counts as idle. */
export const IDLE_TICKS = 8000
const TIME_WAIT_SECONDS = 20
/** Maximum lifetime of a datagram, which TIME_WAIT must outlast. */
const LIFE_TICKS = TIME_WAIT_SECONDS * 8000
/** Engine time at the start; a restarted engine starts later. */
const START = 80_000

function configOf(side: Side, scenario: Scenario): CoreConfig {
  const sealing = scenario.sealed
    ? { tagBytes: 16, nonceBytes: 12, nonceStrategy: NonceStrategy.COUNTER, kcpMtu: 1344, replayCapacity: 64 }
    : {}
  return {
    ...defaultConfig(side),
    ...sealing,
    mode: side === 'client' ? Mode.CLIENT : Mode.SERVER,
    memoryCeiling: 64 << 20,
    timeout: 40,
    linger: 10,
    timeWait: TIME_WAIT_SECONDS,
    keepalive: 0,
  }
}

/** Marks in the fingerprint (probe.as): a session, the tombstones, the pairs of addresses. */
const MARK_SESSION = 0xeeee_0000
const MARK_TOMBSTONES = 0xeeee_0001
const MARK_PAIRS = 0xeeee_0002

export class World {
  readonly scenario: Scenario
  readonly machines: Readonly<Record<Side, Machine>>
  /** Log lines, while a trace is recorded. */
  log: string[] | undefined
  streams: Stream[] = []
  net: Datagram[] = []
  now = START
  timers: Record<Side, number> = { client: Infinity, server: Infinity }
  address = 1
  incarnations: Record<Side, number> = { client: 0, server: 0 }
  budgets: Budgets
  isDisturbed = false
  /** Bit masks of the states and flags of all hashed sessions. */
  readonly reached = { states: 0, flags: 0 }

  constructor(module: WebAssembly.Module, scenario: Scenario, plant = 0) {
    this.scenario = scenario
    this.machines = {
      client: new Machine(module, configOf('client', scenario), plant, START),
      server: new Machine(module, configOf('server', scenario), plant, START),
    }
    const { losses, duplicates, holds, serverRestarts, clientRestarts, migrations, aborts, idles } = scenario
    this.budgets = { losses, duplicates, holds, serverRestarts, clientRestarts, migrations, aborts, idles }
  }

  /** The state in which a client has just opened a stream. */
  start(): State {
    this.#drain('server')
    this.machines.client.setPeer(must(ADDRESSES[SERVER]))
    this.open()
    return this.save()
  }

  /** The client opens a stream. */
  open(): void {
    const { client } = this.machines
    client.markDirty()
    const handle = client.calls.stream_open(this.now)
    insist(handle > 0, `stream_open = ${handle}`)
    this.#addStream('client', handle).isDialling = false
    this.#drain('client')
  }

  load(state: State): void {
    this.streams = state.streams.map((stream) => ({ ...stream }))
    this.net = [...state.net]
    this.now = state.now
    this.timers = { ...state.timers }
    this.address = state.address
    this.incarnations = { ...state.incarnations }
    this.budgets = { ...state.budgets }
    this.isDisturbed = state.isDisturbed
    for (const side of ['client', 'server'] as const) {
      this.machines[side].now = state.now
      this.machines[side].restore(state[side])
    }
  }

  save(): State {
    const { client, server } = this.machines
    return {
      client: client.save(),
      server: server.save(),
      streams: this.streams.map((stream) => ({ ...stream })),
      net: this.net,
      now: this.now,
      timers: { ...this.timers },
      address: this.address,
      incarnations: { ...this.incarnations },
      budgets: { ...this.budgets },
      isDisturbed: this.isDisturbed,
    }
  }

  /** Applies `action` to the loaded state. @throws Violation */
  apply(action: Action): void {
    try {
      this.#apply(action)
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) throw new Violation(`the engine trapped: ${error.message}`)
      throw error
    }
  }

  #apply(action: Action): void {
    switch (action.kind) {
      case 'deliver':
        this.#deliver(action.index)
        break
      case 'lose':
        this.budgets.losses--
        this.net = this.net.filter((_, i) => i !== action.index)
        break
      case 'duplicate':
        this.budgets.duplicates--
        this.net = this.net.flatMap((datagram, i) => (i === action.index ? [datagram, datagram] : [datagram]))
        break
      case 'hold':
        this.budgets.holds--
        this.net = this.net.map((datagram, i) => (i === action.index ? { ...datagram, isHeld: true } : datagram))
        break
      case 'wait':
        this.#wait()
        break
      case 'open':
        this.open()
        break
      case 'migrate':
        this.budgets.migrations--
        this.net = this.net.filter(({ to }) => to !== 'client')
        this.address++
        break
      case 'restart':
        this.#restart(action.side)
        break
      default:
        this.#application(action.kind, must(this.streams[action.index]))
    }
  }

  #deliver(index: number): void {
    const datagram = must(this.net[index])
    const { to, plain, nonce, from } = datagram
    this.net = this.net.flatMap((other, i) => {
      if (i === index) return []
      return [other.plain === plain && this.scenario.sealed ? { ...other, isCopy: true } : other]
    })
    this.machines[to].receive(plain, nonce, must(ADDRESSES[from]))
    this.#drain(to)
  }

  /** Ticks until the next timer. */
  get wait(): number {
    return Math.max(0, Math.min(this.timers.client, this.timers.server) - this.now)
  }

  #wait(): void {
    const { wait } = this
    if (wait >= IDLE_TICKS && !this.isFinished) this.budgets.idles--
    this.now += wait
    this.net = this.net.filter(({ sentAt }) => this.now - sentAt < LIFE_TICKS)
    for (const side of ['client', 'server'] as const) {
      const machine = this.machines[side]
      machine.now = this.now
      if (this.timers[side] > this.now) continue
      this.log?.push(`  ${side}: timers, after ${wait / 8} ms`)
      machine.markDirty()
      machine.calls.handle_timeout(this.now)
      this.#drain(side)
    }
  }

  #restart(side: Side): void {
    if (side === 'server') this.budgets.serverRestarts--
    else this.budgets.clientRestarts--
    this.isDisturbed = true
    for (const stream of this.streams) if (stream.side === side) stream.end ??= 'crashed'
    this.incarnations[side]++
    this.net = this.net.filter((datagram) => this.#outlives(datagram, side))
    this.machines[side].restart(this.incarnations[side])
    if (side === 'client') this.machines.client.setPeer(must(ADDRESSES[SERVER]))
    this.#drain(side)
  }

  /**
   * A machine is down for longer than its datagrams stay in flight: the wire format does not distinguish the datagrams
   * of two incarnations of an engine. Without a method not even a late first flight differs from a new one.
   */
  #outlives({ to }: Datagram, side: Side): boolean {
    return this.scenario.lateFromBefore || (this.scenario.sealed && to === side)
  }

  #application(kind: 'write' | 'shut' | 'abort' | 'read' | 'connect' | 'refuse', stream: Stream): void {
    const machine = this.machines[stream.side]
    const { handle } = stream
    if (kind !== 'read') machine.markDirty()
    if (kind === 'write') {
      if (machine.write(handle, (stream.number << 4) | stream.written)) stream.written++
    } else if (kind === 'shut') {
      stream.isShut = true
      machine.calls.stream_shutdown(handle, this.now)
    } else if (kind === 'read') {
      this.#read(stream)
    } else if (kind === 'connect') {
      stream.isDialling = false
      machine.calls.stream_connected(handle, 1, this.now)
    } else {
      this.budgets.aborts--
      this.isDisturbed = true
      stream.end = kind === 'abort' ? 'gave up' : 'refused'
      if (kind === 'abort') machine.calls.stream_abort(handle, this.now)
      else machine.calls.stream_connected(handle, 0, this.now)
    }
    this.#drain(stream.side)
  }

  #read(stream: Stream): void {
    stream.isReadable = false
    const bytes = this.machines[stream.side].read(stream.handle)
    if (bytes.length > 0) this.log?.push(`  ${stream.side}: read ${bytes.join(' ')}`)
    onBytes(stream, bytes, this.streams)
  }

  #addStream(side: Side, handle: number): Stream {
    const machine = this.machines[side]
    machine.markDirty()
    insist(machine.calls.session_find(handle, this.now) === 0, 'session_find failed')
    const conv = machine.core.info().getUint32(Info.conv, true)
    const stream: Stream = {
      side,
      handle,
      conv,
      incarnation: this.incarnations[side],
      number: this.streams.length + 1,
      isDialling: true,
      written: 0,
      isShut: false,
      got: 0,
      source: 0,
      hasEof: false,
      isReadable: false,
      end: undefined,
    }
    this.streams.push(stream)
    return stream
  }

  #drain(side: Side): void {
    const machine = this.machines[side]
    for (let round = 0; ; round++) {
      insist(round < 100, 'endless drain')
      machine.transmit(({ plain, nonce, to }) => this.#send(side, plain, nonce, to))
      const events = machine.events()
      for (const { type, handle, arg } of events) {
        if (handle !== 0) this.#onEvent(side, type, handle, arg)
      }
      if (events.length === 0) break
    }
    this.timers[side] = this.now + machine.wait
  }

  #send(side: Side, plain: Uint8Array, nonce: Uint8Array, to: Address): void {
    const target = KEYS.indexOf(addressKey(to))
    this.log?.push(`  ${side}: sends ${describe(plain)} to ${target === SERVER ? 'the server' : `address ${target}`}`)
    // no endpoint has that address
    if (side === 'server' && target !== this.address) return
    const from = side === 'client' ? this.address : SERVER
    const receiver = side === 'client' ? 'server' : 'client'
    const hash = hashDatagram(plain, from * 16 + target)
    const rest = { sentAt: this.now, hash, isHeld: false, isCopy: false }
    this.net = [...this.net, { to: receiver, from, target, plain, nonce, ...rest }]
  }

  #onEvent(side: Side, type: number, handle: number, arg: number): void {
    if (type === EventType.DIAL) {
      const stream = this.#addStream(side, handle)
      this.log?.push(`  ${side}: DIAL, stream ${stream.number}`)
      checkDial(stream, this.streams)
      return
    }
    const incarnation = this.incarnations[side]
    const stream = this.streams.find((s) => s.side === side && s.handle === handle && s.incarnation === incarnation)
    if (!stream) return
    if (type === EventType.READABLE) {
      if (this.scenario.slowReader) stream.isReadable = true
      else this.#read(stream)
    } else if (type === EventType.EOF) {
      this.log?.push(`  ${side}: EOF of stream ${stream.number}`)
      stream.hasEof = true
      checkEnd(stream, this.streams, 'EOF')
    } else if (type === EventType.ABORT) {
      this.log?.push(`  ${side}: ABORT of stream ${stream.number}, reason ${arg}`)
      stream.end = 'aborted'
      checkReset(stream, this.isDisturbed, arg)
    } else if (type === EventType.DETACH) {
      this.log?.push(`  ${side}: DETACH of stream ${stream.number}`)
      checkEnd(stream, this.streams, 'DETACH')
      stream.end = 'closed'
    }
  }

  /** A datagram in flight, as text. */
  textOf({ plain, from, to, isHeld }: Datagram): string {
    const source = from === SERVER ? 'the server' : `address ${from}`
    return `${describe(plain)} from ${source} to the ${to}${isHeld ? ', held' : ''}`
  }

  /** Both applications have finished. */
  get isFinished(): boolean {
    return this.streams.every(
      ({ end, isShut, isDialling, isReadable }) => end || (isShut && !isDialling && !isReadable),
    )
  }

  /** A hash of the loaded state without fault budgets, equal for states with the same further behaviour. */
  get hash(): number {
    const timers = Math.sign(this.timers.client - this.timers.server)
    const words: number[] = [
      timers,
      this.address,
      this.incarnations.client,
      this.incarnations.server,
      this.isDisturbed ? 1 : 0,
    ]
    for (const s of this.streams) {
      const flags = [s.isDialling, s.isShut, s.hasEof, s.isReadable, s.end === undefined]
      const bits = flags.reduce((sum, flag, i) => sum | (flag ? 1 << i : 0), 0)
      words.push(bits, s.written, s.got, s.source, s.incarnation, (s.end ?? '').length)
    }
    const datagrams = this.net.map(({ hash, isHeld, isCopy, sentAt }) => {
      const age = 32 - Math.clz32((this.now - sentAt) >> 3)
      return (Math.imul(hash, 31) + (isHeld ? 7 : 0) + (isCopy ? 13 : 0) + age * 64) | 0
    })
    words.push(...datagrams.sort((a, b) => a - b))
    return hashWords(words, this.#hashEngine('server', this.#hashEngine('client', 1)))
  }

  #hashEngine(side: Side, seed: number): number {
    const words = this.machines[side].fingerprint()
    if (words[1] === MARK_SESSION) {
      this.reached.states |= 1 << ((words[4] ?? 0) & 255)
      this.reached.flags |= words[5] ?? 0
    }
    if (words[words.indexOf(MARK_TOMBSTONES) + 1] !== MARK_PAIRS) this.reached.states |= 1 << SessionState.TIME_WAIT
    return hashWords(words, seed)
  }
}

const convOf = (plain: Uint8Array): number => new DataView(plain.buffer, plain.byteOffset).getUint32(0)

/** @returns a hash of a datagram without its times and random numbers */
function hashDatagram(plain: Uint8Array, addresses: number): number {
  const { segments } = decodeSegments(plain)
  const conv = convOf(plain)
  const words = [addresses, conv]
  if (conv === 0) words.push(plain[5] ?? 0, plain[5] === 2 ? hashBytes(plain) : 0)
  else {
    for (const { cmd, sn, una, wnd, data } of segments) {
      words.push(cmd.charCodeAt(0) * 256 + cmd.charCodeAt(2), sn, una, wnd === 0 ? 0 : 1, hashBytes(data))
    }
  }
  return hashWords(words, 1) | 0
}

/** @returns the contents of a datagram as text */
export function describe(plain: Uint8Array): string {
  const decoded = decode(plain)
  if ('session0' in decoded) return decoded.session0
  return decodeSegments(plain)
    .segments.map(({ cmd, sn, una, data }) => {
      const bytes = cmd === 'PUSH' ? ` [${data.join(' ')}]` : ''
      return `${cmd} sn ${sn} una ${una}${bytes}`
    })
    .join(' + ')
}
