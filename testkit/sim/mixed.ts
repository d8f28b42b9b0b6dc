/**
 * One engine and one model of a kcptun-libev peer, joined by seeded links in virtual time. Starts with one connection;
 * `connect` adds more. All follow the same scripts.
 */

import { type CoreConfig, EventType } from '../../host/engine/core.ts'
import { address4 } from './address.ts'
import { App, type AppScript, SILENT } from './app.ts'
import { check, defaultConfig, Endpoint, MS } from './endpoint.ts'
import { LibevPeer, type LibevPeerOptions, type LibevSession } from './libev-peer.ts'
import { Link, type LinkOptions, PERFECT } from './link.ts'
import { Agenda } from './pair.ts'
import { Random } from './random.ts'

export interface MixedOptions {
  readonly seed: number
  /** role of the engine */
  readonly ours: 'client' | 'server'
  readonly config?: Partial<CoreConfig>
  readonly libev?: Partial<Omit<LibevPeerOptions, 'role' | 'expected' | 'script'>>
  readonly link?: Partial<LinkOptions>
  readonly script: { readonly ours: Partial<AppScript>; readonly libev: Partial<AppScript> }
}

const CONV = 0x12345678

export class Mixed {
  readonly endpoint: Endpoint
  readonly libev: LibevPeer
  readonly toEngine: Link
  readonly toLibev: Link
  /** Applications by conv. */
  readonly apps = new Map<number, App>()
  readonly #ours: AppScript
  readonly #theirs: AppScript
  readonly #isClient: boolean
  #nextConv = CONV
  readonly #agenda = new Agenda()
  readonly #peer = address4(7, 7000)
  readonly #byHandle = new Map<number, App>()
  #inbox: Uint8Array[] = []
  #time = 0

  constructor(options: MixedOptions) {
    const random = new Random(options.seed)
    const ours = { ...SILENT, stream: 1, ...options.script.ours }
    const theirs = { ...SILENT, stream: 2, ...options.script.libev }
    this.#ours = ours
    this.#theirs = theirs
    this.#isClient = options.ours === 'client'
    const role = options.ours === 'client' ? 'server' : 'client'
    this.toEngine = new Link({ ...PERFECT, ...options.link }, random)
    this.toLibev = new Link({ ...PERFECT, ...options.link }, random)
    const schedule = (at: number, run: () => void): void => this.#agenda.add(at, run)
    this.libev = new LibevPeer({ ...options.libev, role, expected: ours.stream, script: theirs }, (plain) => {
      for (const { at, bytes } of this.toEngine.send(this.#time, plain.slice()))
        schedule(at, () => this.#inbox.push(bytes))
    })
    this.endpoint = new Endpoint({
      config: { ...defaultConfig(options.ours), ...options.config },
      seed: random.u32(),
      onTransmit: ({ bytes, mayFragment }) => {
        for (const delivery of this.toLibev.send(this.#time, bytes, mayFragment)) {
          schedule(delivery.at, () => this.libev.receive(delivery.bytes, this.ms))
        }
      },
      onEvent: (event) => {
        if (event.handle === 0) return
        if (event.type === EventType.DIAL) {
          const conv = this.endpoint.convOf(event.handle)
          check(!this.apps.has(conv), 'DIAL twice')
          const app = this.#add(conv, event.handle, false)
          schedule(this.#time + 4, () => {
            check(this.endpoint.connected(event.handle, true) === 0, 'stream_connected failed')
            app.start()
          })
        } else this.#byHandle.get(event.handle)?.event(event)
      },
    })
    if (options.ours === 'client') this.endpoint.setPeer(this.#peer)
    this.endpoint.drain()
    this.connect()
  }

  /** Opens another connection. @returns its conv */
  connect(): number {
    if (!this.#isClient) {
      const conv = this.#nextConv++
      this.libev.open(conv, this.ms)
      return conv
    }
    const handle = this.endpoint.open()
    check(handle > 0, `stream_open = ${handle}`)
    const conv = this.endpoint.convOf(handle)
    this.#add(conv, handle, true).start()
    this.endpoint.drain()
    return conv
  }

  #add(conv: number, handle: number, isConnected: boolean): App {
    const schedule = (at: number, run: () => void): void => this.#agenda.add(at, run)
    const app = new App(this.endpoint, handle, this.#ours, this.#theirs.stream, isConnected, schedule)
    this.apps.set(conv, app)
    this.#byHandle.set(handle, app)
    return app
  }

  /** The first connection. */
  get app(): App | undefined {
    return [...this.apps.values()][0]
  }

  get session(): LibevSession | undefined {
    return [...this.libev.sessions.values()][0]
  }

  get ms(): number {
    return this.#time / MS
  }

  step(limit: number): boolean {
    const { endpoint, libev } = this
    const next = Math.max(this.#time, Math.min(this.#agenda.next, endpoint.deadline, Math.ceil(libev.deadline * MS)))
    if (next > limit) {
      this.#time = endpoint.time = limit
      return false
    }
    this.#time = endpoint.time = next
    while (this.#agenda.next <= next) this.#agenda.take()?.()
    if (libev.deadline * MS <= next) libev.expire(this.ms)
    if (endpoint.deadline <= next) endpoint.expire()
    const inbox = this.#inbox
    this.#inbox = []
    // a host drains after every batch
    for (let at = 0; at < inbox.length; at += endpoint.core.rxSlots) {
      endpoint.receive(inbox.slice(at, at + endpoint.core.rxSlots).map((bytes) => ({ bytes, peer: this.#peer })))
      endpoint.drain()
    }
    for (const [conv, app] of this.apps) app.other ??= this.libev.sessions.get(conv)
    endpoint.drain()
    return true
  }

  runUntil(done: () => boolean, seconds: number): boolean {
    const limit = this.#time + seconds * 1000 * MS
    while (!done()) if (!this.step(limit)) return done()
    return true
  }

  describe(): string {
    const { app, session } = this
    return (
      `at ${this.ms} ms; ours: sent ${app?.sent} received ${app?.received} eof ${app?.eof} ${app?.ending ?? 'open'} ` +
      `reason ${app?.reason}; libev: sent ${session?.sent} received ${session?.received} ${session?.state} ` +
      `end ${session?.endSeen} dropped ${session?.droppedAt}`
    )
  }
}
