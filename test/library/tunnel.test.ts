/** The whole program in a process: TCP through a tunnel, reload, statistics. */
import { createSocket } from 'node:dgram'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer as createTcpServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, createTunnel, type Stats, type Tunnel } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { skip } from '../skip.ts'
import { errorOf, psk } from './pair.ts'

const test = suite('library/tunnel')

const method = 'xchacha20poly1305_ietf'

/** A TCP server that answers with its name and what it got. */
function answering(name: string): Promise<Server> {
  const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
    let text = ''
    socket.on('error', () => {})
    socket.on('data', (part) => {
      text += part
    })
    socket.on('end', () => socket.end(`${name}: ${text}`))
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port

/** Asks the TCP port of a tunnel. */
function ask(tunnel: Tunnel, question: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port: Number(tunnel.listening?.split(':')[1]), allowHalfOpen: true })
  let text = ''
  return new Promise((resolve, reject) => {
    socket.on('error', reject)
    socket.on('data', (part) => {
      text += part
    })
    socket.on('end', () => resolve(text))
    socket.end(question)
  })
}

const unix = 'Unix sockets at both ends'
if (process.platform === 'win32') skip(test, unix, 'there are none on Windows')
else
  test(unix, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const target = await answering('there')
    const inner = createTcpServer({ allowHalfOpen: true }, (socket) => {
      const further = connect({ port: portOf(target), host: '127.0.0.1', allowHalfOpen: true })
      socket.pipe(further).pipe(socket)
    })
    await new Promise<void>((resolve) => inner.listen(join(directory, 'target.sock'), resolve))
    const base = { method, psk }
    const server = await createTunnel({
      config: { ...base, kcp_bind: '127.0.0.1:0', connect: `unix:${directory}/target.sock` },
    })
    const listen = `unix:${directory}/app.sock`
    const client = await createTunnel({ config: { ...base, listen, kcp_connect: server.address } })
    assert.is(client.listening, listen)
    const socket = connect({ path: join(directory, 'app.sock'), allowHalfOpen: true })
    socket.end('x')
    let text = ''
    for await (const part of socket) text += part
    assert.is(text, 'there: x')
    await Promise.all([client.close(), server.close()])
    inner.close()
    target.close()
    rmSync(directory, { recursive: true })
  })

test('from an object, bytes and a file; reload by argument and from the file', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const [one, two] = await Promise.all([answering('one'), answering('two')])
  const base = { kcp_bind: '127.0.0.1:0', method, psk }
  const server = await createTunnel({ config: { ...base, connect: `127.0.0.1:${portOf(one)}` } })
  assert.is(server.listening, undefined)
  assert.is(server.monitoring, undefined)
  const config = { listen: '127.0.0.1:0', kcp_connect: server.address, method, psk }
  const file = join(directory, 'client.json')
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
  const clients = await Promise.all([
    createTunnel({ config }),
    createTunnel({ config: new TextEncoder().encode(JSON.stringify(config)) }),
    createTunnel({ config: file }),
  ])
  for (const client of clients) assert.is(await ask(client, 'x'), 'one: x')

  await server.reload({ ...base, connect: `127.0.0.1:${portOf(two)}` })
  assert.is(await ask(clients[0], 'y'), 'two: y')
  const refusals = [
    [server.reload({ ...base, connect: 'nowhere' }), 'ERR_KCPTUN_CONFIG'],
    [server.reload(config), 'ERR_KCPTUN_START'],
    [server.reload({ ...base, connect: '127.0.0.1:1', workers: 2 }), 'ERR_KCPTUN_CONFIG'],
  ] as const
  for (const [reload, code] of refusals) assert.is((await errorOf(reload)).code, code)
  assert.is(await ask(clients[0], 'z'), 'two: z')

  const byFile = clients[2]
  writeFileSync(file, '{')
  assert.is((await errorOf(byFile.reload())).code, 'ERR_KCPTUN_CONFIG')
  writeFileSync(file, JSON.stringify({ ...config, loglevel: 5 }))
  await byFile.reload()
  assert.is(await ask(byFile, 'again'), 'two: again')

  await Promise.all([...clients, server].map((tunnel) => tunnel.close()))
  await errorOf(ask({ listening: '127.0.0.1:1' } as Tunnel, 'x'))
  for (const target of [one, two]) target.close()
  rmSync(directory, { recursive: true })
})

/** Names of all members, nested, without the ids of lists. */
function namesOf(value: unknown, prefix = ''): string[] {
  if (Array.isArray(value)) return namesOf(value[0], `${prefix}[]`)
  if (typeof value !== 'object' || value === null) return [prefix]
  return Object.entries(value).flatMap(([name, inner]) => namesOf(inner, `${prefix}.${name}`))
}

test('stats() has the names of /stats.json', async () => {
  const target = await answering('target')
  const base = { method, psk }
  const server = await createTunnel({
    config: { ...base, kcp_bind: '127.0.0.1:0', connect: `127.0.0.1:${portOf(target)}`, http_listen: '127.0.0.1:0' },
  })
  const client = await createTunnel({
    config: { ...base, kcp_connect: server.address, listen: '127.0.0.1:0', http_listen: '127.0.0.1:0' },
  })
  assert.is(await ask(client, 'x'), 'target: x')
  for (const tunnel of [client, server]) {
    const served = (await (await fetch(`http://${tunnel.monitoring}/stats.json`)).json()) as Record<string, unknown>
    // without members that are undefined
    const stats: Stats = JSON.parse(JSON.stringify(tunnel.stats()))
    const servedNames = new Set(namesOf(served))
    for (const name of namesOf(stats)) assert.ok(servedNames.has(name), `${name} is missing in /stats.json`)
    const program = new Set(['.program', '.version', '.runtime', '.mode', '.note', '.runtime_version', '.workers'])
    const own = new Set(namesOf(stats))
    const missing = [...servedNames].filter((name) => !own.has(name) && !program.has(name))
    assert.equal(missing, [])
    assert.is(stats.sessions.length, 1)
    assert.is(stats.counters['sessions_opened'], 1)
    assert.is(stats.sessions[0]?.[tunnel === client ? 'tcp_read_bytes' : 'tcp_written_bytes'], 1)
  }
  const { monitoring } = client
  await Promise.all([client.close(), server.close()])
  await errorOf(fetch(`http://${monitoring}/healthy`))
  assert.is(client.monitoring, undefined)
  assert.is(client.listening, undefined)
  target.close()
})

test('datagrams of an object with udp_listen and udp_connect; connect() refuses these keys', async () => {
  const target = createSocket('udp4')
  target.on('message', (data, from) => target.send(`got ${data}`, from.port, from.address))
  await new Promise<void>((resolve) => void target.bind(0, '127.0.0.1', resolve))
  const udp_connect = `127.0.0.1:${target.address().port}`
  const server = await createTunnel({ config: { kcp_bind: '127.0.0.1:0', udp_connect, method, psk } })
  const config = { udp_listen: '127.0.0.1:0', kcp_connect: server.address, method, psk }
  const client = await createTunnel({ config })
  const app = createSocket('udp4')
  const answer = new Promise<string>((resolve) => app.once('message', (data) => resolve(String(data))))
  app.send('it', Number(client.listening?.split(':')[1]), '127.0.0.1')
  assert.is(await answer, 'got it')
  app.close()
  target.close()
  await Promise.all([client.close(), server.close()])
  const options = { server: '127.0.0.1:1', psk, udp_listen: '127.0.0.1:1' }
  const error = await createClient(options).catch((reason: Error) => reason)
  assert.match(error instanceof Error ? error.message : '', /udp_listen: .*createTunnel/)
})

test.run()
