/**
 * A model of one KCP conversation of kcptun-libev: the clock advances only at flush intervals, ACKs are sent only by a
 * flush, every ACK gives an RTT sample, and the algorithm is classic KCP (protocol.md 5.4-5.8).
 */
import { Cmd, concat } from './wire.ts'

const MSS_HEADER = 24
const MTU_MAX = 1500
/** Datagrams are built here, one at a time: `emit` copies what it keeps. */
const built = new Uint8Array(MTU_MAX)
const builtView = new DataView(built.buffer)
const RTO_MAX = 4000
const PROBE_FIRST = 7000
const PROBE_MAX = 120_000

interface Sent {
  readonly sn: number
  readonly data: Uint8Array
  ts: number
  xmit: number
  fastack: number
  rto: number
  due: number
}

function diff(a: number, b: number): number {
  return (a - b) | 0
}

export interface LibevKcpOptions {
  readonly mtu: number
  readonly sndwnd: number
  readonly rcvwnd: number
  readonly interval: number
  readonly resend: number
  readonly nodelay: number
}

export class LibevKcp {
  readonly conv: number
  readonly options: LibevKcpOptions
  readonly emit: (plain: Uint8Array) => void
  /** chunks without a sequence number */
  readonly queue: Uint8Array[] = []
  readonly inflight: Sent[] = []
  /** in order, not yet read */
  readonly received: Uint8Array[] = []
  retransmissions = 0
  remoteWindow = 128
  readonly #ahead = new Map<number, Uint8Array>()
  #acks: { sn: number; ts: number }[] = []
  #sndUna = 0
  #sndNxt = 0
  #rcvNxt = 0
  #srtt = 0
  #rttvar = 0
  #rto = 200
  #clock = 0
  #nextFlush = 0
  #started = false
  #probeWait = 0
  #probeAt = 0
  #waskPending = false
  #winsPending = false

  constructor(conv: number, options: LibevKcpOptions, emit: (plain: Uint8Array) => void) {
    this.conv = conv
    this.options = options
    this.emit = emit
  }

  get waitsnd(): number {
    return this.queue.length + this.inflight.length
  }

  /** Smoothed round trip, ms; 0: no sample yet. */
  get srtt(): number {
    return this.#srtt
  }

  get #receiveWindow(): number {
    return Math.max(this.options.rcvwnd, 128)
  }

  write(bytes: Uint8Array): void {
    const mss = this.options.mtu - MSS_HEADER
    let rest = bytes
    const last = this.queue.at(-1)
    if (last && last.length < mss) {
      const part = rest.subarray(0, mss - last.length)
      this.queue[this.queue.length - 1] = concat(last, part)
      rest = rest.subarray(part.length)
    }
    for (; rest.length > 0; rest = rest.subarray(mss)) this.queue.push(rest.slice(0, mss))
  }

  /** Reads everything that is in order. */
  read(): Uint8Array | undefined {
    const full = this.received.length >= this.#receiveWindow
    const first = this.received.shift()
    this.#advance()
    if (full && this.received.length < this.#receiveWindow) this.#winsPending = true
    return first
  }

  #advance(): void {
    for (;;) {
      const next = this.#ahead.get(this.#rcvNxt)
      if (next === undefined || this.received.length >= this.#receiveWindow) return
      this.#ahead.delete(this.#rcvNxt)
      this.received.push(next)
      this.#rcvNxt = (this.#rcvNxt + 1) >>> 0
    }
  }

  input(plain: Uint8Array): void {
    let maxSn = -1
    let maxTs = 0
    const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength)
    for (let at = 0, len = 0; plain.length - at >= MSS_HEADER; at += MSS_HEADER + len) {
      const cmd = view.getUint8(at + 4)
      len = view.getUint32(at + 20)
      if (view.getUint32(at) !== this.conv || cmd < Cmd.PUSH || cmd > Cmd.WINS) break
      if (len > plain.length - at - MSS_HEADER) break
      const [ts, sn, una] = [view.getUint32(at + 8), view.getUint32(at + 12), view.getUint32(at + 16)]
      this.remoteWindow = view.getUint16(at + 6)
      while (this.inflight[0] && diff(una, this.inflight[0].sn) > 0) this.inflight.shift()
      if (cmd === Cmd.ACK) {
        const rtt = diff(this.#clock, ts)
        if (rtt >= 0) this.#sample(rtt)
        const index = this.inflight.findIndex((sent) => sent.sn === sn)
        if (index >= 0) this.inflight.splice(index, 1)
        if (maxSn < 0 || (diff(sn, maxSn) > 0 && diff(ts, maxTs) > 0)) {
          maxSn = sn
          maxTs = ts
        }
      } else if (cmd === Cmd.PUSH) {
        if (diff(sn, this.#rcvNxt + this.#receiveWindow) < 0) {
          this.#acks.push({ sn, ts })
          if (diff(sn, this.#rcvNxt) >= 0) {
            this.#ahead.set(sn, plain.slice(at + MSS_HEADER, at + MSS_HEADER + len))
            this.#advance()
          }
        }
      } else if (cmd === Cmd.WASK) this.#winsPending = true
      this.#sndUna = this.inflight[0]?.sn ?? this.#sndNxt
    }
    if (maxSn < 0) return
    for (const sent of this.inflight) {
      if (diff(sent.sn, maxSn) < 0 && diff(maxTs, sent.ts) >= 0) sent.fastack++
    }
  }

  #sample(rtt: number): void {
    const { interval, nodelay } = this.options
    if (this.#srtt === 0) {
      this.#srtt = rtt
      this.#rttvar = rtt >> 1
    } else {
      this.#rttvar = Math.trunc((3 * this.#rttvar + Math.abs(rtt - this.#srtt)) / 4)
      this.#srtt = Math.max(1, Math.trunc((7 * this.#srtt + rtt) / 8))
    }
    const wanted = this.#srtt + Math.max(interval, 4 * this.#rttvar)
    this.#rto = Math.min(RTO_MAX, Math.max(nodelay === 0 ? 100 : 30, wanted))
  }

  /** The flush timer; `now` in ms. */
  update(now: number): void {
    this.#clock = now >>> 0
    if (!this.#started) {
      this.#started = true
      this.#nextFlush = this.#clock
    }
    let late = diff(this.#clock, this.#nextFlush)
    if (late >= 10_000 || late < -10_000) {
      this.#nextFlush = this.#clock
      late = 0
    }
    if (late < 0) return
    this.#nextFlush = (this.#nextFlush + this.options.interval) >>> 0
    if (diff(this.#clock, this.#nextFlush) >= 0) this.#nextFlush = (this.#clock + this.options.interval) >>> 0
    this.flush()
  }

  /** Whether a flush would send nothing and change nothing. */
  #isIdle(): boolean {
    return (
      this.waitsnd === 0 &&
      this.#acks.length === 0 &&
      this.remoteWindow !== 0 &&
      this.#probeWait === 0 &&
      !this.#waskPending &&
      !this.#winsPending
    )
  }

  /** Sends what is due by the clock of the last flush interval. */
  flush(): void {
    if (!this.#started || this.#isIdle()) return
    const { mtu, sndwnd, nodelay, resend } = this.options
    const wnd = Math.max(0, this.#receiveWindow - this.received.length) & 0xffff
    let length = 0
    const emit = (): void => {
      if (length > 0) this.emit(built.subarray(0, length))
      length = 0
    }
    const append = (cmd: number, sn: number, ts: number, data?: Uint8Array): void => {
      const bytes = data?.length ?? 0
      if (length + MSS_HEADER + bytes > mtu) emit()
      builtView.setUint32(length, this.conv)
      builtView.setUint16(length + 4, cmd << 8)
      builtView.setUint16(length + 6, wnd)
      builtView.setUint32(length + 8, ts)
      builtView.setUint32(length + 12, sn)
      builtView.setUint32(length + 16, this.#rcvNxt)
      builtView.setUint32(length + 20, bytes)
      if (data !== undefined) built.set(data, length + MSS_HEADER)
      length += MSS_HEADER + bytes
    }
    let lastAck = { sn: 0, ts: 0 }
    for (lastAck of this.#acks) append(Cmd.ACK, lastAck.sn, lastAck.ts)
    this.#acks = []
    if (this.remoteWindow === 0) {
      if (this.#probeWait === 0) {
        this.#probeWait = PROBE_FIRST
        this.#probeAt = (this.#clock + PROBE_FIRST) >>> 0
      } else if (diff(this.#clock, this.#probeAt) >= 0) {
        this.#probeWait = Math.min(PROBE_MAX, Math.trunc((this.#probeWait * 3) / 2))
        this.#probeAt = (this.#clock + this.#probeWait) >>> 0
        this.#waskPending = true
      }
    } else this.#probeWait = 0
    if (this.#waskPending) append(Cmd.WASK, lastAck.sn, lastAck.ts)
    if (this.#winsPending) append(Cmd.WINS, lastAck.sn, lastAck.ts)
    this.#waskPending = this.#winsPending = false
    const limit = Math.min(sndwnd, this.remoteWindow)
    while (this.queue.length > 0 && diff(this.#sndNxt, this.#sndUna + limit) < 0) {
      const data = this.queue.shift()
      if (!data) break
      this.inflight.push({ sn: this.#sndNxt, data, ts: 0, xmit: 0, fastack: 0, rto: 0, due: 0 })
      this.#sndNxt = (this.#sndNxt + 1) >>> 0
    }
    for (const sent of this.inflight) {
      if (sent.xmit === 0) {
        sent.rto = this.#rto
        sent.due = (this.#clock + sent.rto + (nodelay === 0 ? sent.rto >> 3 : 0)) >>> 0
      } else if (diff(this.#clock, sent.due) >= 0) {
        if (nodelay === 0) sent.rto += Math.max(sent.rto, this.#rto)
        else sent.rto += (nodelay === 1 ? sent.rto : this.#rto) >> 1
        sent.due = (this.#clock + sent.rto) >>> 0
      } else if (resend > 0 && sent.fastack >= resend && sent.xmit <= 5) {
        sent.fastack = 0
        sent.due = (this.#clock + sent.rto) >>> 0
      } else continue
      if (sent.xmit++ > 0) this.retransmissions++
      sent.ts = this.#clock
      append(Cmd.PUSH, sent.sn, sent.ts, sent.data)
    }
    emit()
  }
}
