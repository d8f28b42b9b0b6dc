// time limit: 240 s
/** The steps of `rotate` on a running tunnel: a transfer, and connections one after another, are not disturbed. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { MIXED_PAIRS, type Pair } from '../../testkit/pairs.ts'
import { reloadFile, Steps } from '../../testkit/steps.ts'
import { echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { nameOf, type Tunnel, type TunnelOptions, withTunnel } from '../../testkit/tunnel.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const CHUNK = 256 * 1024
const PAUSE_MS = 20

const test = suite('rotate')

/** Sends chunks that the target echoes until it is stopped. */
class Transfer {
  readonly end: TcpEnd
  chunks = 0
  #isOver = false
  readonly #loop: Promise<void>

  constructor(end: TcpEnd) {
    this.end = end
    this.#loop = this.#run()
    this.#loop.catch(() => {})
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      const wanted = this.end.received + CHUNK
      const part = randomBytes(CHUNK)
      const seen: Buffer[] = []
      const keep = (bytes: Buffer): void => void seen.push(bytes)
      this.end.socket.on('data', keep)
      await this.end.send(part)
      await waitFor('the echo of a chunk', () => this.end.received >= wanted || this.end.ended, 60_000)
      this.end.socket.off('data', keep)
      assert.ok(Buffer.concat(seen).equals(part), 'the chunk came back as it was')
      this.chunks++
      await sleep(PAUSE_MS)
    }
  }

  /** Waits for the next chunk: it is alive. */
  async goesOn(): Promise<void> {
    const before = this.chunks
    await Promise.race([this.#loop, waitFor('the transfer goes on', () => this.chunks > before + 1, 60_000)])
    assert.not.ok(this.end.ended, 'the transfer is not interrupted')
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#loop
    this.end.finish()
    const { kind } = await this.end.ending
    assert.is(kind, 'fin')
  }
}

/** Opens connections one after another until it is stopped; each has to work. */
function visitors(tunnel: Tunnel): () => Promise<number> {
  let isOver = false
  const loop = (async () => {
    let visits = 0
    while (!isOver) {
      const app = await tunnel.dial()
      await app.send('x')
      await waitFor('an echo', () => app.received === 1 || app.ended, 60_000)
      assert.is(app.received, 1, `visit ${visits}`)
      app.destroy()
      visits++
      await sleep(PAUSE_MS)
    }
    return visits
  })()
  loop.catch(() => {})
  return () => {
    isOver = true
    return loop
  }
}

/** Carries the steps out. @param name of the old key in keys; undefined: the server has psk */
async function rotate(tunnel: Tunnel, { server: program }: Pair, name: string | undefined): Promise<void> {
  const { server, client } = tunnel
  const old = name ?? 'default'
  const transfer = new Transfer(await tunnel.dial())
  const stopVisits = visitors(tunnel)
  await transfer.goesOn()
  const steps = await Steps.print(program, '-c', server.path, ...(name === undefined ? [] : [name]))
  steps.add(server.path)
  await reloadFile(server)
  await transfer.goesOn()
  steps.use(client.path)
  await reloadFile(client)
  await transfer.goesOn()
  const later = new Transfer(await tunnel.dial())
  await later.goesOn()
  const status = (): Promise<string> => steps.status(program)
  assert.match(await status(), new RegExp(`^${old} +[1-9]\\d* sessions?, seen \\d+s ago$`, 'm'))
  assert.match(await status(), new RegExp(`^${old}-\\d{4}-\\d{2} +[1-9]\\d* sessions?, seen \\d+s ago$`, 'm'))
  await transfer.stop()
  let shown = ''
  for (let left = 100; left > 0; left--) {
    shown = await status()
    if (new RegExp(`^${old} +0 sessions`, 'm').test(shown)) break
    await sleep(200)
  }
  assert.match(shown, new RegExp(`^${old} +0 sessions`, 'm'))
  steps.remove(server.path)
  await reloadFile(server)
  await later.goesOn()
  steps.remove(client.path)
  await reloadFile(client)
  await later.goesOn()
  assert.ok((await stopVisits()) > 10, 'connections one after another')
  await later.stop()
  assert.not.match(readFileSync(server.path, 'utf8'), tunnel.psk)
  assert.not.match(server.log() + client.log(), 'aborted')
}

async function withKeys(options: Omit<TunnelOptions, 'target'>, name: string | undefined): Promise<void> {
  const target = await echoTarget()
  const run = async (tunnel: Tunnel): Promise<void> => {
    if (name !== undefined) {
      // as a person writes it: an entry on a line
      const text = readFileSync(tunnel.server.path, 'utf8')
      const entries = [name, 'other'].map((each) => {
        const psk = each === name ? tunnel.psk : randomBytes(32).toString('base64')
        return `    { "name": "${each}", "psk": "${psk}" }`
      })
      writeFileSync(tunnel.server.path, text.replace(/^.*"psk": ".*"/m, `  "keys": [\n${entries.join(',\n')}\n  ]`))
      await reloadFile(tunnel.server)
    }
    await rotate(tunnel, options, name)
  }
  // sessions that are over count for a while
  const config = { linger: 5, ...options.config }
  await withTunnel({ ...options, config, target: target.address }, run).finally(() => target.close())
}

if (process.platform === 'win32') {
  skip(test, 'all', 'Windows has no SIGHUP')
} else {
  for (const pair of MIXED_PAIRS) {
    test(`a server with psk: ${nameOf(pair)}`, () => withKeys(pair, undefined))
    test(`a user of a server with keys: ${nameOf(pair)}`, () => withKeys(pair, 'alice'))
  }
  const [pair] = MIXED_PAIRS
  if (pair !== undefined) {
    for (const method of ['aes256gcm', 'xsalsa20poly1305'] as const)
      test(`a server with psk, ${method}`, () => withKeys({ ...pair, method }, undefined))
    test('on the portable UDP path, IPv6', () =>
      withKeys({ ...pair, family: 6, config: { udp: { path: 'portable' } } }, 'alice'))
    test('with workers', () => withKeys({ ...pair, config: { workers: 2 } }, undefined))
  }
}

test.run()
