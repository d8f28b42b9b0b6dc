// time limit: 120 s
/** Several tunnels and the system: the service manager is notified for all, root is dropped when all sockets are open, -d. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AF_UNIX, SOCK_DGRAM } from '../../host/linux/libc.ts'
import { syscallsOf } from '../../host/linux/syscalls.ts'
import { os } from '../../runtime-node/os.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { freePort, httpGet, run, start, writeConfig } from '../../testkit/process.ts'
import { dial, echoTarget } from '../../testkit/tcp.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const test = suite('several tunnels and the system')

/** An ID that owns nothing. */
const USER = 12345
const isLinux = process.platform === 'linux'

async function notified(program: (typeof RUNTIMES)[number]): Promise<void> {
  const syscalls = syscallsOf(os)
  const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const inbox = syscalls.socket(AF_UNIX, SOCK_DGRAM)
  const path = join(directory, 'notify')
  syscalls.bindUnix(inbox, path)
  const received: string[] = []
  const arrived = (count: number): Promise<void> =>
    waitFor(
      `${count} notifications`,
      () => {
        for (let text = syscalls.receive(inbox); text !== undefined; text = syscalls.receive(inbox))
          received.push(new TextDecoder().decode(text))
        return received.length >= count
      },
      20_000,
      () => received.join('\n\n'),
    )
  const good = { name: 'good', connect: '127.0.0.1:9', kcp_bind: '127.0.0.1:0' }
  // not an address of this machine (RFC 5737)
  const late = { name: 'late', connect: '127.0.0.1:9', kcp_bind: '203.0.113.9:9' }
  process.env['NOTIFY_SOCKET'] = path
  const running = await start(program, { tunnels: [good, late] })
  delete process.env['NOTIFY_SOCKET']
  try {
    await arrived(1)
    running.reload({ tunnels: [good] })
    await arrived(4)
    assert.is((await running.stop()).code, 0)
    await arrived(5)
    const ready = `READY=1\nMAINPID=${running.pid}`
    assert.match(
      received[0] ?? '',
      /^READY=1\nSTATUS=retrying: late: udp: cannot open 203\.0\.113\.9:9: .*\nMAINPID=\d+$/,
    )
    assert.match(received[1] ?? '', /^RELOADING=1\n/)
    assert.equal(received.slice(2), ['STATUS=running', ready, 'STOPPING=1'])
  } finally {
    await running.stop('SIGKILL')
    syscalls.close(inbox)
    rmSync(directory, { recursive: true })
  }
}

/** Ports for root alone are opened before the switch; a reload that needs one of them again is refused. */
async function dropsRoot(program: (typeof RUNTIMES)[number]): Promise<void> {
  const target = await echoTarget()
  const [udp, port] = [`127.0.0.1:${await freePort()}`, await freePort()]
  const security = { method: 'aes256gcm', password: 'x' }
  const server = { name: 'server', kcp_bind: udp, connect: target.address }
  const privileged = { name: 'low', listen: '127.0.0.1:1001', kcp_connect: udp }
  const open = { name: 'high', listen: `127.0.0.1:${port}`, kcp_connect: udp }
  const config = { ...security, user: String(USER), tunnels: [server, privileged, open] }
  const running = await start(program, config, { owner: USER })
  try {
    const status = readFileSync(`/proc/${running.pid}/status`, 'utf8')
    assert.match(status, new RegExp(`^Uid:\\t${USER}\\t${USER}\\t${USER}\\t${USER}$`, 'm'))
    assert.is(running.log().split('running as uid').length, 2)
    const app = await dial('127.0.0.1', 1001)
    await app.send('x')
    await waitFor('an echo', () => app.received === 1)
    running.reload({ tunnels: [server, { ...privileged, password: 'y' }, open] })
    await waitFor('the reload is refused', () => running.log().includes('reload failed'), 20_000, running.log)
    assert.match(running.log(), /reload failed.*tunnel low: listen: .*EACCES/)
    await app.send('y')
    await waitFor('the session goes on', () => app.received === 2 || app.ended)
    assert.is(app.received, 2)
    app.destroy()
  } finally {
    await running.stop('SIGKILL')
    await target.close()
  }
}

async function runsInBackground(program: (typeof RUNTIMES)[number]): Promise<void> {
  const http_listen = `127.0.0.1:${await freePort()}`
  const tunnels = [
    { name: 'one', connect: '127.0.0.1:9', kcp_bind: '127.0.0.1:0' },
    { name: 'two', connect: '127.0.0.1:9', kcp_bind: '127.0.0.1:0' },
  ]
  const file = writeConfig({ http_listen, tunnels })
  try {
    const { code, stdout } = await run(program, ['-d', '-c', file.path])
    assert.is(code, 0, stdout)
    assert.match(stdout, '[two] server start')
    const pid = Number(/daemon started, pid (\d+)/.exec(stdout)?.[1])
    assert.is(await httpGet(`http://${http_listen}/ready`), 'one: healthy\ntwo: healthy\n')
    process.kill(pid, 'SIGTERM')
    await waitFor('its end', () =>
      httpGet(`http://${http_listen}/ready`).then(
        () => false,
        () => true,
      ),
    )
  } finally {
    file.remove()
  }
}

for (const program of RUNTIMES) {
  const names = {
    notify: `a service manager is notified when all tunnels are open: ${program}`,
    user: `root is dropped when the sockets of all tunnels are open: ${program}`,
    daemon: `several tunnels run in the background: ${program}`,
  }
  if (isLinux) test(names.notify, () => notified(program))
  else skip(test, names.notify, 'not Linux')
  if (isLinux && process.getuid?.() === 0) test(names.user, () => dropsRoot(program))
  else skip(test, names.user, 'not root on Linux')
  if (isLinux) test(names.daemon, () => runsInBackground(program))
  else skip(test, names.daemon, 'not Linux')
}

test.run()
