/** The host loop printed in docs/abi.md works unmodified. */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Core, instantiate, Mode, NonceStrategy, UNSET } from '../../host/engine/core.ts'

const test = suite('docs/abi.md')

interface Connection {
  bytes: number[]
  ended: boolean
  onWritable(): void
  end(): void
  reset(): void
  close(): void
  write(bytes: Uint8Array): void
}
interface Host {
  receive(datagram: Uint8Array): void
  accept(): number
  write(handle: number, bytes: Uint8Array): number
  shutdown(handle: number): void
  drain(): void
}

function endpoint(mode: number): Core {
  const core = new Core(instantiate())
  core.fillEntropy()
  const kcp = {
    kcpMtu: 1372,
    sndwnd: UNSET,
    rcvwnd: UNSET,
    nodelay: UNSET,
    interval: UNSET,
    resend: UNSET,
    nc: UNSET,
    flush: UNSET,
  }
  const times = { timeout: 60, linger: 5, keepalive: 0, timeWait: 5 }
  const bounds = {
    memoryCeiling: 64 << 20,
    maxSessions: 16,
    replayCapacity: 0,
    maxHalfOpen: 0,
    confirm: 0,
    sendOnce: 0,
    searchMtu: 0,
  }
  core.configure(
    { mode, tagBytes: 0, nonceBytes: 0, nonceStrategy: NonceStrategy.NONE, ...kcp, ...times, ...bounds },
    0,
  )
  core.u32.set([4 | (1000 << 16), 0, 0x0100007f, 0, 0, 0], core.calls.peer_ptr() >>> 2)
  return core
}

test('the printed host loop transfers a request larger than one write accepts, and its response', () => {
  const code = /```js\n([\s\S]*?)```/.exec(readFileSync('docs/abi.md', 'utf8'))?.[1] ?? ''
  const makeHost = new Function(`${code}; return makeHost`)() as (...parts: unknown[]) => Host
  let now = 0
  const clock = (): number => now
  const link: (() => void)[] = []
  const timers = new Map<Core, { at: number; run: () => void }>()
  const apps = new Map<number, Connection>()
  const targets = new Map<number, Connection>()
  const connection = (): Connection => ({
    bytes: [],
    ended: false,
    onWritable: () => {},
    end() {
      this.ended = true
    },
    reset: () => assert.unreachable('reset'),
    close() {
      this.ended = true
    },
    write(bytes) {
      this.bytes.push(...bytes)
    },
  })
  const hosts: Host[] = []
  const host = (core: Core, calls: object, to: number, connections: Map<number, Connection>): Host =>
    makeHost(
      calls,
      {
        send: (bytes: Uint8Array) =>
          link.push(() => {
            hosts[to]?.receive(bytes)
            hosts[to]?.drain()
          }),
      },
      connections,
      clock,
      (ms: number, run: () => void) => timers.set(core, { at: now + Math.ceil(ms * 8), run }),
    )
  const client = endpoint(Mode.CLIENT)
  client.calls.set_peer(0)
  const server = endpoint(Mode.SERVER)
  hosts.push(host(client, client.calls, 1, apps))
  const app = hosts[0]?.accept() ?? 0
  const request = Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 7) & 255)
  let taken = 0
  let writables = 0
  const send = (): void => {
    taken += hosts[0]?.write(app, request.subarray(taken)) ?? 0
    if (taken === request.length) hosts[0]?.shutdown(app)
  }
  apps.set(app, {
    ...connection(),
    onWritable() {
      writables++
      send()
    },
  })
  // the printed loop is for a client: DIAL of the server is handled here
  const pollEvents = server.calls.poll_events
  let target = 0
  const patched = {
    ...server.calls,
    poll_events(): number {
      const n = pollEvents()
      server.refresh()
      for (let i = 0; i < n; i++) {
        const at = server.eventWord + i * 4
        if (server.u32[at] !== 1) continue
        target = server.u32[at + 1] ?? 0
        targets.set(target, connection())
        server.calls.stream_connected(target, 1, now)
      }
      return n
    },
  }
  hosts.push(host(server, patched, 0, targets))
  send()
  hosts[0]?.drain()
  assert.ok(taken < request.length, 'the engine accepted everything at once')
  const settle = (done: () => boolean): void => {
    for (let i = 0; i < 10000 && !done(); i++) {
      const next = link.shift()
      if (next) next()
      else {
        const timer = [...timers.values()].sort((a, b) => a.at - b.at)[0]
        if (!timer) break
        now = Math.max(now, timer.at)
        timer.run()
      }
    }
    assert.ok(done(), 'the exchange did not finish')
  }
  settle(() => targets.get(target)?.ended === true)
  assert.ok(writables > 0)
  assert.ok(Buffer.from(targets.get(target)?.bytes ?? []).equals(request), 'the target received other bytes')
  hosts[1]?.write(target, Uint8Array.of(111, 107))
  hosts[1]?.shutdown(target)
  hosts[1]?.drain()
  settle(() => apps.get(app)?.ended === true)
  assert.equal(apps.get(app)?.bytes, [111, 107])
})

test.run()
