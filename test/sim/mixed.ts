/**
 * One engine and one peer that behaves like the original, joined by seeded links in virtual time. One connection.
 */
import { type CoreConfig, EventType } from '../../host/core.ts'
import { App, type AppScript, SILENT } from './app.ts'
import { address4, check, defaultConfig, Endpoint, MS } from './endpoint.ts'
import { Link, type LinkOptions, PERFECT } from './link.ts'
import { Original, type OriginalOptions, type OriginalSession } from './original.ts'
import { Agenda } from './pair.ts'
import { Random } from './random.ts'

export interface MixedOptions {
  readonly seed: number
  /** which end the engine is */
  readonly ours: 'client' | 'server'
  readonly config?: Partial<CoreConfig>
  readonly original?: Partial<Omit<OriginalOptions, 'role' | 'expected' | 'script'>>
  readonly link?: Partial<LinkOptions>
  readonly script: { readonly ours: Partial<AppScript>; readonly original: Partial<AppScript> }
}

const CONV = 0x12345678

export class Mixed {
  readonly endpoint: Endpoint
  readonly original: Original
  readonly toEngine: Link
  readonly toOriginal: Link
  app: App | undefined
  session: OriginalSession | undefined
  readonly #agenda = new Agenda()
  readonly #peer = address4(7, 7000)
  #inbox: Uint8Array[] = []
  #time = 0

  constructor(options: MixedOptions) {
    const random = new Random(options.seed)
    const ours = { ...SILENT, stream: 1, ...options.script.ours }
    const theirs = { ...SILENT, stream: 2, ...options.script.original }
    const role = options.ours === 'client' ? 'server' : 'client'
    this.toEngine = new Link({ ...PERFECT, ...options.link }, random)
    this.toOriginal = new Link({ ...PERFECT, ...options.link }, random)
    const schedule = (at: number, run: () => void): void => this.#agenda.add(at, run)
    this.original = new Original({ ...options.original, role, expected: ours.stream, script: theirs }, (plain) => {
      for (const { at, bytes } of this.toEngine.send(this.#time, plain)) schedule(at, () => this.#inbox.push(bytes))
    })
    this.endpoint = new Endpoint({
      config: { ...defaultConfig(options.ours), ...options.config },
      seed: random.u32(),
      onTransmit: ({ bytes }) => {
        for (const delivery of this.toOriginal.send(this.#time, bytes)) {
          schedule(delivery.at, () => this.original.receive(delivery.bytes, this.ms))
        }
      },
      onEvent: (event) => {
        if (event.handle === 0) return
        if (event.type === EventType.DIAL) {
          check(this.app === undefined, 'DIAL twice')
          this.app = new App(this.endpoint, event.handle, ours, theirs.stream, false, schedule)
          this.app.other = this.session
          schedule(this.#time + 4, () => {
            check(this.endpoint.connected(event.handle, true) === 0, 'stream_connected failed')
            this.app?.start()
          })
        } else this.app?.event(event)
      },
    })
    if (options.ours === 'client') this.endpoint.setPeer(this.#peer)
    this.endpoint.drain()
    if (options.ours === 'client') {
      const handle = this.endpoint.open()
      check(handle > 0, `stream_open = ${handle}`)
      this.app = new App(this.endpoint, handle, ours, theirs.stream, true, schedule)
      this.app.start()
      this.endpoint.drain()
    } else this.session = this.original.open(CONV, 0)
  }

  get ms(): number {
    return this.#time / MS
  }

  step(limit: number): boolean {
    const { endpoint, original } = this
    const next = Math.max(this.#time, Math.min(this.#agenda.next, endpoint.deadline, Math.ceil(original.deadline * MS)))
    if (next > limit) {
      this.#time = endpoint.time = limit
      return false
    }
    this.#time = endpoint.time = next
    while (this.#agenda.next <= next) this.#agenda.take()?.()
    if (original.deadline * MS <= next) original.expire(this.ms)
    if (endpoint.deadline <= next) endpoint.expire()
    const inbox = this.#inbox
    this.#inbox = []
    if (inbox.length > 0) endpoint.receive(inbox.map((bytes) => ({ bytes, peer: this.#peer })))
    if (!this.session) [this.session] = this.original.sessions.values()
    if (this.app) this.app.other = this.session
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
      `reason ${app?.reason}; original: sent ${session?.sent} received ${session?.received} ${session?.state} ` +
      `end ${session?.endSeen} dropped ${session?.droppedAt}`
    )
  }
}
