// time limit: 180 s
/**
 * Datagrams of an attacker: garbage, and damaged copies of genuine datagrams at every length. They cause no failure and
 * no answer.
 */

import type { Socket } from 'node:dgram'
import { createSocket } from 'node:dgram'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { randomNumbers } from '../../testkit/link.ts'
import type { Pair } from '../../testkit/pairs.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { sessionCounts } from '../../testkit/process.ts'
import { echoTarget, patternBytes, patternDigest } from '../../testkit/tcp.ts'
import type { Method, Tunnel } from '../../testkit/tunnel.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep, within } from '../../testkit/wait.ts'

/** Every length that fits a frame, and some that do not. */
const LONGEST = 1500
const OVERLONG = [1501, 1502, 1999, 2000, 2048, 9000]
/** Datagrams sent before a pause for the program: fewer than its socket buffer holds. */
const BURST = 50
const SEED = 4711
/** Log text that an attack of thousands of datagrams may cause at the default level, in UTF-16 units. */
const LOG_LIMIT = 4000
const ECHO_BYTES = 100_000
const TIMEOUT_MS = 30_000

const test = suite('garbage')

interface Attacker {
  readonly socket: Socket
  answers: number
}

async function openAttacker(): Promise<Attacker> {
  const socket = createSocket('udp4')
  const attacker = { socket, answers: 0 }
  socket.on('message', () => attacker.answers++)
  socket.on('error', () => undefined)
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  return attacker
}

/**
 * All attacks: random bytes of every length, and genuine datagrams truncated to every length or with one bit changed.
 */
function* attacks(genuine: readonly Buffer[]): Generator<Buffer> {
  const random = randomNumbers(SEED)
  const noise = patternBytes(10_000, SEED)
  for (let length = 0; length <= LONGEST; length++) {
    yield noise.subarray(length, 2 * length)
    yield Buffer.alloc(length, length & 255)
    const copy = genuine[length % genuine.length] ?? noise
    yield copy.subarray(0, length < copy.length ? length : copy.length - 1)
    const changed = Buffer.from(copy)
    const bit = Math.floor(random() * changed.length * 8)
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    yield changed
  }
  for (const length of OVERLONG) yield noise.subarray(0, length)
  // a genuine datagram again: authentic, but a replay
  yield* genuine
}

/**
 * Sends all attacks from an unknown address to the server; with `spoofed`, also from the client's address to the server
 * and from the server's address to the client.
 */
async function attack(tunnel: Tunnel, attacker: Attacker, genuine: readonly Buffer[], spoofed: boolean): Promise<void> {
  const bind = String(tunnel.server.config['kcp_bind'])
  const serverPort = Number(bind.slice(bind.lastIndexOf(':') + 1))
  let sent = 0
  for (const datagram of attacks(genuine)) {
    attacker.socket.send(datagram, serverPort, '127.0.0.1')
    if (spoofed) {
      tunnel.link.inject(datagram, 'up')
      tunnel.link.inject(datagram, 'down')
    }
    if (++sent % BURST === 0) await sleep(5)
  }
}

/** Asserts that a connection through the tunnel gets its own bytes back. */
async function assertEchoes(tunnel: Tunnel, seed: number): Promise<void> {
  const app = await tunnel.dial()
  await app.pour(ECHO_BYTES, seed)
  app.finish()
  const ending = await within('the echo', TIMEOUT_MS, app.ending)
  assert.is(ending.bytes, ECHO_BYTES)
  assert.is(ending.sha256, patternDigest(ECHO_BYTES, seed))
}

async function survive(
  pair: Pair,
  method: Method,
  check: (tunnel: Tunnel, attacker: Attacker) => Promise<void>,
): Promise<void> {
  const target = await echoTarget()
  const attacker = await openAttacker()
  const genuine: Buffer[] = []
  const tap = (direction: string, datagram: Buffer): boolean => {
    if (direction === 'up' && genuine.length < 100) genuine.push(Buffer.from(datagram))
    return true
  }
  const config = { loglevel: 4 }
  await withTunnel({ ...pair, method, config, link: { tap }, target: target.address }, async (tunnel) => {
    await assertEchoes(tunnel, 1)
    // Without encryption a spoofed address is enough to do harm: there, only an unknown address is tested.
    await attack(tunnel, attacker, genuine, method !== 'none')
    await assertEchoes(tunnel, 2)
    await assertEchoes(tunnel, 3)
    await check(tunnel, attacker)
  }).finally(async () => {
    attacker.socket.close()
    await target.close()
  })
}

for (const pair of MIXED_PAIRS) {
  const name = `${pair.server} server and ${pair.client} client`
  for (const method of ['xchacha20poly1305_ietf', 'aes256gcm'] as const) {
    test(`MUST 7, 12: ${name} drop garbage silently, ${method}`, async () => {
      await survive(pair, method, async (tunnel, attacker) => {
        assert.is(attacker.answers, 0, 'answers to the attacker')
        const { total } = sessionCounts(await tunnel.server.stats('sessions=all'))
        assert.ok(total <= 3, `only genuine connections made sessions: ${total}`)
        for (const end of [tunnel.server, tunnel.client]) {
          assert.ok(end.log().length < LOG_LIMIT, `log of ${end.log().length} characters`)
        }
      })
    })
  }
  test(`MUST 29, 51: ${name} survive garbage without encryption`, () => survive(pair, 'none', async () => undefined))
}

test.run()
