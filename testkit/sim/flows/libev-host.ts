/**
 * The model of kcptun-libev (../libev-peer.ts) as a host of the simulated network: sends or receives bulk data with a
 * 100 ms flush interval, stale clock, window 256, no fast resend and no congestion control.
 */
import { TICKS_PER_MS } from '../../../host/engine/core.ts'
import { LibevPeer, type LibevSession } from '../libev-peer.ts'
import type { Bottleneck } from './bottleneck.ts'
import { KCP_MTU } from './engine.ts'
import type { Flow } from './flow.ts'
import { Host, OVERHEAD_BYTES } from './host.ts'
import { Copier, type Packets } from './packets.ts'

const CONV = 0x1234567
const ENDLESS = 2 ** 40
/** Default phase of the flush interval relative to the start of the peer: an odd value. */
const PHASE_MS = 37

export class LibevHost extends Host {
  readonly #libev: LibevPeer
  readonly #flow: Flow
  readonly #client: boolean
  readonly #copier: Copier
  #session: LibevSession | undefined
  readonly #phase: number
  #now = 0
  #seen = 0

  constructor(number: number, packets: Packets, out: Bottleneck, client: boolean, flow: Flow, phase = PHASE_MS) {
    super(number, packets, out)
    this.#phase = phase
    this.#client = client
    this.#flow = flow
    this.#copier = new Copier(packets)
    const script = { bytes: client ? ENDLESS : 0, fin: 'never' } as const
    this.#libev = new LibevPeer(
      { role: client ? 'client' : 'server', kcp: { mtu: KCP_MTU }, expected: 0, script },
      (plain) => {
        const slot = this.packets.take()
        this.#copier.into(slot, plain, 0, plain.length)
        this.send(slot, plain.length + OVERHEAD_BYTES, this.#now)
      },
    )
  }

  start(now: number): void {
    this.#now = now
    if (this.#client) this.#session = this.#libev.open(CONV, now / TICKS_PER_MS)
    this.deadline = now + this.#phase * TICKS_PER_MS
  }

  #after(now: number): void {
    if (this.#client) return
    if (this.#session === undefined) [this.#session] = this.#libev.sessions.values()
    const received = this.#session?.received ?? 0
    if (received > this.#seen) this.#flow.deliver(received - this.#seen, now)
    this.#seen = received
    if (this.#session?.endSeen) this.#flow.broken = true
  }

  receive(now: number): void {
    this.#now = now
    for (let i = 0; i < this.inboxCount; i++) {
      const slot = this.inbox[i] ?? 0
      // the model keeps views of the datagram
      const plain = this.packets.view(slot).slice()
      this.packets.drop(slot)
      this.#libev.receive(plain, now / TICKS_PER_MS)
    }
    this.inboxCount = 0
    this.#after(now)
  }

  expire(now: number): void {
    this.#now = now
    this.#libev.expire(now / TICKS_PER_MS)
    this.deadline = Math.max(now + 1, Math.ceil(this.#libev.deadline * TICKS_PER_MS))
    this.#after(now)
  }
}
