// time limit: 400 s
/** `kcptun-wasm health`: its exit status follows the tunnel, also without http_listen. The Dockerfile in contrib/. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { commandOf, freePort, projectRoot, run, start, writeConfig } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const test = suite('health')

const newKey = (): string => randomBytes(32).toString('base64')

/** Runs `health` with a file that lacks http_listen, unless `config` has it. */
async function health(program: Program, config: Config): Promise<{ code: number | null; text: string }> {
  const file = writeConfig(config)
  const { code, stdout, stderr } = await run(program, ['health', '-c', file.path]).finally(() => file.remove())
  assert.is(stderr, '')
  return { code, text: stdout }
}

async function assertHealth(program: Program, config: Config, code: 0 | 1, pattern: RegExp): Promise<void> {
  const found = await health(program, config)
  assert.match(found.text, pattern)
  assert.is(found.code, code, found.text)
  assert.is(found.text.split('\n').length, 2, 'one line')
}

for (const program of RUNTIMES) {
  for (const [title, host, bind, more] of [
    ['IPv4', '127.0.0.1', '127.0.0.1', {}],
    ['wildcard, workers', '127.0.0.1', '0.0.0.0', { workers: 2 }],
    ['IPv6 wildcard, portable', '[::1]', '[::]', { udp: { path: 'portable' } }],
  ] as const) {
    test(`health follows client and server: ${program}, ${title}`, async () => {
      const psk = newKey()
      const [udp, tcp] = [await freePort(), await freePort()]
      const common: Config = { method: 'xchacha20poly1305_ietf', psk, ...more }
      const atServer = { ...common, kcp_bind: `${bind}:${udp}`, connect: '127.0.0.1:9' }
      const atClient = { ...common, kcp_connect: `${host}:${udp}`, listen: `127.0.0.1:${tcp}` }
      await assertHealth(program, atServer, 1, /^unhealthy: no program has UDP port \d+ \(kcp_bind\)/)
      await assertHealth(program, atClient, 1, /^unhealthy: no program has TCP port \d+ \(listen\)/)
      const server = await start(program, atServer)
      const client = await start(program, atClient)
      try {
        await Promise.all([
          assertHealth(program, atServer, 0, /^healthy: this endpoint .* answers after/),
          assertHealth(program, atClient, 0, /^healthy: server .* answers after/),
          assertHealth(program, { ...atClient, psk: newKey() }, 1, /^unhealthy: server .* no answer with the key/),
          assertHealth(program, { ...atServer, psk: newKey() }, 1, /^unhealthy: this endpoint .* no answer with/),
          assertHealth(program, client.config, 0, /^healthy/),
        ])
        await server.stop()
        await assertHealth(program, atClient, 1, /^unhealthy: server .* no answer/)
      } finally {
        await client.stop()
        await server.stop()
      }
      await assertHealth(program, client.config, 1, /^unhealthy/)
    })
  }

  const several = `a name with several addresses, of which this machine has some: ${program}`
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    skip(test, several, 'a hosts file of its own needs Linux and root')
  } else {
    test(several, async () => {
      const names = new HostsFile()
      // TEST-NET-1: no interface has it
      names.set('server.test', '192.0.2.1', '127.0.0.2', '127.0.0.3')
      const kcp_bind = `server.test:${await freePort()}`
      const config = { method: 'xchacha20poly1305_ietf', psk: newKey(), kcp_bind, connect: '127.0.0.1:9' }
      const file = writeConfig(config)
      const report = async (...args: string[]): Promise<string> =>
        (await run(program, [...args, '-c', file.path], names.wrapper)).stdout
      const server = await start(program, config, { wrapper: names.wrapper })
      try {
        assert.match(await report('health'), /^healthy: this endpoint 127\.0\.0\.[23]:\d+ answers after/)
        const doctor = await report('doctor')
        assert.match(doctor, /192\.0\.2\.1:\d+ is not an address of this machine/)
        for (const address of ['127.0.0.2', '127.0.0.3']) assert.match(doctor, `a program on ${address}:`)
        await server.stop()
        assert.match(await report('health'), /^unhealthy/)
      } finally {
        await server.stop()
        file.remove()
        names.remove()
      }
    })
  }

  test(`health of a rendezvous server, and of both ends behind one: ${program}`, async () => {
    const [udp, tcp] = [await freePort(), await freePort()]
    const common: Config = { method: 'xchacha20poly1305_ietf', psk: newKey() }
    const rendezvous_server = `127.0.0.1:${udp}`
    const relay = { ...common, kcp_bind: rendezvous_server }
    const server = { ...common, rendezvous_server, connect: '127.0.0.1:9' }
    const client = { ...common, rendezvous_server, listen: `127.0.0.1:${tcp}` }
    const running = [await start(program, relay), await start(program, server), await start(program, client)]
    try {
      await assertHealth(program, relay, 0, /^healthy: this endpoint/)
      for (const config of [server, client]) await assertHealth(program, config, 0, /^healthy: rendezvous server/)
      await running[0]?.stop()
      await Promise.all([server, client].map((each) => assertHealth(program, each, 1, /^unhealthy: rendezvous server/)))
    } finally {
      for (const each of running) await each.stop()
    }
  })

  test(`health asks the monitoring server with the token of the file: ${program}`, async () => {
    const [udp, tcp] = [await freePort(), await freePort()]
    const common: Config = { method: 'xchacha20poly1305_ietf', psk: newKey() }
    const running = [await start(program, { ...common, kcp_bind: `127.0.0.1:${udp}`, connect: '127.0.0.1:9' })]
    try {
      const client = await start(program, { ...common, kcp_connect: `127.0.0.1:${udp}`, listen: `127.0.0.1:${tcp}` })
      running.push(client)
      const http_token = 'token-of-the-file'
      client.reload({ http_token })
      const ready = `http://${client.config['http_listen']}/ready`
      await waitFor('the token is required', async () => (await fetch(ready)).status === 401)
      // with an obfuscator health asks /ready. Only the file has one, so that no packet socket is needed
      const file = { ...client.config, obfs: 'dpi/tcp-wnd', http_token }
      await assertHealth(program, file, 0, /^healthy: running with obfs\n/)
      const other = { ...file, http_token: 'another-token' }
      await assertHealth(program, other, 1, /^unhealthy: http:\/\/.*\/ready: status 401\n/)
    } finally {
      for (const each of running) await each.stop()
    }
  })

  test(`health names what it cannot do: ${program}`, async () => {
    for (const [args, pattern] of [
      [['health'], /no config file: start with/],
      [['health', '-c', '/nonexistent'], /config file \/nonexistent: no such file \(ENOENT\); "kcptun-wasm init"/],
    ] as const) {
      const { code, stderr } = await run(program, args)
      assert.is(code, 1)
      assert.match(stderr, pattern)
    }
    const invalid = writeConfig({ listen: '127.0.0.1:1', kcp_connect: 'no port' })
    const { code, stdout, stderr } = await run(program, ['health', '-c', invalid.path])
    invalid.remove()
    assert.is(code, 1)
    assert.match(stdout + stderr, /kcp_connect|listen/)
  })
}

test('the Dockerfile starts the program, and its health check asks it', async () => {
  const text = readFileSync(join(projectRoot, 'contrib/docker/Dockerfile'), 'utf8').replaceAll('\\\n', ' ')
  const words = (instruction: RegExp): string[] => JSON.parse(instruction.exec(text)?.[1] ?? '') as string[]
  const common = { method: 'xchacha20poly1305_ietf', psk: newKey() }
  const config = { ...common, kcp_bind: `127.0.0.1:${await freePort()}`, connect: '127.0.0.1:9' }
  const [, script] = commandOf('node')
  const here = (word: string, path: string): string =>
    word.replace(/^\/app\/dist\/node\/cli\.js$/, script ?? '').replace(/^\/etc\/kcptun-wasm\/config\.json$/, path)
  const entry = words(/^ENTRYPOINT (\[.*\])$/m)
  const tail = words(/^CMD (\[.*\])$/m)
  assert.equal(tail.slice(0, 1), ['-c'])
  const running = await start('node', config, { command: entry.map((word) => here(word, '')) })
  try {
    const check = words(/^HEALTHCHECK .* CMD (\[.*\])$/m)
    assert.ok(check.includes(tail[1] ?? ''), 'both read the same file')
    const [command = '', ...args] = check.map((word) => here(word, running.path))
    const { status, stdout } = spawnSync(command, args, { encoding: 'utf8' })
    assert.is(status, 0, stdout)
  } finally {
    await running.stop()
  }
})

test.run()
