// time limit: 120 s, long 900 s
/**
 * Half-open sessions in great number: first flights of a key holder that sends nothing more, and of senders without the key. Memory
 * stays bounded, no target is dialled for them, open connections and new ones work, and in the end everything is as before.
 */
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openAead } from '../../host/crypto/open.ts'
import { crypto } from '../../runtime-node/crypto.ts'
import type { Program, Running } from '../../testkit/process.ts'
import { concat, DIAL, MessageType, message, push } from '../../testkit/sim/wire.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { figuresOf, form, note, together } from './form.ts'
import { Streams } from './streams.ts'

const OPENS = form(10_000, 100_000)
const METHOD = 'xchacha20poly1305_ietf'
const NONCE_BYTES = 24
const SEALED_MAX = 512
/** Datagrams sent before a pause for the program: fewer than its socket buffer holds. */
const BURST = 100
const BURST_MS = 5
const SIZE = 200_000
const CEILING_MIB = 64
const MIB = 2 ** 20
/** Left after all have ended: tables that grew. */
const LEFT_MIB = 4
const RESIDENT_MIB = 2 * CEILING_MIB + 64
/** A session without an answer ends after 30 s, and leaves a record for `time_wait`. */
const FORGOTTEN_MS = 90_000
const LIMIT_MS = 30_000

const test = suite('faults: half-open')

const residentMiB = (end: Running): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${end.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024

interface Sender {
  /** Sends a datagram from one of several ports. */
  send(datagram: Uint8Array): Promise<void>
  close(): void
}

function sender(host: string, port: number): Sender {
  const sockets = Array.from({ length: 16 }, () => createSocket(host === '::1' ? 'udp6' : 'udp4'))
  let sent = 0
  for (const socket of sockets) socket.on('error', () => undefined)
  return {
    async send(datagram) {
      sockets[sent++ % sockets.length]?.send(datagram, port, host)
      if (sent % BURST === 0) await sleep(BURST_MS)
    },
    close() {
      for (const socket of sockets) socket.close()
    },
  }
}

async function openMany(server: Program, host: string): Promise<void> {
  const streams = await Streams.open()
  const client = server === 'node' ? 'bun' : 'node'
  const config = { memory: CEILING_MIB, linger: 5, time_wait: 5, loglevel: 4 }
  const options = { server, client, config, family: host === '::1' ? 6 : 4, target: streams.target.address } as const
  await withTunnel(options, async (tunnel) => {
    const idle = await tunnel.dial()
    await streams.assertCarries(tunnel, SIZE, LIMIT_MS)
    const base = await figuresOf(tunnel.server)
    const dialled = streams.target.connections.length
    const resident = residentMiB(tunnel.server)
    const aead = await openAead(METHOD, Buffer.from(tunnel.psk, 'base64'), crypto)
    const out = sender(host, Number(String(tunnel.server.config['kcp_bind']).split(':').at(-1)))
    const began = performance.now()
    try {
      const sealed = new Uint8Array(SEALED_MAX)
      const nonce = new Uint8Array(NONCE_BYTES)
      for (let conv = 1; conv <= OPENS; conv++) {
        const flight = push(conv, 0, concat(DIAL, message(MessageType.PUSH, Buffer.from('hello'))), { ts: conv })
        globalThis.crypto.getRandomValues(nonce)
        const length = aead.seal(flight, 0, flight.length, nonce, 0, sealed, 0)
        await out.send(sealed.slice(0, length))
        // an unauthentic one of the same length
        await out.send(globalThis.crypto.getRandomValues(new Uint8Array(length)))
      }
    } finally {
      out.close()
    }
    const full = await figuresOf(tunnel.server)
    const ms = performance.now() - began
    const opened = (full.counters['sessions_opened'] ?? 0) - (base.counters['sessions_opened'] ?? 0)
    const used = ((full.gauges['memory_used'] ?? 0) - (base.gauges['memory_used'] ?? 0)) / MIB
    const grown = residentMiB(tunnel.server) - resident
    note(
      `${server} server, ${host}: ${OPENS} first flights and as many unauthentic datagrams in ${(ms / 1000).toFixed(1)} s: ` +
        `${opened} sessions, ${used.toFixed(1)} MiB in the engine, ${grown.toFixed(0)} MiB more resident`,
    )
    assert.ok(opened > OPENS / 10, `${opened} sessions`)
    assert.ok(used <= CEILING_MIB + 1, `${used} MiB in use`)
    assert.ok(grown <= RESIDENT_MIB, `${grown} MiB more resident`)
    assert.is(streams.target.connections.length, dialled, 'targets dialled for nobody')
    assert.not.ok(idle.ended, 'an open connection stays')
    await streams.assertCarries(tunnel, SIZE, LIMIT_MS)
    const isForgotten = async (): Promise<boolean> => {
      const { gauges } = await figuresOf(tunnel.server)
      const open = ['connect', 'established', 'linger', 'time_wait'].map((state) => gauges[`sessions_${state}`] ?? 0)
      const left = ((gauges['memory_used'] ?? 0) - (base.gauges['memory_used'] ?? 0)) / MIB
      return open.reduce((sum, count) => sum + count) <= 2 && left <= LEFT_MIB
    }
    await waitFor('all of them are forgotten', isForgotten, FORGOTTEN_MS, () => tunnel.server.stats('sessions=none'))
    assert.not.ok(idle.ended, 'an open connection stays')
    idle.destroy()
    await streams.assertCarries(tunnel, SIZE, LIMIT_MS)
  }).finally(() => streams.target.close())
}

test(`${OPENS} half-open sessions`, () => together([() => openMany('node', '127.0.0.1'), () => openMany('bun', '::1')]))

test.run()
