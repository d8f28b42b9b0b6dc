// time limit: 180 s
/** What `init` writes for several servers, for a hopping client and with --add, run as it is written. */
import { chmodSync, lstatSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Config, freePort, type Program, type Running, run, start } from '../../testkit/process.ts'
import { dial, echoTarget, type Target } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const LIMIT_MS = 30_000

const test = suite('init, run')

interface Scene {
  readonly target: Target
  readonly at: (name: string) => string
  /** Runs `init` in the folder. @returns its standard output */
  init(...words: readonly string[]): Promise<string>
  read(name: string): Config
  /** Starts what a file says. */
  open(name: string): Promise<Running>
}

async function scene(program: Program, body: (scene: Scene) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'kcptun-wasm-init-'))
  const target = await echoTarget()
  const running: Running[] = []
  const at = (name: string): string => join(folder, name)
  const read = (name: string): Config => JSON.parse(readFileSync(at(name), 'utf8'))
  try {
    await body({
      target,
      at,
      read,
      async init(...words) {
        const { code, stdout, stderr } = await run(program, ['init', '--dir', folder, ...words])
        assert.is(code, 0, stderr)
        return stdout
      },
      async open(name) {
        const one = await start(program, read(name))
        running.push(one)
        return one
      },
    })
  } finally {
    for (const one of running) await one.stop('SIGKILL')
    await target.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** An echo by a connection of its own. */
async function echo(port: number): Promise<void> {
  const end = await dial('127.0.0.1', port)
  await end.send('through the tunnel')
  end.finish()
  const ending = await within('the echo', LIMIT_MS, end.ending)
  assert.is(ending.kind, 'fin')
  assert.is(ending.bytes, 'through the tunnel'.length)
}

for (const program of ['node', 'bun'] as const) {
  test(`several servers: connections go on when one of them ends: ${program}`, () =>
    scene(program, async ({ target, init, open }) => {
      const listen = await freePort()
      const servers = [await freePort(), await freePort()].flatMap((port) => ['--server', `127.0.0.1:${port}`])
      await init(...servers, '--listen', String(listen), '--connect', target.address, '--strategy', 'round_robin')
      const [one] = [await open('server-1.json'), await open('server-2.json')]
      const client = await open('client.json')
      await waitFor(
        'both servers answer',
        () => (client.log().match(/answers in/g) ?? []).length >= 2,
        LIMIT_MS,
        () => client.log(),
      )
      for (let i = 0; i < 4; i++) await echo(listen)
      await one.stop('SIGKILL')
      await waitFor(
        'the client notices',
        () => /is down|refuses/.test(client.log()),
        LIMIT_MS,
        () => client.log(),
      )
      for (let i = 0; i < 4; i++) await echo(listen)
    }))

  test(`a range of ports that the server binds: ${program}`, () =>
    scene(program, async ({ target, init, open }) => {
      const [listen, port] = [await freePort(), await freePort()]
      const range = `127.0.0.1:${port}-${port + 3}`
      await init('--server', range, '--listen', String(listen), '--connect', target.address)
      const server = await open('server.json')
      await open('client.json')
      assert.match(server.log(), range)
      await echo(listen)
    }))

  test(`--add keeps owner and mode, changes what a link leads to, and a reload takes the tunnel: ${program}`, () =>
    scene(program, async ({ target, at, init, open, read }) => {
      const listen = [await freePort(), await freePort(), await freePort()]
      const tunnel = async (port: number): Promise<string[]> => [
        ...['--server', `127.0.0.1:${await freePort()}`],
        ...['--listen', String(port), '--connect', target.address],
      ]
      await init(...(await tunnel(listen[0] ?? 0)))
      chmodSync(at('server.json'), 0o640)
      renameSync(at('client.json'), at('real.json'))
      symlinkSync('real.json', at('client.json'))
      assert.match(await init('--add', ...(await tunnel(listen[1] ?? 0))), 'start both programs again')
      assert.is(statSync(at('server.json')).mode & 0o777, 0o640)
      assert.is(statSync(at('real.json')).mode & 0o777, 0o600)
      assert.ok(lstatSync(at('client.json')).isSymbolicLink())
      const [server, client] = [await open('server.json'), await open('client.json')]
      for (const port of listen.slice(0, 2)) await echo(port)
      assert.match(await init('--add', '--name', 'third', ...(await tunnel(listen[2] ?? 0))), 'Then reload it')
      for (const [end, name] of [
        [server, 'server.json'],
        [client, 'client.json'],
      ] as const) {
        end.reload(read(name))
        await waitFor(
          'the reload ends',
          () => end.log().includes('successfully reloaded'),
          LIMIT_MS,
          () => end.log(),
        )
      }
      for (const port of listen) await echo(port)
      assert.match(client.log(), '[third]')
    }))
}

test.run()
