// time limit: 240 s
/** `log` in a file: what arrives there, rotation, workers, the switch to another user, a full disk, and reloads. */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, commandOf, freePort, type Running, run, start, writeConfig } from '../../testkit/process.ts'
import { dial, echoTarget, type TcpEnd } from '../../testkit/tcp.ts'
import { withTunnel } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const CLIENT: Config = { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9' }
/** A line in each format. */
const PLAIN = /^[FEWIDV] \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* \S/
const ROUNDS = 12
/** A user that exists on every Linux system. */
const NOBODY = 65_534

const test = suite('log file')

const folders: string[] = []
test.after.each(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  folders.push(folder)
  return folder
}

const textOf = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '')

const logged = (path: string, pattern: string | RegExp): Promise<void> =>
  waitFor(
    `${path} has ${pattern}`,
    () => (typeof pattern === 'string' ? textOf(path).includes(pattern) : pattern.test(textOf(path))),
    20_000,
    () => textOf(path).slice(-2000),
  )

const textIn = (folder: string): string =>
  readdirSync(folder)
    .map((name) => textOf(join(folder, name)))
    .join('')

/** Lines of all files of a folder, when nothing is written any more. */
function linesIn(folder: string): string[] {
  const text = textIn(folder)
  assert.ok(text.endsWith('\n'), `whole lines: ${text.slice(-200)}`)
  return text.split('\n').slice(0, -1)
}

const linux = process.platform === 'linux'
const root = linux && process.getuid?.() === 0

async function stop(running: Running): Promise<void> {
  const { code, signal } = await running.stop()
  assert.equal([code, signal], [0, null], running.log())
}

async function rotate(running: Running, path: string, to: string): Promise<void> {
  renameSync(path, to)
  process.kill(running.pid, 'SIGUSR2')
  await waitFor('the file is there again', () => existsSync(path))
}

const childrenOf = (pid: number): string[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')

const portOf = (running: Running): number => Number(String(running.config['listen']).split(':')[1])

const newClient = async (): Promise<Config> => ({ ...CLIENT, listen: `127.0.0.1:${await freePort()}` })

for (const program of [...RUNTIMES, 'deno'] as const) {
  if (process.platform === 'win32') {
    skip(test, `all: ${program}`, 'Windows has neither these signals nor these permissions')
    continue
  }

  for (const format of ['plain', 'json']) {
    test(`lines are in the file and nowhere else, and rotation loses none: ${program}, ${format}`, async () => {
      const folder = newFolder()
      const path = join(folder, 'a.log')
      const config = { ...(await newClient()), log: `file:${path}` }
      const running = await start(program, config, { args: ['--log-format', format] })
      assert.is(statSync(path).mode & 0o777, 0o640 & ~process.umask(), 'not for everybody')
      const open: TcpEnd[] = []
      for (let round = 0; round < ROUNDS; round++) {
        const opened = Array.from({ length: 8 }, () => dial('127.0.0.1', portOf(running)))
        // while lines are written
        if (round % 3 === 2) await rotate(running, path, `${path}.${round}`)
        open.push(...(await Promise.all(opened)))
      }
      const sessions = (): number => textIn(folder).split('session opened').length - 1
      await waitFor(
        'all lines',
        () => sessions() === 8 * ROUNDS,
        20_000,
        () => textIn(folder),
      )
      for (const one of open) one.destroy()
      await stop(running)
      const lines = linesIn(folder)
      for (const line of lines) {
        if (format === 'plain') assert.match(line, PLAIN)
        else assert.type(JSON.parse(line).text, 'string')
      }
      const count = (part: string): number => lines.filter((line) => line.includes(part)).length
      assert.is(count('SIGTERM received, stopping'), 1, 'also the last one')
      assert.is(count('session opened'), 8 * ROUNDS, lines.join('\n'))
      assert.is(count('log file opened again'), ROUNDS / 3)
      assert.is(running.log(), '', 'nothing on standard output')
    })
  }

  test(`a reload changes the file; one that cannot be opened is refused and the log stays: ${program}`, async () => {
    const folder = newFolder()
    const [first, second] = [join(folder, 'a.log'), join(folder, 'b.log')]
    writeFileSync(second, 'from before\n')
    const running = await start(program, { ...(await newClient()), log: `file:${first}` })
    for (const [bad, reason] of [
      [join(folder, 'none', 'c.log'), `the directory ${join(folder, 'none')} does not exist`],
      [folder, 'it is a directory'],
    ] as const) {
      running.reload({ log: `file:${bad}`, loglevel: 5 })
      await logged(first, `keeping the old configuration: config key log = "file:${bad}": cannot be opened: ${reason}`)
    }
    // also with a bad value of another key
    running.reload({ log: `file:${second}`, timeout: -1 })
    await logged(first, 'config key timeout = -1')
    assert.is(textOf(second), 'from before\n')
    running.reload({ log: `file:${second}` })
    await logged(second, 'config successfully reloaded')
    assert.match(textOf(second), /^from before\n.* the log continues here, it was in \S*a\.log\n/)
    running.reload({ log: 'stderr' })
    await waitFor('standard error', () => running.log().includes('config successfully reloaded'))
    const length = textOf(second).length
    unlinkSync(second)
    process.kill(running.pid, 'SIGUSR2')
    running.reload({ log: `file:${first}` })
    await logged(first, 'config successfully reloaded')
    assert.not(existsSync(second), 'not used any more')
    assert.ok(length > 0)
    await stop(running)
  })

  test(`a file that cannot be opened ends the start with status 1, and check says so without creating any: ${program}`, async () => {
    const folder = newFolder()
    const fifo = join(folder, 'fifo')
    assert.is(spawnSync('mkfifo', [fifo]).status, 0)
    for (const [path, reason] of [
      [join(folder, 'none', 'a.log'), 'ENOENT'],
      [folder, 'EISDIR'],
      [fifo, 'a FIFO that nobody reads'],
      ['', 'the path of the file is missing'],
    ] as const) {
      const file = writeConfig({ ...CLIENT, log: `file:${path}` })
      const { code, stdout, stderr } = await run(program, ['-c', file.path])
      file.remove()
      assert.is(code, 1, stdout + stderr)
      assert.ok(
        `${stdout}${stderr}`.includes(`F `) && `${stdout}${stderr}`.includes(`config key log = "file:${path}": `),
      )
      assert.ok(`${stdout}${stderr}`.includes(reason), stdout + stderr)
    }
    for (const [path, warning] of [
      [join(folder, 'none', 'a.log'), `the directory ${join(folder, 'none')} does not exist`],
      [folder, 'it is a directory'],
      [join(folder, 'new.log'), undefined],
    ] as const) {
      const file = writeConfig({ ...CLIENT, log: `file:${path}` })
      const { code, stdout } = await run(program, ['check', file.path])
      file.remove()
      assert.is(code, 0, stdout)
      if (warning === undefined) assert.not.match(stdout, 'config key log')
      else assert.ok(stdout.includes(`config key log = "file:${path}": this user cannot open it: ${warning}`), stdout)
    }
    assert.equal(readdirSync(folder), ['fifo'], 'nothing was created')
  })

  test(`SIGUSR2 without a log file is ignored: ${program}`, async () => {
    for (const config of [
      { ...(await newClient()), log: 'stdout' },
      { kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9', log: 'stderr' },
      { kcp_bind: `127.0.0.1:${await freePort()}` },
    ]) {
      const running = await start(program, config)
      for (let round = 0; round < 5; round++) process.kill(running.pid, 'SIGUSR2')
      assert.match(await running.stats(), 'kcp')
      await stop(running)
      assert.not.match(running.log(), 'opened again')
    }
  })

  test(`a daemon logs to a file at a relative path: ${program}`, async () => {
    const folder = newFolder()
    const file = writeConfig({ ...CLIENT, log: 'file:a.log' })
    const path = join(folder, 'a.log')
    const [command, ...words] = commandOf(program)
    const { status, stdout } = spawnSync(command, [...words, '-d', '-c', file.path], { cwd: folder, encoding: 'utf8' })
    assert.is(status, 0, stdout)
    const pid = Number(/daemon started, pid (\d+)/.exec(stdout)?.[1])
    try {
      await logged(path, 'client start')
      renameSync(path, `${path}.1`)
      process.kill(pid, 'SIGUSR2')
      await logged(path, 'log file opened again')
      process.kill(pid, 'SIGTERM')
      await logged(path, 'SIGTERM received, stopping')
    } finally {
      file.remove()
      if (textOf(path).includes('SIGTERM') === false) process.kill(pid, 'SIGKILL')
    }
  })

  if (!existsSync('/dev/full')) skip(test, `a full disk: ${program}`, 'no /dev/full')
  else
    test(`a full disk neither stops the tunnel nor the end of the program: ${program}`, async () => {
      const target = await echoTarget()
      const server = program === 'node' ? 'bun' : 'node'
      const options = { server, client: program, target: target.address } as const
      await withTunnel({ ...options, config: { loglevel: 6 } }, async ({ client, dial: dialClient }) => {
        client.reload({ log: 'file:/dev/full' })
        await waitFor('the error', () => /the log file \/dev\/full cannot be written: .*no space/i.test(client.log()))
        for (let round = 0; round < 30; round++) {
          const app = await dialClient()
          await app.send('x')
          await waitFor('an echo', () => app.received === 1)
          app.destroy()
        }
        client.reload({ log: 'stdout' })
        await waitFor('the log is back', () => client.log().includes('config successfully reloaded'))
        client.reload({ log: 'file:/dev/full' })
        await waitFor('the error', () => client.log().split('/dev/full cannot be written').length === 3)
      }).finally(() => target.close())
    })

  const isIsolated = root && spawnSync('unshare', ['-m', 'true']).status === 0
  if (!isIsolated) skip(test, `a disk that was full: ${program}`, 'no right to a mount namespace')
  else
    test(`after a full disk every line that waited is in the file, once: ${program}`, async () => {
      const folder = newFolder()
      const script = `mount -t tmpfs -o size=16k none '${folder}' && exec "$@"`
      const wrapper = ['unshare', '-m', 'sh', '-c', script, 'sh']
      const log = `file:${join(folder, 'a.log')}`
      const running = await start(program, { ...(await newClient()), log: 'stdout' }, { wrapper })
      running.reload({ log })
      // as the program sees it
      const inside = join(`/proc/${running.pid}/root`, folder)
      await logged(join(inside, 'a.log'), 'config successfully reloaded')
      spawnSync('dd', ['if=/dev/zero', `of=${join(inside, 'fill')}`, 'bs=1k', 'count=100'])
      const open: TcpEnd[] = []
      for (let round = 0; round < 100; round++) open.push(await dial('127.0.0.1', portOf(running)))
      await waitFor('the error', () => /a\.log cannot be written: .*no space/i.test(running.log()))
      const opened = textOf(join(inside, 'a.log')).split('session opened').length - 1
      assert.ok(opened < 100, `${opened}: it is full`)
      unlinkSync(join(inside, 'fill'))
      await logged(join(inside, 'a.log'), /the log file could not be written for .*no space/i)
      const lines = linesIn(inside)
      for (const line of lines) assert.match(line, PLAIN)
      assert.is(lines.filter((line) => line.includes('session opened')).length, 100)
      for (const one of open) one.destroy()
      await stop(running)
    })

  if (!root) skip(test, `another user: ${program}`, 'not root')
  else
    test(`with user, the file is opened as root and belongs to that user; rotation needs its rights: ${program}`, async () => {
      const folder = newFolder()
      chmodSync(folder, 0o755)
      const path = join(folder, 'a.log')
      const config = { ...(await newClient()), user: `${NOBODY}:${NOBODY}`, log: `file:${path}` }
      const running = await start(program, config)
      const { uid, gid } = statSync(path)
      assert.equal([uid, gid], [NOBODY, NOBODY])
      // as logrotate with nocreate: the user may not create files here
      renameSync(path, `${path}.1`)
      process.kill(running.pid, 'SIGUSR2')
      await logged(`${path}.1`, /E .*config key log = .*cannot be opened again, .*EACCES/)
      const one = await dial('127.0.0.1', portOf(running))
      await logged(`${path}.1`, 'session opened')
      one.destroy()
      assert.not(existsSync(path))
      // as logrotate with create
      writeFileSync(path, '', { mode: 0o640 })
      chownSync(path, NOBODY, NOBODY)
      process.kill(running.pid, 'SIGUSR2')
      await logged(path, 'log file opened again')
      await stop(running)
      assert.match(textOf(path), 'stopping')
      // a file that is there keeps its owner
      chownSync(path, 0, 0)
      await stop(await start(program, config))
      assert.is(statSync(path).uid, 0)
    })
}

for (const program of RUNTIMES) {
  const name = `lines of workers are in the file of the process, also after rotation: ${program}`
  if (!linux) {
    skip(test, name, 'workers are for Linux')
    continue
  }
  test(name, async () => {
    const target = await echoTarget()
    const folder = newFolder()
    const path = join(folder, 'a.log')
    const log = { workers: 2, loglevel: 6, log: `file:${path}` }
    const options = { server: program, client: program, target: target.address, serverConfig: log } as const
    await withTunnel(options, async ({ server, dial: dialClient }) => {
      const children = childrenOf(server.pid)
      assert.is(children.length, 2)
      for (const pid of children) process.kill(Number(pid), 'SIGUSR2')
      for (let round = 0; round < ROUNDS; round++) {
        const app = await dialClient()
        await app.send('x')
        await waitFor('an echo', () => app.received === 1)
        app.destroy()
        if (round % 4 === 3) await rotate(server, path, `${path}.${round}`)
      }
      const sessions = (): number => [...textIn(folder).matchAll(/\[worker \d\].*session closed/g)].length
      await waitFor(
        'the last lines',
        () => sessions() >= ROUNDS,
        20_000,
        () => textIn(folder),
      )
      assert.is(sessions(), ROUNDS)
      assert.equal(childrenOf(server.pid), children, 'the signal ended none')
      for (const line of linesIn(folder)) assert.match(line, PLAIN)
    }).finally(() => target.close())
  })
}

test.run()
