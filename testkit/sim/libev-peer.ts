/**
 * A model of the sessions, timers and TCP side of kcptun-libev (protocol.md 6.5-6.8): a 100 ms flush interval, a 10 s
 * timer that checks the age of received stream bytes, broken half-close, truncation. Includes the TCP application.
 */
import { type AppScript, type OtherEnd, SILENT } from './app.ts'
import { LibevKcp, type LibevKcpOptions } from './libev-kcp.ts'
import { patternByte } from './random.ts'
import { control, DIAL, EOF, KEEPALIVE, MessageType, message, What } from './wire.ts'

const READ_MAX = 14880
/** A message without its last byte, and a datagram. */
const BUFFER_BYTES = 4 + READ_MAX + 1500
const TICK_MS = 10_000
const CONNECT_LIMIT_MS = 30_000
/** bytes a TCP socket buffers before it stops reading */
const SOCKET_BUFFER = 65536

export interface LibevPeerOptions {
  readonly role: 'client' | 'server'
  readonly kcp?: Partial<LibevKcpOptions>
  readonly timeout?: number
  readonly linger?: number
  readonly timeWait?: number
  /** number of the expected pattern stream */
  readonly expected: number
  readonly script: Partial<AppScript>
}

export class LibevSession implements OtherEnd {
  readonly conv: number
  readonly kcp: LibevKcp
  readonly script: AppScript
  state: 'connect' | 'established' | 'linger' | 'time_wait' = 'connect'
  sent = 0
  received = 0
  /** the application has received a clean end of the TCP connection */
  endSeen = false
  eofSent = false
  eofReceived = false
  wrong = false
  /** called when `wrong` is set, before anything else is sent */
  onWrong: () => void = () => undefined
  /** when the session was dropped, ms; NaN = alive */
  droppedAt = Number.NaN
  lastReceived: number
  lastQueued: number
  lastReset = Number.NEGATIVE_INFINITY
  readonly created: number
  readonly #expected: number
  #dialled: boolean
  /** stream bytes that are no complete message yet */
  readonly #buffer = new Uint8Array(BUFFER_BYTES)
  readonly #view = new DataView(this.#buffer.buffer)
  #filled = 0
  /** bytes written to the socket that the application has not read */
  #unread = 0
  #sinkAt: number

  constructor(conv: number, options: LibevPeerOptions, now: number, emit: (plain: Uint8Array) => void) {
    this.conv = conv
    this.script = { ...SILENT, ...options.script }
    this.kcp = new LibevKcp(
      conv,
      { mtu: 1372, sndwnd: 256, rcvwnd: 256, interval: 100, resend: 0, nodelay: 1, ...options.kcp },
      emit,
    )
    this.#expected = options.expected
    this.created = this.lastReceived = this.lastQueued = this.#sinkAt = now
    this.#dialled = options.role === 'client'
    if (options.role === 'client') this.#queue(DIAL, now)
  }

  #queue(bytes: Uint8Array, now: number): void {
    this.kcp.write(bytes)
    this.lastQueued = now
  }

  get hasEnded(): boolean {
    return this.eofSent
  }

  /** Reads TCP while the send window has room. @returns whether anything was queued */
  readTcp(now: number): boolean {
    const { script, kcp } = this
    let queued = false
    if (!this.#dialled || this.eofReceived || this.eofSent || now < this.created + script.pause) return false
    while (this.sent < script.bytes && kcp.waitsnd < kcp.options.sndwnd) {
      let size = Math.min(READ_MAX, script.chunk, script.bytes - this.sent)
      if (script.writeRate > 0) {
        const allowed = Math.floor((now - this.created - script.pause) * script.writeRate) - this.sent
        size = Math.min(size, allowed)
        if (size <= 0) break
      }
      const payload = new Uint8Array(size)
      for (let i = 0; i < size; i++) payload[i] = patternByte(this.sent + i, script.stream)
      this.sent += size
      this.#queue(message(MessageType.PUSH, payload), now)
      queued = true
    }
    const closing = script.fin === 'send' || (script.fin === 'last' && this.endSeen)
    if (closing && this.sent === script.bytes) {
      this.eofSent = true
      this.#queue(EOF, now)
      if (this.eofReceived) this.state = 'linger'
      queued = true
    }
    return queued
  }

  #fail(now: number): void {
    if (!this.eofSent) {
      this.eofSent = true
      this.#queue(EOF, now)
    }
  }

  /** Passes stream messages to TCP while the socket accepts them. @returns whether anything was queued */
  process(now: number, initiator: boolean): boolean {
    const { script } = this
    if (script.readRate > 0) {
      this.#unread = Math.max(0, this.#unread - (now - this.#sinkAt) * script.readRate)
      this.#sinkAt = now
    } else this.#unread = 0
    let queued = false
    for (;;) {
      if (this.#filled >= 4) {
        const type = this.#view.getUint16(0)
        const length = this.#view.getUint16(2)
        if (length < 4 || length > 14884 || type > 3) {
          this.#fail(now)
          return true
        }
        if (this.#filled >= length) {
          if (type === MessageType.PUSH) {
            if (!this.#dialled || this.#unread >= SOCKET_BUFFER) return queued
            for (let i = 4; i < length; i++) {
              if (this.#buffer[i] === patternByte(this.received++, this.#expected) || this.wrong) continue
              this.wrong = true
              this.onWrong()
            }
            this.#unread += length - 4
          } else if (type === MessageType.DIAL) this.#dialled = true
          else if (type === MessageType.EOF) this.eofReceived = this.endSeen = true
          else if (!initiator) {
            this.#queue(KEEPALIVE, now)
            queued = true
          }
          if (this.eofReceived && this.eofSent) this.state = 'linger'
          this.#buffer.copyWithin(0, length, this.#filled)
          this.#filled -= length
          continue
        }
      }
      const more = this.kcp.read()
      if (!more) return queued
      this.lastReceived = now
      this.#buffer.set(more, this.#filled)
      this.#filled += more.length
    }
  }
}

/** The peer. Times are ms of virtual time; its KCP clock has another origin. */
export class LibevPeer {
  readonly options: LibevPeerOptions
  readonly sessions = new Map<number, LibevSession>()
  resetsSent = 0
  resetsReceived = 0
  readonly #emit: (plain: Uint8Array) => void
  /** Called with each session that a datagram of the peer opened. */
  onSession: ((session: LibevSession) => void) | undefined
  #tickAt = 0
  #lookAt = TICK_MS
  #clockBase = 0x7ffff000

  constructor(options: LibevPeerOptions, emit: (plain: Uint8Array) => void) {
    this.options = options
    this.#emit = emit
  }

  get deadline(): number {
    return Math.min(this.#tickAt, this.#lookAt)
  }

  /** Client: an application connects. */
  open(conv: number, now: number): LibevSession {
    const session = new LibevSession(conv, this.options, now, this.#emit)
    this.sessions.set(conv, session)
    return session
  }

  receive(plain: Uint8Array, now: number): void {
    if (plain.length < 4) return
    const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength)
    const conv = view.getUint32(0)
    if (conv === 0) {
      if (plain.length < 10) return
      const what = view.getUint16(4)
      const value = view.getUint32(6)
      if (what === What.PING) this.#emit(control(What.PONG, value))
      if (what === What.RESET) {
        this.resetsReceived++
        const session = this.sessions.get(value)
        if (session && session.state !== 'time_wait') this.#drop(session, now)
      }
      return
    }
    let session = this.sessions.get(conv)
    if (!session) {
      if (this.options.role === 'client') {
        this.#emit(control(What.RESET, conv))
        this.resetsSent++
        return
      }
      session = this.open(conv, now)
      this.onSession?.(session)
    }
    if (session.state === 'time_wait') {
      if (now - session.lastReset >= 1000) {
        session.lastReset = now
        this.resetsSent++
        this.#emit(control(What.RESET, conv))
      }
      return
    }
    if (session.state === 'connect') session.state = 'established'
    session.kcp.input(plain)
    this.#work(session, now)
  }

  #work(session: LibevSession, now: number): void {
    if (session.state === 'time_wait') return
    const replied = session.process(now, this.options.role === 'client')
    const queued = session.readTcp(now)
    if (replied || queued) session.kcp.flush()
  }

  #drop(session: LibevSession, now: number): void {
    session.state = 'time_wait'
    session.droppedAt = now
    session.endSeen = true
  }

  expire(now: number): void {
    if (now >= this.#tickAt) {
      this.#tickAt = now + (this.options.kcp?.interval ?? 100)
      for (const session of this.sessions.values()) {
        if (session.state === 'time_wait') continue
        this.#work(session, now)
        session.kcp.update((this.#clockBase + Math.floor(now)) >>> 0)
      }
    }
    if (now >= this.#lookAt) {
      this.#lookAt = now + TICK_MS
      for (const session of this.sessions.values()) this.#look(session, now)
    }
  }

  #look(session: LibevSession, now: number): void {
    const timeout = (this.options.timeout ?? 600) * 1000
    const linger = (this.options.linger ?? 30) * 1000
    const idle = now - session.lastReceived
    if (session.state === 'time_wait') {
      if (now - Math.max(session.created, session.lastReset) > (this.options.timeWait ?? 120) * 1000) {
        this.sessions.delete(session.conv)
      }
    } else if (session.state === 'connect') {
      if (now - session.created > CONNECT_LIMIT_MS) this.#drop(session, now)
    } else if (session.state === 'linger') {
      if (now - session.lastQueued > linger) this.#drop(session, now)
    } else if (session.eofSent || session.eofReceived) {
      if (idle > linger) this.#drop(session, now)
    } else if (idle > timeout) this.#drop(session, now)
    else if (this.options.role === 'client' && idle > timeout - 4000) {
      session.lastQueued = now
      session.kcp.write(KEEPALIVE)
    }
  }
}
