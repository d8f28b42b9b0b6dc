/**
 * A client and a server engine joined by two seeded links in virtual time. Steps from event to event and checks the
 * invariants of both ends (docs/protocol.md 6.5, 6.7).
 */

import { type CoreConfig, type CoreExports, EventType } from '../../host/engine/core.ts'
import { type Address, address4, addressKey } from './address.ts'
import { App, type AppScript, SILENT } from './app.ts'
import { check, type Datagram, defaultConfig, Endpoint, MS, SECOND } from './endpoint.ts'
import { Link, type LinkOptions, PERFECT } from './link.ts'
import { Random } from './random.ts'
import { fakeSeal, type Sealing, sealingConfig } from './sealing.ts'

/** A time-ordered queue; equal times are in order of entry. */
export class Agenda {
  readonly #heap: { at: number; order: number; run: () => void }[] = []
  #order = 0

  get next(): number {
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY
  }

  add(at: number, run: () => void): void {
    const heap = this.#heap
    const item = { at, order: this.#order++, run }
    let i = heap.length
    heap.push(item)
    while (i > 0) {
      const parent = (i - 1) >> 1
      const above = heap[parent]
      if (above === undefined || above.at < at || (above.at === at && above.order < item.order)) break
      heap[i] = above
      i = parent
    }
    heap[i] = item
  }

  /** Removes the first item. */
  take(): (() => void) | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || heap.length === 0) return first?.run
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      const left = heap[child]
      const right = heap[child + 1]
      let lowest = left
      if (right && left && (right.at < left.at || (right.at === left.at && right.order < left.order))) {
        child++
        lowest = right
      }
      if (!lowest || last.at < lowest.at || (last.at === lowest.at && last.order < lowest.order)) break
      heap[i] = lowest
      i = child
    }
    heap[i] = last
    return first.run
  }
}

export interface PairOptions {
  readonly seed: number
  readonly sealing?: Sealing
  readonly client?: Partial<CoreConfig>
  readonly server?: Partial<CoreConfig>
  /** client to server */
  readonly up?: Partial<LinkOptions>
  /** server to client */
  readonly down?: Partial<LinkOptions>
  /** engine clocks at the start */
  readonly clientClock?: number
  readonly serverClock?: number
  readonly entropyChunk?: number
  /** host timers fire up to this many ms late */
  readonly timerSlack?: number
  /** Wraps the exports of an engine. */
  readonly wrap?: (calls: CoreExports, side: Side) => CoreExports
}

export interface ConnectionScript {
  readonly client: Partial<AppScript>
  readonly server: Partial<AppScript>
  /** ms from DIAL to the answer of the target */
  readonly dial?: number
  readonly refuse?: boolean
}

export class Connection {
  readonly conv: number
  readonly client: App
  server: App | undefined
  readonly script: ConnectionScript
  readonly clientScript: AppScript
  readonly serverScript: AppScript

  constructor(conv: number, client: App, script: ConnectionScript, clientScript: AppScript, serverScript: AppScript) {
    this.conv = conv
    this.client = client
    this.script = script
    this.clientScript = clientScript
    this.serverScript = serverScript
  }

  /** Both ends are done. */
  get over(): boolean {
    return this.client.ending !== undefined && (this.server === undefined || this.server.ending !== undefined)
  }

  /** Everything arrived in both directions and both endpoints received a clean end. */
  get clean(): boolean {
    const { client, server } = this
    return (
      client.ending === 'detached' &&
      server?.ending === 'detached' &&
      client.received === this.serverScript.bytes &&
      server.received === this.clientScript.bytes
    )
  }

  /** One line for a failure message. */
  describe(): string {
    const end = (app: App | undefined): string =>
      app
        ? `sent ${app.sent}/${app.script.bytes} received ${app.received} fin ${app.finSent} eof ${app.eof} ` +
          `${app.ending ?? 'open'} reason ${app.reason}`
        : 'none'
    return `client ${end(this.client)}; server ${end(this.server)}`
  }
}

const CLIENT_ADDRESS = address4(1, 40000)
const SERVER_ADDRESS = address4(2, 29900)

/** Sides of a pair. */
export type Side = 'client' | 'server'

export class Pair {
  readonly client: Endpoint
  server: Endpoint
  readonly up: Link
  readonly down: Link
  readonly connections: Connection[] = []
  readonly random: Random
  /** Source address of the client's datagrams; a NAT may change it. */
  clientAddress: Address = CLIENT_ADDRESS
  /** Called with every datagram sent; false drops it. `isMerged`: see Runs. */
  tap: ((from: Side, bytes: Uint8Array, isMerged: boolean) => boolean) | undefined
  readonly #agenda = new Agenda()
  readonly #inbox: Record<Side, Datagram[]> = { client: [], server: [] }
  readonly #apps: Record<Side, Map<number, App>> = { client: new Map(), server: new Map() }
  readonly #byConv = new Map<number, Connection>()
  readonly #slack: number
  readonly #makeServer: () => Endpoint
  readonly #baseMemory: Record<Side, number>
  #time = 0

  constructor(options: PairOptions) {
    this.random = new Random(options.seed)
    const sealed = sealingConfig(options.sealing ?? 'none')
    const make = (side: Side, peer: Side, config: Partial<CoreConfig>, clock: number): Endpoint =>
      new Endpoint({
        config: { ...defaultConfig(side), ...sealed, ...config },
        seed: this.random.u32(),
        clock,
        ...(options.entropyChunk === undefined ? {} : { entropyChunk: options.entropyChunk }),
        wrap: (calls) => options.wrap?.(calls, side) ?? calls,
        onTransmit: (datagram) => this.#carry(side, peer, datagram),
        onEvent: (event) => {
          if (event.handle === 0) return
          if (event.type === EventType.DIAL) this.#dial(event.handle)
          else this.#app(side, event.handle).event(event)
        },
      })
    this.up = new Link({ ...PERFECT, ...options.up }, this.random)
    this.down = new Link({ ...PERFECT, ...options.down }, this.random)
    this.client = make('client', 'server', options.client ?? {}, options.clientClock ?? 0)
    this.#makeServer = () => make('server', 'client', options.server ?? {}, options.serverClock ?? 0)
    this.server = this.#makeServer()
    this.#slack = (options.timerSlack ?? 0) * MS
    this.client.setPeer(SERVER_ADDRESS)
    this.client.drain()
    this.server.drain()
    this.#baseMemory = { client: this.client.counter('memory_used'), server: this.server.counter('memory_used') }
  }

  /** Virtual time in ms. */
  get ms(): number {
    return this.#time / MS
  }

  /** Runs a callback in `ms`. */
  after(ms: number, run: () => void): void {
    this.#agenda.add(this.#time + ms * MS, run)
  }

  /** Connects an application to the client. */
  connect(script: ConnectionScript): Connection {
    const handle = this.client.open()
    check(handle > 0, `stream_open = ${handle}`)
    const clientScript = { ...SILENT, ...script.client }
    const serverScript = { ...SILENT, ...script.server }
    const schedule = (at: number, run: () => void): void => this.#agenda.add(at, run)
    const app = new App(this.client, handle, clientScript, serverScript.stream, true, schedule)
    const conv = this.client.convOf(handle)
    const connection = new Connection(conv, app, script, clientScript, serverScript)
    this.connections.push(connection)
    this.#byConv.set(conv, connection)
    this.#apps.client.set(handle, app)
    app.start()
    return connection
  }

  /** Kills the server process and starts it again without any state; its TCP connections are lost. */
  restartServer(): void {
    for (const app of this.#apps.server.values()) app.kill()
    this.#apps.server.clear()
    this.#inbox.server = []
    // datagrams of the old process may still arrive: `other` of the clients stays
    for (const connection of this.connections) connection.server = undefined
    this.server = this.#makeServer()
    this.server.time = this.#time
    this.server.drain()
  }

  #app(side: Side, handle: number): App {
    const app = this.#apps[side].get(handle)
    check(app !== undefined, `${side}: event for unknown handle ${handle}`)
    return app
  }

  #dial(handle: number): void {
    const conv = this.server.convOf(handle)
    const connection = this.#byConv.get(conv)
    check(connection !== undefined, `DIAL for unknown conv ${conv}`)
    // a session that was reset and removed may start again if its first flight was never acknowledged
    check(connection.server?.ending !== undefined || connection.server === undefined, 'DIAL twice')
    const schedule = (at: number, run: () => void): void => this.#agenda.add(at, run)
    const app = new App(this.server, handle, connection.serverScript, connection.clientScript.stream, false, schedule)
    connection.server = app
    app.other = connection.client
    connection.client.other = app
    this.#apps.server.set(handle, app)
    this.after(connection.script.dial ?? 0.5, () => {
      if (app.ending) return
      const refused = connection.script.refuse === true
      app.connected = !refused
      check(this.server.connected(handle, !refused) === 0, 'stream_connected failed')
      if (refused) app.refuse()
      else app.start()
    })
  }

  #carry(from: Side, to: Side, datagram: Datagram): void {
    if (this.tap && !this.tap(from, datagram.bytes, datagram.isMerged === true)) return
    const link = from === 'client' ? this.up : this.down
    const peer: Address = from === 'client' ? this.clientAddress : SERVER_ADDRESS
    // datagrams to an unused address are lost
    if (from === 'server' && addressKey(datagram.peer) !== addressKey(this.clientAddress)) return
    for (const { at, bytes } of link.send(this.#time, datagram.bytes, datagram.mayFragment)) {
      this.#agenda.add(at, () => this.#inbox[to].push({ bytes, peer }))
    }
  }

  /** Delivers a datagram at once, as if sent by the other side. */
  inject(to: Side, bytes: Uint8Array, peer: Address = to === 'server' ? this.clientAddress : SERVER_ADDRESS): void {
    this.#inbox[to].push({ bytes, peer })
    this.settle()
  }

  /** Queues a plaintext for a side, as if sent by the other side, for the next step. */
  post(to: Side, plain: Uint8Array): void {
    const { tagBytes, nonceBytes } = this[to].config
    const bytes = tagBytes === 0 ? plain : fakeSeal(plain, this.random.bytes(nonceBytes))
    this.#inbox[to].push({ bytes, peer: to === 'server' ? this.clientAddress : SERVER_ADDRESS })
  }

  /** Delivers what arrived and drains both endpoints at the current time. */
  settle(): void {
    for (const side of ['client', 'server'] as const) {
      const endpoint = this[side]
      endpoint.time = this.#time
      const inbox = this.#inbox[side]
      if (inbox.length > 0) {
        this.#inbox[side] = []
        endpoint.receive(inbox)
      }
      endpoint.drain()
    }
  }

  /** Advances to the next event, at most to `limit` (ticks). @returns false if there is none */
  step(limit = Number.POSITIVE_INFINITY): boolean {
    const late = this.#slack > 0 ? this.random.below(this.#slack + 1) : 0
    const timer = Math.min(this.client.deadline, this.server.deadline)
    const next = Math.max(this.#time, Math.min(this.#agenda.next, timer + late))
    if (next === Number.POSITIVE_INFINITY || next > limit) {
      if (limit !== Number.POSITIVE_INFINITY) this.#time = Math.max(this.#time, limit)
      this.client.time = this.server.time = this.#time
      return false
    }
    this.#time = this.client.time = this.server.time = next
    while (this.#agenda.next <= next) this.#agenda.take()?.()
    for (const endpoint of [this.client, this.server]) if (endpoint.deadline <= next) endpoint.expire()
    this.settle()
    return true
  }

  /** Runs for `ms`. */
  run(ms: number): void {
    const limit = this.#time + ms * MS
    while (this.step(limit));
  }

  /** Runs until `done`, at most `seconds`. @returns whether it was reached */
  runUntil(done: () => boolean, seconds: number): boolean {
    const limit = this.#time + seconds * SECOND
    while (!done()) if (!this.step(limit)) return done()
    return true
  }

  /** Runs until every connection is over. */
  finish(seconds: number): boolean {
    return this.runUntil(() => this.connections.every((connection) => connection.over), seconds)
  }

  /** Describes memory and sessions still held after every session ended; '' if none. */
  leak(): string {
    const found: string[] = []
    for (const side of ['client', 'server'] as const) {
      const endpoint = this[side]
      const tables = endpoint.counter('sessions_opened') > 0 ? keptTables() : 0
      const bytes = endpoint.counter('memory_used') - this.#baseMemory[side] - tables
      if (endpoint.sessions !== 0) found.push(`${side}: ${endpoint.sessions} sessions`)
      if (endpoint.counter('waitsnd') !== 0) found.push(`${side}: ${endpoint.counter('waitsnd')} segments waiting`)
      if (bytes !== 0) found.push(`${side}: ${bytes} bytes`)
    }
    return found.join(', ')
  }
}

let tables: number | undefined

/** Bytes of the session tables, allocated with the first session, never freed, and large enough for 32. */
function keptTables(): number {
  if (tables === undefined) {
    tables = 0
    const pair = new Pair({ seed: 1 })
    const before = pair.client.counter('memory_used')
    pair.connect({ client: {}, server: {} })
    pair.finish(10)
    pair.runUntil(() => pair.client.sessions + pair.server.sessions === 0, 3600)
    tables = pair.client.counter('memory_used') - before
  }
  return tables
}
