// time limit: 120 s
/** Background operation (protocol.md 10.5), and the log of a daemon. */

import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AF_UNIX, SOCK_DGRAM } from '../../host/linux/libc.ts'
import { syscallsOf } from '../../host/linux/syscalls.ts'
import { os } from '../../runtime-node/os.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { commandOf, freePort, httpGet, run, writeConfig } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const test = suite('daemon')

const linux = process.platform === 'linux'
const daemons = new Set<number>()
process.on('exit', () => {
  for (const pid of daemons) kill(pid, 'SIGKILL')
})

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // it has exited
  }
}

function pidOf(text: string): number {
  const pid = Number(/daemon started, pid (\d+)/.exec(text)?.[1])
  assert.ok(pid > 1, text)
  daemons.add(pid)
  return pid
}

async function stop(pid: number): Promise<void> {
  kill(pid, 'SIGTERM')
  // init may reap it late: a zombie has an empty command line
  const gone = (): boolean => !existsSync(`/proc/${pid}`) || readFileSync(`/proc/${pid}/cmdline`, 'utf8') === ''
  await waitFor('the daemon ended', gone)
  daemons.delete(pid)
}

async function withConfig(
  program: Program,
  more: Config,
  body: (path: string, url: string) => Promise<void>,
): Promise<void> {
  const http = `127.0.0.1:${await freePort()}`
  const file = writeConfig({ listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9', http_listen: http, ...more })
  try {
    await body(file.path, `http://${http}/stats`)
  } finally {
    file.remove()
  }
  assert.ok(program)
}

for (const program of [...RUNTIMES, 'deno'] as const) {
  const names = {
    serves: `MUST 72: -d exits with status 0 once the daemon serves, and the daemon has no terminal: ${program}`,
    fails: `MUST 72: -d exits with status 1 and the daemon's own message when it cannot start: ${program}`,
    killed: `-d exits with status 1 when the daemon is killed before it serves: ${program}`,
    syslog: `a daemon logs to the system log, and reloads a file given by a relative path: ${program}`,
  }
  if (!linux) {
    for (const name of Object.values(names)) skip(test, name, 'not Linux')
    continue
  }

  test(names.serves, async () => {
    await withConfig(program, {}, async (path, url) => {
      const { code, stdout, stderr } = await run(program, ['-d', '-c', path])
      const text = stdout + stderr
      assert.is(code, 0, text)
      assert.match(text, /client start/, 'the log of the start is shown')
      const pid = pidOf(text)
      // the daemon serves already
      assert.match(await httpGet(url), /sessions/)
      const [, rest = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')
      const [, , , session, terminal] = rest.split(' ')
      assert.is(Number(session), pid, 'a session of its own')
      assert.is(terminal, '0', 'no terminal')
      for (const fd of [0, 1, 2]) assert.is(readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null')
      assert.is(readlinkSync(`/proc/${pid}/cwd`), process.cwd())
      await stop(pid)
    })
  })

  test(names.fails, async () => {
    await withConfig(program, { method: 'rot13', psk: 'x' }, async (path) => {
      const { code, stdout, stderr } = await run(program, ['-d', '-c', path])
      assert.is(code, 1, stdout + stderr)
      assert.match(stdout + stderr, /F .*config key method = "rot13"/)
      assert.not.match(stdout + stderr, /pid/)
    })
    await withConfig(program, { log: 'discard', method: 'rot13', psk: 'x' }, async (path) => {
      const { code, stdout, stderr } = await run(program, ['-d', '-c', path])
      assert.is(code, 1)
      assert.match(stdout + stderr, /config key method = "rot13"/, 'also when the log is silent')
    })
  })

  if (!existsSync(`/proc/self/task/${process.pid}/children`)) skip(test, names.killed, 'this kernel lists no children')
  else
    test(names.killed, async () => {
      // reading a FIFO without a writer blocks
      const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
      const fifo = join(directory, 'config')
      try {
        await new Promise((done) => spawn('mkfifo', [fifo]).once('close', done))
        const [command, ...words] = commandOf(program)
        const parent = spawn(command, [...words, '-d', '-c', fifo])
        let text = ''
        for (const stream of [parent.stdout, parent.stderr]) stream.on('data', (chunk) => (text += String(chunk)))
        const closed = new Promise<number | null>((done) => parent.once('close', done))
        const children = `/proc/${parent.pid}/task/${parent.pid}/children`
        let pid = 0
        await waitFor('the second process runs', () => {
          pid = Number(readFileSync(children, 'utf8').trim().split(' ')[0])
          return pid > 1
        })
        daemons.add(pid)
        kill(pid, 'SIGKILL')
        assert.is(await closed, 1)
        daemons.delete(pid)
        assert.match(text, /F .*the daemon failed to start: killed by SIGKILL/)
      } finally {
        rmSync(directory, { recursive: true })
      }
    })

  if (spawnSync('unshare', ['-m', 'true']).status !== 0) {
    skip(test, names.syslog, 'no right to a mount namespace, which a /dev/log of its own needs')
    continue
  }
  test(names.syslog, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const syscalls = syscallsOf(os)
    const inbox = syscalls.socket(AF_UNIX, SOCK_DGRAM)
    let log = ''
    const logged = (what: RegExp): Promise<void> =>
      waitFor(
        `syslog has ${what}`,
        () => {
          for (let record = syscalls.receive(inbox); record !== undefined; record = syscalls.receive(inbox)) {
            log += `${new TextDecoder().decode(record)}\n`
          }
          return what.test(log)
        },
        20_000,
        () => log,
      )
    try {
      const config = { kcp_bind: '127.0.0.1:0', connect: '127.0.0.1:9', loglevel: 6 }
      writeFileSync(join(directory, 'config.json'), JSON.stringify(config))
      for (const node of ['null', 'zero', 'random', 'urandom']) writeFileSync(join(directory, node), '')
      syscalls.bindUnix(inbox, join(directory, 'log'))
      chmodSync(join(directory, 'log'), 0o666)
      chmodSync(directory, 0o755)
      // a /dev with our log socket, for this command only
      const script =
        'for n in null zero random urandom; do mount --bind /dev/$n "$0/$n"; done; mount --bind "$0" /dev; exec "$@"'
      const command = [...commandOf(program), '-d', '-c', 'config.json', '-u', '54321:54321']
      const child = spawn('unshare', ['-m', '/bin/sh', '-c', script, directory, ...command], { cwd: directory })
      let text = ''
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (text += String(chunk)))
      assert.is(await new Promise((done) => child.once('close', done)), 0, text)
      const pid = pidOf(text)
      assert.not.match(text, /no system log/)
      kill(pid, 'SIGHUP')
      const line = (severity: number, message: string): RegExp =>
        new RegExp(
          `^<${8 + severity}>[A-Z][a-z]{2} [ \\d]\\d \\d\\d:\\d\\d:\\d\\d kcptun-wasm\\[${pid}\\]: ${message}`,
          'm',
        )
      await logged(line(5, 'config successfully reloaded'))
      writeFileSync(join(directory, 'config.json'), '{')
      kill(pid, 'SIGHUP')
      await logged(line(3, '.*old config'))
      await stop(pid)
      await logged(line(5, 'SIGTERM received'))
    } finally {
      syscalls.close(inbox)
      rmSync(directory, { recursive: true })
    }
  })
}

test.run()
