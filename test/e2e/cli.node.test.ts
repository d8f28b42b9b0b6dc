// time limit: 120 s
/**
 * The command line of the programs: options, exit statuses, configuration errors, signals. The same on Node and Bun.
 */

import { createSocket, type Socket } from 'node:dgram'
import { chmodSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { freePort, httpGet, run, start, writeConfig } from '../../testkit/process.ts'
import { listen } from '../../testkit/tcp.ts'
import { METHODS } from '../../testkit/tunnel.ts'
import { waitFor } from '../../testkit/wait.ts'

const GOOD_PSK = Buffer.alloc(32, 7).toString('base64')
const CLIENT: Config = { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9' }

/** Configurations that must not start, with the key and the value that the message must name. */
const BAD: readonly { readonly config: Config | string; readonly message: readonly RegExp[] }[] = [
  { config: { ...CLIENT, kcp: { mtu: 299 } }, message: [/kcp\.mtu/, /299/] },
  { config: { ...CLIENT, kcp: { sndwnd: '256' } }, message: [/kcp\.sndwnd/, /256/] },
  { config: { ...CLIENT, timeout: 59 }, message: [/timeout/, /59/] },
  { config: { ...CLIENT, tcp: { nodelay: 1 } }, message: [/tcp\.nodelay/, /1/] },
  { config: { ...CLIENT, connect: '127.0.0.1:1' }, message: [/listen/, /connect/] },
  { config: { listen: '127.0.0.1:0' }, message: [/kcp_connect/] },
  { config: { ...CLIENT, listen: 'nowhere' }, message: [/listen/, /nowhere/] },
  { config: { ...CLIENT, method: 'rot13', psk: GOOD_PSK }, message: [/method/, /rot13/] },
  { config: { ...CLIENT, method: 'aes256gcm' }, message: [/psk|password/] },
  { config: { ...CLIENT, method: 'aes256gcm', psk: 'short' }, message: [/psk/] },
  { config: { ...CLIENT, psk: GOOD_PSK, password: 'x' }, message: [/psk/, /password/] },
  { config: '{"listen": "127.0.0.1:0",', message: [/json|JSON|config/] },
]

const test = suite('command line')

async function bound(): Promise<Socket> {
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  return socket
}

async function assertRefuses(program: Program, config: Config | string, message: readonly RegExp[]): Promise<void> {
  const file = writeConfig(config)
  const { code, stdout, stderr } = await run(program, ['-c', file.path]).finally(() => file.remove())
  const text = stdout + stderr
  const about = `${JSON.stringify(config)}: ${text}`
  assert.is(code, 1, about)
  for (const pattern of message) assert.match(text, pattern, about)
  assert.not.match(text, /\n\s+at .+:\d+/, `no stack trace: ${about}`)
  assert.not.match(text, new RegExp(GOOD_PSK.slice(0, 20)), 'the key is not shown')
}

for (const program of RUNTIMES) {
  test(`MUST 5, 6, 69, 70, 71: a bad configuration exits with status 1 and names key and value: ${program}`, async () => {
    for (const { config, message } of BAD) await assertRefuses(program, config, message)
  })

  test(`the reason of a failed start reaches stderr whatever the log is set to: ${program}`, async () => {
    const taken = await bound()
    const text = `127.0.0.1:${taken.address().port}`
    try {
      for (const extra of [{ loglevel: 0 }, { log: 'discard' }, { log: 'syslog' }, { log: 'discard', workers: 2 }]) {
        const config = { connect: '127.0.0.1:9', kcp_bind: text, ...extra }
        await assertRefuses(program, config, [new RegExp(text)])
      }
    } finally {
      taken.close()
    }
  })

  test(`unknown keys are named at start and at a reload, also if the file is refused for them: ${program}`, async () => {
    const older = { connect: '127.0.0.1:9', udp_bind: '127.0.0.1:0' }
    await assertRefuses(program, older, [
      /W .*"udp_bind" is ignored: .* write kcp_bind/,
      /F .*kcp_bind: missing|F .*kcp_bind/,
    ])
    const running = await start(program, { ...CLIENT, listen: '127.0.0.1:0', timout: 60 })
    try {
      const count = (pattern: RegExp): number => running.log().split(pattern).length - 1
      assert.is(count(/W .*unknown key "timout" is ignored, did you mean timeout\?/), 1, running.log())
      running.reload({ lingr: 30 })
      await waitFor('the reload ends', () => running.log().includes('successfully reloaded'))
      assert.is(count(/unknown key "timout"/), 1, 'reported once')
      assert.is(count(/W .*unknown key "lingr" is ignored, did you mean linger\?/), 1)
    } finally {
      assert.is((await running.stop()).code, 0)
    }
  })

  test(`MUST 72: a missing file, an unknown option and a stray argument exit with status 1: ${program}`, async () => {
    for (const args of [
      [],
      ['-c', '/nonexistent/config.json'],
      ['--no-such-option'],
      ['stray'],
      ['-c'],
      ['--genpsk', 'rot13'],
      ['check'],
    ]) {
      const { code, stdout, stderr } = await run(program, args)
      assert.is(code, 1, `${args.join(' ')}: ${stdout}${stderr}`)
      assert.ok((stdout + stderr).length > 0, `${args.join(' ')} prints something`)
      assert.not.match(stdout + stderr, /\n\s+at .+:\d+/, `${args.join(' ')}: no stack trace`)
      // what was typed wrong goes to standard error, and its last line says what to do
      const isStarted = args.includes('/nonexistent/config.json') || args[0] === 'stray'
      if (!isStarted) assert.match(stderr.split('\n').at(-2) ?? '', /^kcptun-wasm( check)?: /)
      if (!isStarted) assert.is(stdout, '')
    }
  })

  test(`MUST 72: help, version, methods and generated keys are printed: ${program}`, async () => {
    const help = await run(program, ['--help'])
    assert.is(help.code, 0)
    assert.match(help.stdout, /--config/)
    assert.is(help.stderr, '')
    const version = await run(program, ['--version'])
    assert.is(version.code, 0)
    assert.match(version.stdout + version.stderr, /\d+\.\d+\.\d+/)
    const methods = await run(program, ['--list-methods'])
    assert.is(methods.code, 0)
    for (const method of METHODS) {
      // followed by the name of the library
      if (method !== 'none') assert.match(methods.stdout + methods.stderr, new RegExp(`^  - ${method}  \\(.+\\)$`, 'm'))
    }
    const keys = new Set<string>()
    for (let i = 0; i < 2; i++) {
      const { code, stdout } = await run(program, ['--genpsk', 'xchacha20poly1305_ietf'])
      assert.is(code, 0)
      assert.match(stdout, /^[A-Za-z0-9+/]{43}=\r?\n$/)
      keys.add(stdout)
    }
    assert.is(keys.size, 2, 'keys differ')
  })

  test(`--log-format json prints an object per line: ${program}`, async () => {
    const file = writeConfig({ listen: '256.0.0.1:x', kcp_connect: '127.0.0.1:9' })
    const { code, stdout } = await run(program, ['-c', file.path, '--log-format', 'json']).finally(() => file.remove())
    assert.is(code, 1)
    const lines: { level?: unknown; text?: unknown }[] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    assert.equal(
      lines.map(({ level }) => level),
      ['warning', 'fatal'],
      stdout,
    )
    assert.match(String(lines[1]?.text), 'listen')
  })

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`MUST 74: ${signal} exits with status 0: ${program}`, async () => {
      const running = await start(program, { ...CLIENT, listen: `127.0.0.1:${await freePort()}` })
      assert.equal(await running.stop(signal), { code: 0, signal: null }, running.log())
    })
  }

  test(`an address in use exits with status 1 and is named: ${program}`, async () => {
    const holder = await listen(() => undefined)
    await assertRefuses(program, { ...CLIENT, listen: holder.address }, [new RegExp(String(holder.port))])
    await assertRefuses(program, { ...CLIENT, listen: '127.0.0.1:0', http_listen: holder.address }, [
      new RegExp(String(holder.port)),
    ])
    await holder.close()
    const socket = createSocket('udp4')
    await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
    const { port } = socket.address()
    await assertRefuses(program, { kcp_bind: `127.0.0.1:${port}`, connect: '127.0.0.1:9' }, [new RegExp(String(port))])
    await new Promise<void>((done) => void socket.close(() => done()))
  })

  test(`dangerous but valid settings are logged once at the start: ${program}`, async () => {
    const warnings = (text: string): string[] => text.match(/^W .*/gm) ?? []
    const http_listen = `0.0.0.0:${await freePort()}`
    const config = { kcp_bind: '127.0.0.1:0', connect: '127.0.0.1:9', method: 'aes256gcm', psk: GOOD_PSK, http_listen }
    const running = await start(program, config, { mode: 0o644 })
    try {
      const logged = warnings(running.log()).join('\n')
      assert.match(logged, /other users can read the file with its key \(mode 0644\): chmod 600 /)
      assert.match(logged, `config key http_listen = "${http_listen}": not a loopback address`)
      assert.not.match(logged, GOOD_PSK.slice(0, 20))
      const reloads = (): number => running.log().match(/config successfully reloaded/g)?.length ?? 0
      running.reload({})
      await waitFor('a reload', () => reloads() === 1)
      assert.is(warnings(running.log()).length, warnings(logged).length)
      // restricted and opened up again: logged again
      chmodSync(running.path, 0o600)
      running.reload({})
      await waitFor('another reload', () => reloads() === 2)
      chmodSync(running.path, 0o604)
      running.reload({})
      await waitFor('the last reload', () => reloads() === 3)
      assert.is(running.log().match(/other users can read/g)?.length, 2)
    } finally {
      await running.stop()
    }
    for (const mode of [0o600, 0o640]) {
      const good = await start(program, { ...config, http_listen: `127.0.0.1:${await freePort()}` }, { mode })
      assert.equal(warnings(good.log()), [])
      await good.stop()
    }
    const workers = await start(program, { ...config, workers: 2 }, { mode: 0o644 })
    assert.is(warnings(workers.log()).length, 2, workers.log())
    await workers.stop()
    const plain = await start(program, { kcp_bind: '0.0.0.0:0', connect: '127.0.0.1:9' }, { mode: 0o644 })
    assert.match(warnings(plain.log()).join('\n'), 'packets will not be encrypted')
    assert.is(warnings(plain.log()).length, 1, 'the file contains no key')
    await plain.stop()
  })

  test(`MUST 75: a server reports that it is healthy: ${program}`, async () => {
    const http = `127.0.0.1:${await freePort()}`
    const kcpBind = `127.0.0.1:${await freePort()}`
    const running = await start(program, { kcp_bind: kcpBind, connect: '127.0.0.1:9', http_listen: http })
    assert.match(await httpGet(`http://${http}/healthy`), /^healthy/)
    assert.match(await running.stats(), /= 0 sessions: 0 halfopen, 0 connected, 0 linger, 0 time_wait/)
    await running.stop()
  })
}

test.run()
