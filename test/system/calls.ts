/**
 * System calls through FFI and their users (socket options, system log, service notification), in this process.
 * calls.*.test.ts run it.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { socketOptionsOf } from '../../host/config/socket-options.ts'
import { NotAvailable } from '../../host/errors.ts'
import { AF_UNIX, SO_REUSEPORT, SOCK_DGRAM } from '../../host/linux/libc.ts'
import { applyBuffers, descriptorBuffers, openWithOptions } from '../../host/linux/socket-options.ts'
import { type Syscalls, syscallsOf } from '../../host/linux/syscalls.ts'
import { watchClock } from '../../host/linux/system-watch.ts'
import { LOG_DEBUG, LOG_FATAL, LOG_INFO, Log } from '../../host/log/log.ts'
import { openSyslog } from '../../host/log/syslog.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import type { OperatingSystem, SocketOptions } from '../../host/runtime.ts'
import { ServiceNotifier } from '../../host/service/notify.ts'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LOCALHOST: SocketAddress = { family: 4, address: '127.0.0.1', port: 0, scope: 0 }
const LOCALHOST6: SocketAddress = { family: 6, address: '::1', port: 0, scope: 0 }
/** Socket option that returns the interface of a socket, and the index of the loopback interface. */
const SO_BINDTOIFINDEX = 62
const LO = 1
const START = new Date(2026, 10, 2, 3, 4, 5)

/** Socket options, and a list of those that were refused. */
function socketOptions(wanted: Partial<Omit<SocketOptions, 'refused'>>): {
  socketOptions: SocketOptions
  refused: string[]
} {
  const refused: string[] = []
  const none = { reuseport: false, sndbuf: 0, rcvbuf: 0, netdev: '' }
  return {
    socketOptions: { ...none, ...wanted, refused: (option, why) => refused.push(`${option}: ${why}`) },
    refused,
  }
}

function withInbox(syscalls: Syscalls, path: string, body: (take: () => string | undefined) => void): void {
  const fd = syscalls.socket(AF_UNIX, SOCK_DGRAM)
  try {
    syscalls.bindUnix(fd, path)
    body(() => {
      const bytes = syscalls.receive(fd)
      return bytes === undefined ? undefined : new TextDecoder().decode(bytes)
    })
  } finally {
    syscalls.close(fd)
  }
}

export function callsTests(os: OperatingSystem): void {
  const test = suite('system calls')
  const names = {
    device: 'SO_BINDTODEVICE and SO_REUSEPORT are set on the socket before it is bound',
    device6: 'an IPv6 socket is bound through system calls',
    unknown: 'an unknown interface and an overlong name are reported and change nothing',
    taken: 'a port in use is reported as a bind error, and no descriptor leaks',
    cut: 'a buffer that the kernel truncates is reported once, with the sysctl that limits it',
    syslog: 'a log line is sent to the system log in RFC 3164 format, also after the log daemon restarted',
    notify: 'a service manager is notified of start, reload and stop, by path and by abstract name',
  }
  if (process.platform !== 'linux') {
    assert.throws(() => syscallsOf(os), /only on Linux/)
    for (const name of Object.values(names)) skip(test, name, 'not Linux')
    test.run()
    return
  }
  const syscalls = syscallsOf(os)

  test(names.device, () => {
    const wish = socketOptions({ reuseport: true, netdev: 'lo' })
    const fd = openWithOptions(() => syscalls, 'udp', LOCALHOST, wish.socketOptions, false)
    assert.type(fd, 'number')
    if (fd === undefined) return
    assert.is(syscalls.getOption(fd, SO_BINDTOIFINDEX), LO)
    assert.is(syscalls.getOption(fd, SO_REUSEPORT), 1)
    assert.ok(syscalls.port(fd) > 0)
    assert.equal(wish.refused, [])
    const other = openWithOptions(
      () => syscalls,
      'udp',
      { ...LOCALHOST, port: syscalls.port(fd) },
      wish.socketOptions,
      false,
    )
    assert.type(other, 'number', 'SO_REUSEPORT: two sockets on one port')
    for (const each of [fd, other]) if (each !== undefined) syscalls.close(each)
  })

  test(names.device6, () => {
    const wish = socketOptions({ reuseport: true })
    try {
      const fd = openWithOptions(() => syscalls, 'tcp', LOCALHOST6, wish.socketOptions, false)
      assert.ok(fd !== undefined && syscalls.port(fd) > 0)
      if (fd !== undefined) syscalls.close(fd)
    } catch (error) {
      assert.match(String(error), /EADDRNOTAVAIL|EAFNOSUPPORT/, 'a machine without IPv6')
    }
  })

  test(names.unknown, () => {
    for (const netdev of ['nosuchdev0', 'a-name-of-sixteen']) {
      const wish = socketOptions({ netdev })
      const fd = openWithOptions(() => syscalls, 'udp', LOCALHOST, wish.socketOptions, false)
      assert.is(wish.refused.length, 1, netdev)
      assert.match(wish.refused[0] ?? '', netdev === 'nosuchdev0' ? /no such interface/ : /at most 15 bytes/)
      assert.ok(fd !== undefined && syscalls.getOption(fd, SO_BINDTOIFINDEX) === 0)
      if (fd !== undefined) syscalls.close(fd)
    }
  })

  test(names.taken, () => {
    const first =
      openWithOptions(() => syscalls, 'udp', LOCALHOST, socketOptions({ netdev: 'lo' }).socketOptions, false) ?? -1
    const address = { ...LOCALHOST, port: syscalls.port(first) }
    let next = -1
    for (let i = 0; i < 3; i++) {
      assert.throws(
        () => openWithOptions(() => syscalls, 'udp', address, socketOptions({ netdev: 'lo' }).socketOptions, false),
        (error: NodeJS.ErrnoException) =>
          error.code === 'EADDRINUSE' && error.message === `bind EADDRINUSE 127.0.0.1:${address.port}`,
      )
      const fd = syscalls.socket(AF_UNIX, SOCK_DGRAM)
      if (next >= 0) assert.is(fd, next, 'the same descriptor is free each time')
      next = fd
      syscalls.close(fd)
    }
    syscalls.close(first)
  })

  test(names.cut, () => {
    const max = Number(readFileSync('/proc/sys/net/core/rmem_max', 'utf8'))
    const lines: string[] = []
    const log = new Log((_, text) => lines.push(text))
    const wish = socketOptionsOf('udp', { reuseport: false, sndbuf: 8192, rcvbuf: max + 1 }, undefined, log)
    if (wish === undefined) throw new Error('a buffer is a wish')
    const fd = syscalls.socket(2, SOCK_DGRAM)
    for (let i = 0; i < 2; i++) applyBuffers(wish, () => descriptorBuffers(syscalls, fd))
    syscalls.close(fd)
    assert.is(lines.length, 1)
    const expected = `udp.rcvbuf = ${max + 1}: the kernel granted only ${max} bytes; raise it: sysctl -w net.core.rmem_max=`
    assert.ok(lines[0]?.includes(expected), lines[0])
  })

  test(names.syslog, () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const path = join(directory, 'log')
    try {
      assert.throws(() => openSyslog(os, () => START, path), /ENOENT/)
      let write: ReturnType<typeof openSyslog> | undefined
      withInbox(syscalls, path, (take) => {
        write = openSyslog(os, () => START, path)
        write(LOG_INFO, 'udp bind: 127.0.0.1:1')
        write(LOG_FATAL, 'f')
        write(LOG_DEBUG, 'x'.repeat(20_000))
        const tag = `Nov  2 03:04:05 kcptun-wasm[${process.pid}]: `
        assert.is(take(), `<14>${tag}udp bind: 127.0.0.1:1`)
        assert.is(take(), `<10>${tag}f`)
        assert.ok(take()?.startsWith(`<15>${tag}xxx`))
        assert.is(take(), undefined)
        // the log is not read: lines are lost, but no call blocks
        for (let i = 0; i < 2000; i++) write(LOG_INFO, 'flood')
      })
      rmSync(path)
      write?.(LOG_INFO, 'lost')
      withInbox(syscalls, path, (take) => {
        write?.(LOG_INFO, 'again')
        assert.match(take() ?? '', /: again$/)
      })
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test(names.notify, () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    try {
      for (const path of [join(directory, 'notify'), `@kcptun-wasm-test-${process.pid}`]) {
        const lines: string[] = []
        const log = new Log((_, text) => lines.push(text))
        const notifier = new ServiceNotifier({ ...os, env: (name) => (name === 'NOTIFY_SOCKET' ? path : '') }, log)
        withInbox(syscalls, path, (take) => {
          const before = syscalls.monotonicMicroseconds()
          notifier.ready()
          notifier.reloading()
          notifier.stopping()
          assert.is(take(), `READY=1\nMAINPID=${process.pid}`)
          const [, time = ''] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(take() ?? '') ?? []
          assert.ok(BigInt(time) >= before && BigInt(time) <= syscalls.monotonicMicroseconds(), time)
          const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
          assert.ok(Number(before) / 1e6 <= uptime + 1, 'the clock of the system')
          assert.is(take(), 'STOPPING=1')
        })
        notifier.ready()
        notifier.ready()
        assert.is(lines.length, path.startsWith('@') || lines.length === 1 ? 1 : 0, 'a missing listener is logged once')
      }
      const silent = new ServiceNotifier({ ...os, env: () => undefined }, new Log(() => assert.unreachable()))
      silent.ready()
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('a step of the wall clock is reported once for each time that the timer reports it', async () => {
    let steps = 0
    const watch = watchClock(os, () => steps++, Math.floor(Date.now() / 1000) + 1)
    try {
      await waitFor('the expiry, which stands for a step', () => steps === 1)
      await sleep(50)
      assert.is(steps, 1)
    } finally {
      watch.close()
    }
  })

  test('without system calls each option reports the reason, and the runtime opens the socket', () => {
    const none = (): Syscalls => {
      throw new NotAvailable('not available: a reason')
    }
    const all = { reuseport: true, netdev: 'lo', sndbuf: 4096, rcvbuf: 4096 }
    const udp = socketOptions(all)
    assert.is(openWithOptions(none, 'udp', LOCALHOST, udp.socketOptions, false), undefined)
    assert.equal(udp.refused, ['reuseport: not available: a reason', 'netdev: not bound: not available: a reason'])
    const tcp = socketOptions({ ...all, netdev: '' })
    assert.is(openWithOptions(none, 'tcp', LOCALHOST, tcp.socketOptions, true), undefined)
    assert.equal(tcp.refused, ['sndbuf: not available: a reason', 'rcvbuf: not available: a reason'])
  })

  test.run()
}
