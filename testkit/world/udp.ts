/** UDP sockets of a simulated world. */
import { type SocketAddress, sameAddress } from '../../host/net/address.ts'
import type { DatagramKind, UdpHandlers, UdpOptions, UdpSocket } from '../../host/runtime.ts'
import { copyOf } from './copy.ts'
import { codeError } from './errors.ts'
import type { Process } from './machine.ts'
import { ipv4, type Network, type Receiver } from './network.ts'

/** Receive queue of a socket, in datagrams. */
const RECEIVE_QUEUE = 400
const SEND_BUFFERS = 64
const DATAGRAM_BYTES = 1500
/** ms between two looks at a socket that took nothing. */
const FULL_MS = 5
const WILDCARD = '0.0.0.0'

type Waiting = readonly [bytes: Uint8Array, from: SocketAddress]

/** A binding of a port. It outlives a process if another one shares it (workers). */
export class BoundPort implements Receiver {
  readonly local: SocketAddress
  readonly #key: string
  readonly #network: Network
  readonly #queue: Waiting[] = []
  #reader: SimulatedUdp | undefined

  /** @throws EADDRINUSE */
  constructor(network: Network, machine: string, local: SocketAddress) {
    this.#network = network
    this.local = local
    this.#key = `${machine} ${local.address === WILDCARD ? '*' : local.address}:${local.port}`
    if (network.sockets.has(this.#key)) throw codeError('EADDRINUSE')
    network.sockets.set(this.#key, this)
  }

  /** Sets the socket that receives the datagrams; undefined: they are queued. */
  set reader(reader: SimulatedUdp | undefined) {
    this.#reader = reader
    if (this.#queue.length > 0) reader?.wake()
  }

  get reader(): SimulatedUdp | undefined {
    return this.#reader
  }

  deliver(bytes: Uint8Array, from: SocketAddress): void {
    if (this.#queue.length >= RECEIVE_QUEUE) return
    const reader = this.#reader
    if (reader?.peer !== undefined && !sameAddress(reader.peer, from)) return
    this.#queue.push([bytes, from])
    if (this.#queue.length === 1) reader?.wake()
  }

  take(): Waiting[] {
    return this.#queue.splice(0)
  }

  close(): void {
    this.#network.sockets.delete(this.#key)
  }
}

/** Several sockets on one port, selected by the peer's address (SO_REUSEPORT). */
export class PortGroup implements Receiver {
  readonly members: BoundPort[]

  constructor(members: BoundPort[]) {
    this.members = members
  }

  deliver(bytes: Uint8Array, from: SocketAddress): void {
    let hash = from.port
    for (const char of from.address) hash = (Math.imul(hash, 31) + char.charCodeAt(0)) >>> 0
    this.members[hash % this.members.length]?.deliver(bytes, from)
  }
}

/** One socket of one process. */
export class SimulatedUdp implements UdpSocket {
  readonly local: SocketAddress
  readonly peer: SocketAddress | undefined
  readonly #network: Network
  readonly #process: Process
  readonly #handlers: UdpHandlers
  readonly #port: BoundPort
  readonly #isShared: boolean
  #free = SEND_BUFFERS
  readonly #buffers: Uint8Array[] = []
  readonly #sent: Uint8Array[] = []
  /** Don't fragment is set. */
  #isWhole = false
  #starved = false
  #isLooking = false
  #waking = false
  #closed = false

  /** @param shared a binding that stays when this socket is closed */
  constructor(network: Network, process: Process, options: UdpOptions, handlers: UdpHandlers, shared?: BoundPort) {
    const { machine } = process
    const { bind, connect } = options
    this.#network = network
    this.#process = process
    this.#handlers = handlers
    this.#isShared = shared !== undefined
    this.peer = connect
    const address = connect !== undefined && bind.address === WILDCARD ? machine.address : bind.address
    if (connect !== undefined && machine.address === '') throw codeError('ENETUNREACH')
    if (address !== WILDCARD && address !== machine.address) throw codeError('EADDRNOTAVAIL')
    this.#port =
      shared ?? new BoundPort(network, machine.name, ipv4(address, freePort(network, machine.name, bind.port)))
    this.local = this.#port.local
    this.#port.reader = this
    process.onEnd(() => this.close())
  }

  acquire(): Uint8Array | null {
    if (this.#free === 0 || this.#network.isSendBufferFull) {
      this.#starved = true
      this.#writable()
      return null
    }
    this.#free--
    return this.#buffers.pop() ?? new Uint8Array(DATAGRAM_BYTES)
  }

  dontFragment(on: boolean): boolean {
    this.#isWhole = on
    return on
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress, _apart = false, kind?: DatagramKind): void {
    const { machine } = this.#process
    const { local } = this
    const target = this.peer ?? to
    const source = local.address === WILDCARD ? machine.address : local.address
    if (machine.address === '' || source !== machine.address) {
      this.#later(() => this.#handlers.onError(codeError(machine.address === '' ? 'ENETUNREACH' : 'EINVAL')))
    } else {
      const bytes = copyOf(buffer, length)
      const from = source === local.address ? local : ipv4(source, local.port)
      this.#network.send(machine, from, target, bytes, this.#refused, this.#isWhole && kind !== 'may fragment')
    }
    if (this.#sent.push(buffer) === 1) this.#later(() => this.#giveBack())
  }

  readonly #refused = (): void => {
    if (this.peer !== undefined) this.#later(() => this.#handlers.onError(codeError('ECONNREFUSED')))
  }

  /** The kernel has taken what was sent at this moment. */
  #giveBack(): void {
    this.#free += this.#sent.length
    this.#buffers.push(...this.#sent.splice(0))
    this.#writable()
  }

  flush(): void {}

  close(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#port.reader === this) this.#port.reader = undefined
    if (!this.#isShared) this.#port.close()
  }

  /** Called when datagrams are queued. */
  wake(): void {
    if (this.#waking) return
    this.#waking = true
    this.#later(() => {
      this.#waking = false
      for (const [bytes, from] of this.#port.take()) {
        if (this.#closed) return
        this.#handlers.onDatagram(bytes, from)
      }
      if (!this.#closed) this.#handlers.onBatchEnd()
    })
  }

  /** Reports room to a sender that was refused; looks again while the socket takes nothing. */
  #writable(): void {
    if (!this.#starved || this.#isLooking) return
    if (this.#network.isSendBufferFull) {
      this.#isLooking = true
      this.#process.at(this.#network.loop.now + FULL_MS, () => {
        this.#isLooking = false
        if (!this.#closed) this.#writable()
      })
    } else if (this.#free >= SEND_BUFFERS / 2) {
      this.#starved = false
      this.#handlers.onWritable()
    }
  }

  #later(run: () => void): void {
    this.#process.at(this.#network.loop.now, () => {
      if (!this.#closed) run()
    })
  }
}

const FIRST_EPHEMERAL = 40_000
const LAST_EPHEMERAL = 65_535

/** A port that was free for long, as a system's random choice nearly always is. */
function freePort(network: Network, machine: string, wanted: number): number {
  if (wanted !== 0) return wanted
  const used = (port: number): boolean =>
    [...network.sockets.keys()].some((key) => key.startsWith(`${machine} `) && key.endsWith(`:${port}`))
  let port = network.lastPorts.get(machine) ?? LAST_EPHEMERAL
  do port = port === LAST_EPHEMERAL ? FIRST_EPHEMERAL : port + 1
  while (used(port))
  network.lastPorts.set(machine, port)
  return port
}
