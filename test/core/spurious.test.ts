/** What a retransmission changes that was not necessary: reordering makes loss detection more patient, a probe does not. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { FullSegment } from '../../testkit/decode.ts'
import { Solo } from '../../testkit/sim/solo.ts'
import { ack } from '../../testkit/sim/wire.ts'

const RTT = 100

const test = suite('core/spurious')

class Sender {
  readonly solo = new Solo({ role: 'client', config: { keepalive: 0, nc: 1, sendOnce: 1 } })
  readonly handle = this.solo.open()
  readonly conv = this.solo.endpoint.convOf(this.handle)

  /** Full segments of one burst. */
  write(count: number): FullSegment[] {
    this.solo.write(this.handle, new Uint8Array(count * 1340))
    this.solo.endpoint.drain()
    return this.pushes()
  }

  pushes(): FullSegment[] {
    return this.solo.takeSegments(this.conv).filter(({ cmd }) => cmd === 'PUSH')
  }

  /** Acknowledges transmissions, each in a datagram of its own. */
  ack(segments: readonly FullSegment[], una?: number): void {
    for (const { sn, ts } of segments) this.solo.feed(ack(this.conv, sn, ts, una ?? sn + 1))
  }

  /** A burst that is acknowledged after one RTT. */
  exchange(): void {
    const sent = this.write(3)
    this.solo.run(RTT)
    this.ack(sent)
    this.solo.run(20)
    this.pushes()
  }

  /** Loses the first segment of a burst. @returns ms from the ACK of the last one to the retransmission */
  recovery(): number {
    const sent = this.write(3)
    this.solo.run(RTT)
    this.ack(sent.slice(1), sent[0]?.sn)
    for (let ms = 0; ms < 2 * RTT; ms++) {
      const again = this.pushes()
      if (again.length > 0) {
        assert.is(again[0]?.sn, sent[0]?.sn)
        this.solo.run(RTT)
        this.ack(again, (sent.at(-1)?.sn ?? 0) + 1)
        this.solo.run(20)
        return ms
      }
      this.solo.run(1)
    }
    return Number.POSITIVE_INFINITY
  }
}

test('a loss is noticed some ms after later segments were acknowledged, also when probes were sent in vain', () => {
  const sender = new Sender()
  for (let i = 0; i < 10; i++) sender.exchange()
  assert.ok(sender.recovery() < 5)
  for (let i = 0; i < 4; i++) {
    const sent = sender.write(2)
    let probes: FullSegment[] = []
    while (probes.length === 0) {
      sender.solo.run(1)
      probes = sender.pushes()
    }
    sender.ack(sent)
    sender.solo.run(RTT)
    sender.pushes()
    for (let n = 0; n < 5; n++) sender.exchange()
  }
  const ms = sender.recovery()
  assert.ok(ms < 5, `${ms} ms`)
})

test('reordering by a few ms makes it wait longer', () => {
  const sender = new Sender()
  for (let i = 0; i < 10; i++) sender.exchange()
  const sent = sender.write(3)
  sender.solo.run(RTT)
  sender.ack(sent.slice(1), sent[0]?.sn)
  sender.solo.run(5)
  assert.is(sender.pushes()[0]?.sn, sent[0]?.sn, 'declared lost')
  sender.ack(sent.slice(0, 1), (sent.at(-1)?.sn ?? 0) + 1)
  sender.solo.run(RTT)
  sender.pushes()
  const ms = sender.recovery()
  assert.ok(ms > 10 && ms < RTT, `${ms} ms`)
})

test.run()
