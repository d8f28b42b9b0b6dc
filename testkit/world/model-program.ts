/** The model of kcptun-libev (testkit/sim/libev-peer.ts) as a program of a simulated world, on a sealed UDP socket. */
import type { Aead } from '../../host/crypto/aead.ts'
import { formatAddress, type SocketAddress } from '../../host/net/address.ts'
import type { AppScript } from '../sim/app.ts'
import { LibevPeer, type LibevSession } from '../sim/libev-peer.ts'
import { Random } from '../sim/random.ts'
import { Process } from './machine.ts'
import { ipv4 } from './network.ts'
import type { ProgramOptions } from './program.ts'
import { SimulatedUdp } from './udp.ts'

/** Interval of its timer, and of the timer of an idle model, which saves events in long stalls. */
const TICK_MS = 100
const IDLE_TICK_MS = 1000
const ACTIVE_MS = 20_000

export interface ModelOptions extends ProgramOptions {
  readonly role: 'client' | 'server'
  readonly aead: Aead
  readonly port: number
  /** Client: address of the server. */
  server(): SocketAddress
  /** Number of the expected pattern. */
  readonly expected: number
  readonly script: Partial<AppScript>
  readonly seed: number
}

/** Sessions are identified by address and conversation: each address has its own model. */
export class ModelProgram {
  readonly options: ModelOptions
  /** Sessions of all runs. */
  readonly sessions: LibevSession[] = []
  starts = 0
  /** Time of the last authentic datagram or opened session. */
  #lastActivity = 0
  #process: Process | undefined
  #peers = new Map<string, LibevPeer>()
  #socket: SimulatedUdp | undefined
  /** Buffer for sealing and opening: a cipher keeps views of one buffer. */
  readonly #scratch = new Uint8Array(2048)
  readonly #random: Random
  #conv: number
  #restartAt = 0

  constructor(options: ModelOptions) {
    this.options = options
    this.#random = new Random(options.seed)
    this.#conv = this.#random.u32() >>> 1
  }

  get name(): string {
    return this.options.name
  }

  start(): void {
    const { machine, network, report, role, port } = this.options
    const process = new Process(machine, `${this.name}#${++this.starts}`, report)
    this.#process = process
    process.onEnd(() => {
      this.#process = undefined
      this.#peers = new Map()
      machine.loop.at(this.#restartAt, () => this.start())
    })
    const bind = ipv4('0.0.0.0', role === 'server' ? port : 0)
    this.#socket = new SimulatedUdp(
      network,
      process,
      { bind },
      {
        onDatagram: (data, from) => this.#onDatagram(data, from),
        onBatchEnd() {},
        onWritable() {},
        onError() {},
      },
    )
    this.#tick(process)
  }

  kill(downtime: number): void {
    this.#restartAt = this.options.machine.loop.now + downtime
    this.#process?.end()
  }

  /**
   * Client: opens a session for an application.
   * @returns undefined while the program does not run
   */
  open(): LibevSession | undefined {
    if (this.#process === undefined) return undefined
    const { now } = this.options.machine.loop
    this.#lastActivity = now
    const model = this.#model(this.options.server())
    const session = model.open(++this.#conv, now)
    this.sessions.push(session)
    return session
  }

  #tick(process: Process): void {
    const { loop } = this.options.machine
    for (const model of this.#peers.values()) {
      if (model.deadline <= loop.now) model.expire(loop.now)
    }
    const pause = loop.now - this.#lastActivity < ACTIVE_MS ? TICK_MS : IDLE_TICK_MS
    process.at(loop.now + pause, () => this.#tick(process))
  }

  #model(peer: SocketAddress): LibevPeer {
    const key = this.options.role === 'client' ? '' : formatAddress(peer)
    let model = this.#peers.get(key)
    if (model === undefined) {
      const { role, expected, script } = this.options
      model = new LibevPeer({ role, expected, script }, (plain) => this.#emit(peer, plain))
      model.onSession = (session) => this.sessions.push(session)
      this.#peers.set(key, model)
    }
    return model
  }

  #emit(peer: SocketAddress, plain: Uint8Array): void {
    const { aead, role } = this.options
    const buffer = this.#socket?.acquire()
    if (!buffer) return
    const nonce = this.#random.bytes(aead.nonceBytes)
    this.#scratch.set(plain)
    const length = aead.seal(this.#scratch, 0, plain.length, nonce, 0, buffer, 0)
    this.#socket?.send(buffer, length, role === 'client' ? this.options.server() : peer)
  }

  #onDatagram(data: Uint8Array, from: SocketAddress): void {
    this.#scratch.set(data)
    const length = this.options.aead.open(this.#scratch, 0, data.length)
    if (length < 0) return
    const { now } = this.options.machine.loop
    this.#lastActivity = now
    this.#model(from).receive(this.#scratch.subarray(0, length), now)
  }
}
