/**
 * The recorded attacks (replay, tampering, reflection, short packets, RESET, TIME_WAIT), replayed against client and
 * server with a substitute for the cipher: same nonces, same plaintexts, same reactions.
 */
import { fakeSeal } from '../../testkit/sim/sealing.ts'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MS } from '../../testkit/sim/endpoint.ts'
import { type Output, Solo, summary, TESTER } from '../../testkit/sim/solo.ts'
import { ack, fromHex, toHex, utf8 } from '../../testkit/sim/wire.ts'
import { type Decoded, decode } from '../../testkit/decode.ts'
import { capture, type VectorPacket } from './files.ts'

const RECORDED = '7bb6090f'
const REACTION_MS = 150
const file = capture('replay_reset')

/** @returns the packet with the recorded nonce and a tag of the substitute cipher; garbage is unchanged */
function sealed(packet: VectorPacket, conv: string): Uint8Array {
  const bytes = fromHex(packet.sealed)
  if (typeof packet.plain !== 'string') return bytes
  return fakeSeal(fromHex(packet.plain.replaceAll(RECORDED, conv)), bytes.subarray(bytes.length - file.nonceBytes))
}

/** ms after which a RESET ends a session whose probes are not answered (docs/validation.md) */
const RESET_MS = 2000

/** The kind of reaction, with its fixed values. */
function key(decoded: Decoded | null | undefined, plain: Uint8Array): string[] {
  if (!decoded || 'undecodable' in decoded) return []
  if ('session0' in decoded) return [`${decoded.session0} ${toHex(plain.subarray(6, 10))}`]
  return decoded.segments.map(({ cmd, sn, una }) => `${cmd} sn=${sn} una=${una}`)
}

/** @returns the recorded reactions to packet `index`, up to the next injected packet */
function recorded(index: number, conv: string): string[] {
  const result: string[] = []
  const { dir } = file.packets[index] ?? { dir: 'c2s' }
  for (const packet of file.packets.slice(index + 1)) {
    if (packet.note !== undefined) break
    if (packet.dir !== dir && typeof packet.plain === 'string') {
      result.push(...key(packet.decoded, fromHex(packet.plain.replaceAll(RECORDED, conv))))
    }
  }
  return result.sort()
}

function seen(outputs: readonly Output[]): string[] {
  return [...new Set(outputs.flatMap(({ decoded, plain }) => key(decoded, plain)))].sort()
}

/** @returns the reactions of the server, without probes after a RESET and without retransmissions */
function reactions(solo: Solo): string[] {
  return seen(solo.take()).filter((reaction) => !/^(WASK|PUSH|PING)/.test(reaction))
}

const test = suite('vectors/replay-reset')

test('MUST 7, 8, 9, 10, 45, 46: a server reacts to every injected packet as recorded', () => {
  const solo = new Solo({ role: 'server', sealing: 'random', config: { timeout: 60, linger: 5, timeWait: 5 } })
  let injected = 0
  let answered = false
  for (const [index, packet] of file.packets.entries()) {
    if (packet.dir !== 'c2s') continue
    // later packets that the client sent by itself do not matter here
    const own = packet.note === undefined
    if (own && packet.t_ms > 1000) continue
    if (packet.t_ms > solo.ms) solo.run(Math.floor(packet.t_ms * MS) / MS - solo.ms)
    // the recorded client acknowledged the recorded server; confirm the conversation likewise
    if (solo.streams.size < 2) solo.confirm(Number.parseInt(RECORDED, 16))
    solo.take()
    solo.feedRaw(TESTER, sealed(packet, RECORDED))
    if (!answered && solo.streams.size === 1) {
      answered = true
      solo.write(solo.only.handle, utf8('twice'))
      solo.endpoint.drain()
    }
    solo.run(REACTION_MS)
    if (own) continue
    assert.equal(reactions(solo), recorded(index, RECORDED), packet.note)
    // without an answer from its client the session ends; kcptun-libev ends it at once
    if (packet.note?.startsWith('RESET of the live')) solo.run(RESET_MS)
    injected++
  }
  assert.is(injected, 13)
  assert.equal(solo.only.data, utf8('once'))
  assert.is(solo.only.ending, 'aborted')
  assert.ok(solo.endpoint.counter('drop_replay') >= 3)
  assert.ok(solo.endpoint.counter('drop_auth') + solo.endpoint.counter('drop_short') >= 5)
})

test('MUST 42, 45: a client reacts to every injected packet as recorded; its own datagrams are not answered', () => {
  const solo = new Solo({ role: 'client', sealing: 'random', config: { timeout: 60, linger: 5, timeWait: 5 } })
  solo.run(1)
  const [ping] = solo.take()
  assert.ok(ping && summary(ping) === 'PING')
  solo.run(700)
  const handle = solo.open()
  solo.write(handle, utf8('once'))
  solo.endpoint.drain()
  const conv = solo.endpoint.convOf(handle)
  const text = conv.toString(16).padStart(8, '0')
  for (const { segments } of solo.take()) {
    for (const { cmd, sn, ts } of segments) if (cmd === 'PUSH') solo.feed(ack(conv, sn, ts, sn + 1))
  }
  solo.take()

  // reflection: kcptun-libev answers once
  solo.feedRaw(TESTER, ping.bytes)
  solo.feedRaw(TESTER, ping.bytes)
  assert.is(solo.take().length, 0)

  // an unknown conversation
  solo.feed(fromHex('deadbeef'))
  const reset = solo.take()
  assert.is(reset.length, 1)
  assert.equal(decode((reset[0]?.plain ?? new Uint8Array(0)).subarray(0, 10)), {
    session0: 'RESET',
    conv: 'deadbeef',
    pad: 0,
  })

  // the server's bytes, then its RESET
  for (const packet of file.packets) {
    if (packet.dir !== 's2c' || packet.note !== undefined || packet.t_ms > 1000) continue
    solo.feedRaw(TESTER, sealed(packet, text))
  }
  assert.equal(solo.stream(handle).data, utf8('twice'))
  solo.take()
  const last = file.packets.at(-1)
  assert.ok(last?.dir === 's2c')
  solo.feedRaw(TESTER, sealed(last, text))
  solo.run(RESET_MS)
  assert.is(solo.stream(handle).ending, 'aborted')
  assert.not.ok(solo.take().some((output) => summary(output) === 'RESET'))
})

test.run()
