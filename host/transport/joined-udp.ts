/**
 * The UDP sockets on the addresses of a `kcp_bind` with several, as one socket. A peer is answered from the socket that
 * it sent to: its address contains the number of that socket (SocketAddress.local), as with a wildcard socket.
 *
 * With an IPv6 socket among them, IPv4 addresses are IPv4-mapped, as they are on `[::]`.
 */

import { isTemporaryCode } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import { isIpv4, unmapped } from '../net/native-address.ts'
import type { DatagramKind, Runtime, UdpHandlers, UdpOptions, UdpSocket } from '../runtime.ts'
import { asSeenBy } from './rendezvous.ts'

/** Outgoing datagrams that wait, of all sockets together. */
const SEND_BUFFERS = 512
/** Size of a send buffer: slightly more than the payload of an Ethernet frame. No socket has smaller ones. */
const SEND_BUFFER_BYTES = 1500

/** A buffer from acquire(), and its datagram while that waits for its socket. */
interface Outgoing {
  readonly buffer: Uint8Array
  length: number
  to: SocketAddress
  isApart: boolean
  kind: DatagramKind | undefined
}

const NOWHERE: SocketAddress = { family: 4, address: '0.0.0.0', port: 0, scope: 0 }

/** One of the sockets. */
class Member {
  readonly number: number
  readonly options: UdpOptions
  socket: UdpSocket | undefined
  /** Datagrams for which the socket has no buffer. */
  readonly waiting: Outgoing[] = []
  /** Something was passed to the socket since the last flush. */
  isDirty = false
  /** Peers with the number of this socket. */
  readonly #sources = new WeakMap<SocketAddress, SocketAddress>()
  #last: SocketAddress | undefined
  #lastSource = NOWHERE

  /** @param number 1, 2, ... */
  constructor(number: number, options: UdpOptions) {
    this.number = number
    this.options = options
  }

  /** Address of a peer of this socket, for the owner. */
  sourceOf(from: SocketAddress, isMapped: boolean): SocketAddress {
    if (from === this.#last) return this.#lastSource
    let source = this.#sources.get(from)
    if (source === undefined) {
      source = { ...(isMapped ? asSeenBy({ ...NOWHERE, family: 6 }, from) : from), local: this.number }
      this.#sources.set(from, source)
    }
    this.#last = from
    this.#lastSource = source
    return source
  }
}

export class JoinedUdp implements UdpSocket {
  readonly repliesFromAsked = true
  readonly #runtime: Pick<Runtime, 'openUdp'>
  readonly #handlers: UdpHandlers
  readonly #members: readonly Member[]
  readonly #isMapped: boolean
  readonly #slots = new Map<Uint8Array, Outgoing>()
  readonly #free: Uint8Array[] = []
  /** IPv4 addresses of mapped ones, for IPv4 sockets. */
  readonly #targets = new WeakMap<SocketAddress, SocketAddress>()
  #starved = false
  #isKept = true
  /** Don't fragment is set. */
  #isWhole = false
  #closed = false

  /** @param all options of the sockets, without `connect` */
  constructor(runtime: Pick<Runtime, 'openUdp'>, all: readonly UdpOptions[], handlers: UdpHandlers) {
    this.#runtime = runtime
    this.#handlers = handlers
    this.#members = all.map((options, index) => new Member(index + 1, { ...options, replyFromAsked: false }))
    this.#isMapped = all.some(({ bind }) => bind.family === 6)
  }

  /** The first socket's address, of the family that the addresses of peers have. */
  get local(): SocketAddress {
    const family = this.#isMapped ? 6 : 4
    const open = this.locals
    return open.find((local) => local.family === family) ?? open[0] ?? NOWHERE
  }

  get path(): string {
    return this.#members.find(({ socket }) => socket !== undefined)?.socket?.path ?? ''
  }

  get gso(): boolean {
    return this.#members.some(({ socket }) => socket?.gso === true)
  }

  /** The addresses of all open sockets. */
  get locals(): readonly SocketAddress[] {
    return this.#members.flatMap(({ socket }) => (socket === undefined ? [] : [socket.local]))
  }

  /** Whether all sockets are open. */
  get isComplete(): boolean {
    return this.#members.every(({ socket }) => socket !== undefined)
  }

  /**
   * Opens the sockets that are not open. One whose address does not exist is left out.
   * @returns the errors of those, by address
   * @throws the first error that cannot disappear by itself
   */
  async open(): Promise<ReadonlyMap<SocketAddress, unknown>> {
    const missing = new Map<SocketAddress, unknown>()
    for (const member of this.#members) {
      if (member.socket !== undefined) continue
      const bind = { ...member.options.bind, port: member.options.bind.port || this.local.port }
      try {
        const socket = await this.#runtime.openUdp({ ...member.options, bind }, this.#handlersOf(member))
        if (this.#closed) socket.close()
        else member.socket = socket
        if (!this.#isKept) socket.keepAlive?.(false)
        if (this.#isWhole) socket.dontFragment?.(true)
      } catch (error) {
        if (!isTemporaryCode(error)) throw error
        missing.set(bind, error)
      }
    }
    return missing
  }

  acquire(): Uint8Array | null {
    const buffer = this.#free.pop()
    if (buffer !== undefined) return buffer
    if (this.#slots.size === SEND_BUFFERS) {
      this.#starved = true
      return null
    }
    const fresh = new Uint8Array(SEND_BUFFER_BYTES)
    this.#slots.set(fresh, { buffer: fresh, length: 0, to: NOWHERE, isApart: false, kind: undefined })
    return fresh
  }

  dontFragment(on: boolean): boolean {
    this.#isWhole = on
    const open = this.#members.flatMap(({ socket }) => (socket === undefined ? [] : [socket]))
    return open.map((socket) => socket.dontFragment?.(on) ?? false).every((isInForce) => isInForce) && open.length > 0
  }

  send(buffer: Uint8Array, length: number, to: SocketAddress, apart = false, kind?: DatagramKind): void {
    const datagram = this.#slots.get(buffer)
    if (datagram === undefined) return
    const member = this.#memberFor(to)
    if (member === undefined || this.#closed) {
      this.#free.push(buffer)
      return
    }
    datagram.length = length
    datagram.to = member.options.bind.family === 4 && to.family === 6 ? this.#targetOf(to) : to
    datagram.isApart = apart
    datagram.kind = kind
    if (member.waiting.length > 0 || !this.#pass(member, datagram)) member.waiting.push(datagram)
  }

  flush(): void {
    for (const member of this.#members) {
      if (!member.isDirty) continue
      member.isDirty = false
      member.socket?.flush()
    }
  }

  hold(isHeld: boolean): void {
    for (const { socket } of this.#members) socket?.hold?.(isHeld)
  }

  collect(): void {
    for (const { socket } of this.#members) socket?.collect?.()
  }

  keepAlive(isKept: boolean): void {
    this.#isKept = isKept
    for (const { socket } of this.#members) socket?.keepAlive?.(isKept)
  }

  close(): void {
    this.#closed = true
    for (const { socket } of this.#members) socket?.close()
  }

  #handlersOf(member: Member): UdpHandlers {
    const handlers = this.#handlers
    return {
      onDatagram: (data, from) => handlers.onDatagram(data, member.sourceOf(from, this.#isMapped)),
      onBatchEnd: () => handlers.onBatchEnd(),
      onWritable: () => this.#onWritable(member),
      onError: (error) => handlers.onError(error),
      onMergedLost: () => handlers.onMergedLost?.(),
    }
  }

  /** The socket that the peer sent to, or the first one of its family. */
  #memberFor(to: SocketAddress): Member | undefined {
    const asked = this.#members[(to.local ?? 0) - 1]
    if (asked?.socket !== undefined) return asked
    const family = isIpv4(to) ? 4 : 6
    for (const member of this.#members) {
      if (member.socket !== undefined && member.options.bind.family === family) return member
    }
    return undefined
  }

  #targetOf(to: SocketAddress): SocketAddress {
    let target = this.#targets.get(to)
    if (target === undefined) {
      target = unmapped(to)
      this.#targets.set(to, target)
    }
    return target
  }

  /** @returns whether the socket had a buffer */
  #pass(member: Member, { buffer, length, to, isApart, kind }: Outgoing): boolean {
    const own = member.socket?.acquire()
    if (member.socket === undefined || own === undefined || own === null) return false
    own.set(buffer)
    member.socket.send(own, length, to, isApart, kind)
    member.isDirty = true
    this.#free.push(buffer)
    return true
  }

  #onWritable(member: Member): void {
    let passed = 0
    for (const datagram of member.waiting) {
      if (!this.#pass(member, datagram)) break
      passed++
    }
    member.waiting.splice(0, passed)
    this.flush()
    if (!this.#starved || this.#free.length < SEND_BUFFERS / 2 || this.#closed) return
    this.#starved = false
    this.#handlers.onWritable()
  }
}
