// time limit: 400 s
/** Unix sockets at both ends of a tunnel: `listen` and `connect` as `unix:/path`. */
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  readFileSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  type Config,
  freePort,
  httpGet,
  libevPath,
  type Program,
  type Running,
  run,
  start,
  writeConfig,
} from '../../testkit/process.ts'
import { dial, echoTarget, patternDigest, type TcpEnd } from '../../testkit/tcp.ts'
import { dialAt, listenAt, socketFolder } from '../../testkit/unix.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const BYTES = 200_000
const LIMIT_MS = 30_000
const KEY: Config = { method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64') }

const test = suite('unix sockets')

const bindOf = (server: Running): string => String(server.config['kcp_bind'])
const modeOf = (path: string): string => (lstatSync(path).mode & 0o777).toString(8)

interface Scene {
  readonly at: (name: string) => string
  /** Starts an endpoint, which is stopped at the end. */
  open(program: Program, config: Config): Promise<Running>
  server(program: Program, more?: Config): Promise<Running>
  client(program: Program, server: Running, more: Config): Promise<Running>
}

/** Runs a body with a target at `target.sock` that answers after the end of what it reads. */
async function scene(body: (scene: Scene, accepted: TcpEnd[]) => Promise<void>): Promise<void> {
  const folder = socketFolder()
  const running: Running[] = []
  const accepted: TcpEnd[] = []
  const target = await listenAt(folder.at('target.sock'), (end) => {
    accepted.push(end)
    end.socket.once('end', () => void end.pour(BYTES, 2).then(() => end.finish()))
  })
  const open = async (program: Program, config: Config): Promise<Running> => {
    const one = await start(program, { ...KEY, ...config })
    running.push(one)
    return one
  }
  const parts: Scene = {
    at: folder.at,
    open,
    server: async (program, more = {}) =>
      open(program, {
        kcp_bind: `127.0.0.1:${await freePort()}`,
        connect: `unix:${folder.at('target.sock')}`,
        ...more,
      }),
    client: (program, server, more) => open(program, { kcp_connect: bindOf(server), ...more }),
  }
  try {
    await body(parts, accepted)
  } finally {
    for (const one of running) await one.stop()
    await target.close()
    folder.remove()
  }
}

/** Sends, ends, and expects the whole answer after that. */
async function exchange(path: string): Promise<void> {
  const app = await dialAt(path)
  await app.pour(BYTES, 1)
  app.finish()
  const ending = await within('the answer', LIMIT_MS, app.ending)
  assert.is(ending.kind, 'fin')
  assert.is(ending.bytes, BYTES)
  assert.is(ending.sha256, patternDigest(BYTES, 2))
}

/** Runs the program with a configuration that it cannot start with. @returns its log */
async function refusal(program: Program, config: Config): Promise<string> {
  const file = writeConfig({ ...KEY, ...config })
  const { code, stdout } = await run(program, ['-c', file.path]).finally(() => file.remove())
  assert.is(code, 1, stdout)
  return stdout
}

for (const program of ['node', 'bun', 'deno'] as const) {
  const other = program === 'node' ? 'bun' : 'node'
  for (const workers of [1, 2]) {
    const name = `half-closed exchanges from socket to socket: ${program} client with ${workers} workers, ${other} server`
    if (process.platform !== 'linux') skip(test, name, 'workers and abstract sockets are for Linux')
    else
      test(name, () =>
        scene(async ({ at, server, client }, accepted) => {
          const one = await server(other)
          const two = await client(program, one, { listen: `unix:${at('app.sock')}`, workers })
          assert.is(modeOf(at('app.sock')), '600')
          for (let i = 0; i < 5; i++) await exchange(at('app.sock'))
          assert.is(accepted.length, 5)
          for (const end of accepted) assert.is((await end.ending).sha256, patternDigest(BYTES, 1))
          assert.match(two.log(), `listen: unix:${at('app.sock')}`)
          const app = await dialAt(at('app.sock'))
          await app.send('x')
          const peersOf = async (which: Running): Promise<string> =>
            httpGet(`http://${which.config['http_listen']}/stats.json`)
          await waitFor('the server shows its target', async () =>
            (await peersOf(one)).includes(`"unix:${at('target.sock')}"`),
          )
          await waitFor('the client shows its socket', async () =>
            (await peersOf(two)).includes(`"unix:${at('app.sock')}"`),
          )
          app.destroy()
          assert.is((await two.stop()).code, 0)
          assert.not.ok(existsSync(at('app.sock')), 'the file is removed')
        }),
      )
  }

  test(`a stale file is replaced, a live socket and other files are not: ${program}`, () =>
    scene(async ({ at, server, client }) => {
      const one = await server(other)
      const listen = `unix:${at('app.sock')}`
      const killed = await client(program, one, { listen })
      await killed.stop('SIGKILL')
      assert.ok(existsSync(at('app.sock')), 'SIGKILL leaves the file')
      const again = await client(program, one, { listen, listen_mode: '0666' })
      assert.is(modeOf(at('app.sock')), '666')
      const kcp_connect = bindOf(one)
      assert.match(await refusal(program, { kcp_connect, listen }), /listen: cannot listen on unix:.*in use/)
      await exchange(at('app.sock'))

      writeFileSync(at('notes.txt'), 'mine')
      const lost = await refusal(program, { kcp_connect, listen: `unix:${at('none/a.sock')}` })
      assert.match(lost, /listen: cannot listen on unix:.*its directory does not exist/)
      const why = await refusal(program, { kcp_connect, listen: `unix:${at('notes.txt')}` })
      assert.match(why, /not a socket/)
      assert.is(readFileSync(at('notes.txt'), 'utf8'), 'mine')

      // another instance took over the path: its file stays when this one ends
      unlinkSync(at('app.sock'))
      await client(program, one, { listen })
      assert.is((await again.stop()).code, 0)
      await exchange(at('app.sock'))
    }))

  test(`a reload moves the socket, changes its mode and its target: ${program}`, () =>
    scene(async ({ at, server, client }) => {
      const one = await server(program, { connect: `unix:${at('nothing.sock')}` })
      const two = await client(program, one, { listen: `unix:${at('a.sock')}` })
      const reload = async (which: Running, change: Config, text = 'config successfully reloaded'): Promise<void> => {
        const count = (): number => which.log().split(text).length
        const before = count()
        which.reload(change)
        await waitFor(`reloaded: ${text}`, () => count() > before, LIMIT_MS, which.log)
      }
      const app = await dialAt(at('a.sock'))
      await app.send('x')
      await waitFor('the reason is logged', () => /dial failed: unix:\S+ does not exist \(ENOENT\)/.test(one.log()))
      await reload(one, { connect: `unix:${at('target.sock')}` })
      await reload(two, { listen: `unix:${at('a.sock')}`, listen_mode: '0640' })
      assert.is(modeOf(at('a.sock')), '640')
      await exchange(at('a.sock'))
      await reload(two, { listen: `unix:${at('b.sock')}`, listen_mode: '0620' })
      assert.is(modeOf(at('b.sock')), '620')
      assert.not.ok(existsSync(at('a.sock')))
      await exchange(at('b.sock'))
      writeFileSync(at('file'), '', { mode: 0o600 })
      await reload(two, { listen: `unix:${at('file')}` }, 'reload failed')
      // a link in the place of the socket leads nowhere
      renameSync(at('b.sock'), at('aside'))
      symlinkSync(at('file'), at('b.sock'))
      await reload(two, { listen: `unix:${at('b.sock')}`, listen_mode: '0666' }, 'reload failed')
      assert.is(modeOf(at('file')), '600')
      renameSync(at('aside'), at('b.sock'))
      await exchange(at('b.sock'))
      const port = await freePort()
      await reload(two, { listen: `127.0.0.1:${port}` })
      assert.match(two.log(), `tcp listen: 127.0.0.1:${port}`)
      assert.not.ok(existsSync(at('b.sock')))
    }))

  test(`a target whose backlog is full is not given up: ${program}`, () =>
    scene(async ({ at, server, client }) => {
      const target = await listenAt(at('narrow.sock'), (end) => void end.socket.end('x'), 1)
      const one = await server(program, { connect: `unix:${at('narrow.sock')}` })
      await client(other, one, { listen: `unix:${at('app.sock')}` })
      const apps = await Promise.all(Array.from({ length: 300 }, () => dialAt(at('app.sock'))))
      for (const app of apps) app.finish()
      const answers = Promise.all(apps.map(({ ending }) => ending)).finally(() => target.close())
      for (const { bytes } of await within('the answers', LIMIT_MS, answers)) assert.is(bytes, 1, one.log())
    }))

  const interop = `the other end may be kcptun-libev: ${program}`
  if (libevPath === undefined) skip(test, interop, 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')
  else
    test(interop, () =>
      scene(async ({ at, server, client }) => {
        const inner = await listenAt(at('echo.sock'), (end) => end.socket.pipe(end.socket))
        const outer = await echoTarget()
        const port = await freePort()
        await client('libev', await server(program, { connect: `unix:${at('echo.sock')}` }), {
          listen: `127.0.0.1:${port}`,
        })
        const second = await server('libev', { connect: outer.address })
        await client(program, second, { listen: `unix:${at('app.sock')}` })
        for (const app of [await dial('127.0.0.1', port), await dialAt(at('app.sock'))]) {
          await app.pour(BYTES, 3)
          await waitFor('the echo', () => app.received === BYTES, LIMIT_MS)
          app.destroy()
        }
        await inner.close()
        await outer.close()
      }),
    )

  const killed = `the socket outlives its workers, and a peer that is silent closes it: ${program}`
  if (process.platform !== 'linux') skip(test, killed, 'workers are for Linux')
  else
    test(killed, () =>
      scene(async ({ at, server, client }) => {
        const one = await server(other)
        const listen = `unix:${at('app.sock')}`
        const two = await client(program, one, { listen, workers: 2 })
        const children = readFileSync(`/proc/${two.pid}/task/${two.pid}/children`, 'utf8').split(' ').filter(Boolean)
        for (const child of children) process.kill(Number(child), 'SIGKILL')
        await waitFor('both serve again', () => two.log().split('serves again').length > 2, LIMIT_MS, two.log)
        for (let i = 0; i < 4; i++) await exchange(at('app.sock'))
        await two.stop()
        const three = await client(program, one, { listen, when_down: 'close', keepalive: 1 })
        await waitFor('the port is open', () => existsSync(at('app.sock')), LIMIT_MS, three.log)
        await one.stop('SIGKILL')
        await waitFor('the file is gone', () => !existsSync(at('app.sock')), LIMIT_MS, three.log)
        await server(other, { kcp_bind: bindOf(one) })
        await waitFor('it is there again', () => existsSync(at('app.sock')), LIMIT_MS, three.log)
        await exchange(at('app.sock'))
      }),
    )

  const owned = `the file belongs to the user that the program becomes, who removes it: ${program}`
  if (process.getuid?.() !== 0) skip(test, owned, 'it needs root')
  else
    test(owned, () =>
      scene(async ({ at, server, client }) => {
        // where the user may read the configuration
        chmodSync(at('.'), 0o777)
        const one = await server(other)
        for (const workers of process.platform === 'linux' ? [1, 2] : [1]) {
          const two = await client(program, one, { listen: `unix:${at('app.sock')}`, user: '65534:65533', workers })
          const { uid, gid } = lstatSync(at('app.sock'))
          assert.equal([uid, gid], [65534, 65533])
          await exchange(at('app.sock'))
          assert.is((await two.stop()).code, 0)
          assert.not.ok(existsSync(at('app.sock')))
        }
      }),
    )

  const abstract = `an abstract socket joins two tunnels of different runtimes: ${program} dials ${other}`
  if (process.platform !== 'linux') skip(test, abstract, 'they are for Linux')
  else
    test(abstract, () =>
      scene(async ({ at, server, client }) => {
        const middle = `unix:@kcptun-${randomBytes(6).toString('hex')}`
        await client(other, await server(program), { listen: middle })
        await client(other, await server(program, { connect: middle }), { listen: `unix:${at('app.sock')}` })
        await exchange(at('app.sock'))
      }),
    )
}

test('paths that cannot be used are errors that say why', async () => {
  for (const [listen, reason] of [
    [`unix:/tmp/${'x'.repeat(120)}`, /at most 107 bytes, this one has 125/],
    ['unix:run/x.sock', /must begin with \//],
    ['unix:', /is missing/],
    ['unix:/tmp/', /not of a directory/],
  ] as const)
    assert.match(await refusal('node', { kcp_connect: '127.0.0.1:1', listen }), reason)
  const mode = { kcp_connect: '127.0.0.1:1', listen: 'unix:/tmp/x.sock', listen_mode: 'rw' }
  assert.match(await refusal('node', mode), /listen_mode = "rw": must be permission bits in octal/)
})

test.run()
