// time limit: 240 s, waits
/** A server that is down, as seen by applications of the client: `when_down`. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { dial, echoTarget } from '../../testkit/tcp.ts'
import { type Tunnel, withTunnel } from '../../testkit/tunnel.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const LIMIT_MS = 60_000

const test = suite('server down')

async function assertEchoes(tunnel: Tunnel): Promise<void> {
  const app = await tunnel.dial({ keep: 100 })
  await app.send('hello')
  app.finish()
  const { kind } = await within('the echo', LIMIT_MS, app.ending)
  assert.is(kind, 'fin')
  assert.is(app.text(), 'hello')
}

/** How a new connection ends. A reset may arrive before the dialling side has seen the connection. */
const endingOf = (tunnel: Tunnel): Promise<string> =>
  tunnel.dial().then(
    async (end) => (await within('its end', LIMIT_MS, end.ending)).kind,
    (error) => (error.code === 'ECONNRESET' ? 'reset' : String(error)),
  )

const countOf = (text: string, what: RegExp): number => text.match(what)?.length ?? 0

/** Kills the server and starts it again; `during` runs while the client knows that it is down. */
async function withoutServer(tunnel: Tunnel, during: () => Promise<void>): Promise<void> {
  const { config, program } = tunnel.server
  await tunnel.server.stop('SIGKILL')
  const { client } = tunnel
  await waitFor('the silence is noticed', () => /no answer from/.test(client.log()), LIMIT_MS, client.log)
  await during()
  assert.ok(config && program)
  await tunnel.restart('server')
  await waitFor(
    'the answer is noticed',
    () => /connected: .* without an answer/.test(client.log()),
    LIMIT_MS,
    client.log,
  )
}

for (const program of RUNTIMES) {
  const pair = { server: program, client: program } as const

  test(`connections are reset with the reason while the server is down, and work when it is back: ${program}`, async () => {
    const target = await echoTarget()
    await withTunnel({ ...pair, target: target.address, clientConfig: { keepalive: 2 } }, async (tunnel) => {
      await assertEchoes(tunnel)
      await withoutServer(tunnel, async () => {
        const endings = await Promise.all(Array.from({ length: 5 }, () => endingOf(tunnel)))
        for (const ending of endings) assert.is(ending, 'reset')
        const log = tunnel.client.log()
        assert.ok(countOf(log, /TCP connection refused: the peer does not answer/g) > 0, log)
        assert.is(countOf(log, /aborted/g), 0, `no session was opened: ${log}`)
      })
      await assertEchoes(tunnel)
    }).finally(() => target.close())
  })

  test(`a connection beyond max_sessions is reset: ${program}`, async () => {
    const target = await echoTarget()
    const clientConfig = { max_sessions: 1 }
    await withTunnel({ ...pair, target: target.address, clientConfig }, async (tunnel) => {
      const first = await tunnel.dial({ keep: 100 })
      await first.send('hello')
      await waitFor('its echo', () => first.text() === 'hello', LIMIT_MS)
      for (let i = 0; i < 3; i++) assert.is(await endingOf(tunnel), 'reset')
      first.destroy()
    }).finally(() => target.close())
  })

  test(`with when_down close the port refuses while the server is down: ${program}`, async () => {
    const target = await echoTarget()
    const clientConfig = { keepalive: 2, when_down: 'close' }
    await withTunnel({ ...pair, target: target.address, clientConfig }, async (tunnel) => {
      const { host, port, client } = tunnel
      await assertEchoes(tunnel)
      const refuses = (): Promise<boolean> =>
        dial(host, port).then(
          (end) => {
            end.destroy()
            return false
          },
          (error) => error.code === 'ECONNREFUSED',
        )
      await withoutServer(tunnel, () => waitFor('the port is closed', refuses, LIMIT_MS, client.log))
      await waitFor('the port is open', async () => !(await refuses()), LIMIT_MS, client.log)
      await assertEchoes(tunnel)
    }).finally(() => target.close())
  })
}

test.run()
