// time limit: 120 s
/** Two endpoints with real engines over an in-memory network: the tunnel as seen by application and target. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Log } from '../../host/log/log.ts'
import { waitFor } from '../../testkit/wait.ts'
import { loopback, MemoryNetwork, NO_CIPHERS, settle, until } from './memory-runtime.ts'
import type { MemoryTcp } from './memory-tcp.ts'

const test = suite('driver')

const TARGET = loopback(9000)
const PSK = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
async function start(network: MemoryNetwork, config: object): Promise<Endpoint> {
  const log = new Log((stream, text) => network.runtime().print(stream, text))
  log.setLevel(6)
  const bytes = new TextEncoder().encode(JSON.stringify(config))
  return startEndpoint(network.runtime(), parseConfig(bytes), log, NO_CIPHERS)
}

/** A client and a server connected to each other. */
async function tunnel(network: MemoryNetwork, extra: object = {}, serverOnly: object = {}) {
  const common = { connect: '127.0.0.1:9000', kcp_bind: '127.0.0.1:5000' }
  const server = await start(network, { ...common, ...extra, ...serverOnly })
  const client = await start(network, { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:5000', ...extra })
  assert.ok(client.tcp)
  return {
    server,
    client,
    entry: client.tcp,
    close() {
      client.close()
      server.close()
    },
  }
}

/** Position-dependent bytes, so that loss, duplication and reordering are detected. */
const byteAt = (position: number, salt: number): number => (Math.imul(position + salt, 0x9e3779b1) >>> 24) & 0xff

/** One endpoint of a TCP connection that sends `length` bytes, then FIN, and checks what it receives. */
class Party {
  received = 0
  wrong = 0
  ended = false
  closed = false
  error: Error | undefined
  sent = 0
  socket: MemoryTcp | undefined
  #length: number
  #salt: number
  #peerSalt: number
  #holdFin: boolean

  constructor(length: number, salt: number, peerSalt: number, holdFin = false) {
    this.#length = length
    this.#salt = salt
    this.#peerSalt = peerSalt
    this.#holdFin = holdFin
  }

  /** Sends as much as the socket accepts. */
  send(): void {
    const { socket } = this
    if (socket === undefined) return
    while (this.sent < this.#length) {
      const buffer = socket.writeBuffer()
      const length = Math.min(buffer.length, this.#length - this.sent)
      for (let i = 0; i < length; i++) buffer[i] = byteAt(this.sent + i, this.#salt)
      const taken = socket.write(buffer, length)
      this.sent += taken
      if (taken < length) return
    }
    if (!this.#holdFin) socket.end()
  }

  /** Ends the own direction now, or after the remaining bytes. */
  finish(more = 0): void {
    this.#length += more
    this.#holdFin = false
    this.send()
  }

  onData(chunk: Uint8Array): void {
    for (const byte of chunk) if (byte !== byteAt(this.received++, this.#peerSalt)) this.wrong++
  }

  onEnd(): void {
    this.ended = true
  }

  onDrain(): void {
    this.send()
  }

  onClose(error?: Error): void {
    this.closed = true
    this.error = error
  }
}

/** Listens as the target; `make` supplies the party of each connection. */
function listen(network: MemoryNetwork, make: () => Party): Party[] {
  const parties: Party[] = []
  network.listen(TARGET, (socket) => {
    const party = make()
    parties.push(party)
    party.socket = socket
    setImmediate(() => {
      socket.resume()
      party.send()
    })
    return party
  })
  return parties
}

function connect(network: MemoryNetwork, entry: typeof TARGET, party: Party): Party {
  party.socket = network.dial(entry, party)
  party.socket.resume()
  party.send()
  return party
}

const MIB = 1 << 20

for (const security of [{}, { method: 'xchacha20poly1305_ietf', psk: PSK }]) {
  test(`bytes are transferred in both directions at once and both sides close cleanly (${security.method ?? 'no method'})`, async () => {
    const network = new MemoryNetwork()
    const targets = listen(network, () => new Party(3 * MIB, 2, 1))
    const { entry, close, client, server } = await tunnel(network, security)
    const application = connect(network, entry, new Party(2 * MIB, 1, 2))
    await until(() => application.ended && targets[0]?.ended === true, 'both directions ended')
    const target = targets[0]
    assert.ok(target)
    assert.equal([application.received, application.wrong], [3 * MIB, 0])
    assert.equal([target.received, target.wrong], [2 * MIB, 0])
    await until(() => application.closed && target.closed, 'both sockets closed')
    assert.equal([application.error, target.error], [undefined, undefined])
    await until(() => client.driver.streams.size + server.driver.streams.size === 0, 'the streams were let go')
    close()
  })
}

test('MUST 32: DIAL and the first bytes are sent in one datagram', async () => {
  const network = new MemoryNetwork()
  const targets = listen(network, () => new Party(0, 2, 1))
  const { entry, close, client } = await tunnel(network)
  // anything that drains the engine also sends DIAL: wait until the first ping is over
  await until(() => client.driver.core.counter('pongs_received') === 1n, 'the ping was answered')
  connect(network, entry, new Party(100, 1, 2))
  await until(() => targets[0]?.received === 100, 'the bytes arrived')
  const first = network.datagrams.find((datagram) => new DataView(datagram.buffer).getUint32(0) !== 0)
  assert.ok(first)
  const view = new DataView(first.buffer)
  // one PUSH segment with sn 0 that holds DIAL and a message of 104 bytes (protocol.md 5.1, 6.1)
  assert.equal([view.getUint8(4), view.getUint32(12)], [81, 0])
  assert.equal([view.getUint32(24), view.getUint16(28), view.getUint16(30)], [4, 1, 104])
  close()
})

test('the log of both ends calls a session by the same conv, from its first datagram to its end', async () => {
  const network = new MemoryNetwork()
  listen(network, () => new Party(10, 2, 1))
  const { entry, close, client, server } = await tunnel(network)
  const application = connect(network, entry, new Party(10, 1, 2))
  await until(() => application.closed, 'the connection ended')
  await until(() => client.driver.streams.size + server.driver.streams.size === 0, 'the streams were let go')
  const convs = (event: string): (string | undefined)[] =>
    network.printed.flatMap((line) => (line.includes(event) ? [/\[session:[0-9A-F]+\]/.exec(line)?.[0]] : []))
  const [conv] = convs('session opened')
  assert.ok(conv, network.printed.join(''))
  assert.equal(convs('session opened'), [conv, conv])
  assert.equal(convs('session closed'), [conv, conv])
  close()
})

test('MUST 35: a response of any length is delivered after the application has ended its direction', async () => {
  const network = new MemoryNetwork()
  const targets = listen(network, () => new Party(0, 2, 1, true))
  const { entry, close } = await tunnel(network)
  const application = connect(network, entry, new Party(1000, 1, 2))
  await until(() => targets[0]?.ended === true, 'the target saw the end of the request')
  assert.is(targets[0]?.received, 1000)
  assert.not.ok(application.ended)
  targets[0]?.finish(MIB)
  await until(() => application.ended, 'the application saw the end of the answer')
  assert.equal([application.received, application.wrong, application.error], [MIB, 0, undefined])
  close()
})

test('MUST 40: an application cannot send far ahead of a target that does not read', async () => {
  const network = new MemoryNetwork()
  const targets = listen(network, () => new Party(0, 2, 1, true))
  const { entry, close } = await tunnel(network, { kcp: { sndwnd: 32, rcvwnd: 128 } })
  const application = connect(network, entry, new Party(8 * MIB, 1, 2))
  await until(() => targets.length === 1 && targets[0]?.socket?.paused === false, 'the target was dialled')
  targets[0]?.socket?.pause()
  let last = -1
  for (let still = 0; still < 10; still = application.sent === last ? still + 1 : 0) {
    last = application.sent
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.ok(application.sent < 2 * MIB, `${application.sent} bytes were taken`)
  targets[0]?.socket?.resume()
  await until(() => targets[0]?.ended === true, 'the target read everything')
  assert.equal([targets[0]?.received, targets[0]?.wrong], [8 * MIB, 0])
  close()
})

test('MUST 34: the application sees a clean end when the target refuses the connection', async () => {
  const network = new MemoryNetwork()
  const { entry, close } = await tunnel(network)
  const application = connect(network, entry, new Party(1000, 1, 2))
  await until(() => application.ended || application.closed, 'the application sees the end')
  assert.equal([application.received, application.error], [0, undefined])
  close()
})

test('a hundred concurrent connections do not interfere with each other', async () => {
  const network = new MemoryNetwork()
  const targets = listen(network, () => new Party(20_000, 2, 1))
  const { entry, close } = await tunnel(network)
  const applications = Array.from({ length: 100 }, () => connect(network, entry, new Party(30_000, 1, 2)))
  await until(() => applications.every((one) => one.ended) && targets.every((one) => one.ended), 'all ended')
  assert.is(targets.length, 100)
  assert.ok(applications.every((one) => one.received === 20_000 && one.wrong === 0))
  assert.ok(targets.every((one) => one.received === 30_000 && one.wrong === 0))
  close()
})

test('a reset by one application ends only its own session', async () => {
  const network = new MemoryNetwork()
  const targets = listen(network, () => new Party(0, 2, 1, true))
  const { entry, close, client } = await tunnel(network)
  const gone = connect(network, entry, new Party(1000, 1, 2, true))
  const other = connect(network, entry, new Party(1000, 1, 2, true))
  await until(() => targets.length === 2 && targets.every((one) => one.received === 1000), 'both are connected')
  gone.socket?.reset()
  await until(() => targets.some((one) => one.ended), 'a target saw the end')
  other.finish(5000)
  await until(() => targets.some((one) => one.received === 6000 && one.ended), 'the other target got the rest')
  assert.is(client.driver.dead, false)
  close()
})

test('/stats shows the session and /healthy the peer', async () => {
  const network = new MemoryNetwork()
  const targets = listen(network, () => new Party(0, 2, 1, true))
  const { entry, close, client } = await tunnel(network, { http_listen: '127.0.0.1:0' })
  connect(network, entry, new Party(5000, 1, 2, true))
  await until(() => targets[0]?.received === 5000, 'the bytes arrived')
  assert.ok(client.http)
  const fetch = network.http.get(`127.0.0.1:${client.http.port}`)
  assert.ok(fetch)
  const get = async (path: string): Promise<string> =>
    (await fetch(new Request(`http://127.0.0.1${path}`), path, { hold() {}, cut() {} })).text()
  // an ACK may still be in flight
  let stats = ''
  await waitFor('the peer is listed', async () => {
    stats = await get('/stats')
    return / - peer/.test(stats)
  })
  assert.match(
    stats,
    /^\[[\dA-F]{8}\] - peer=127\.0\.0\.1:5000 seen=0s rtt=\d+ rto=\d+ waitsnd=\d+ rx\/tx=0\/4\.88KiB$/m,
  )
  assert.match(stats, '  = 1 sessions: 0 halfopen, 1 connected, 0 linger, 0 time_wait;')
  assert.match(stats, /^\[total\] tcp: 4\.88KiB, 0; kcp: /m)
  assert.match(await get('/healthy'), /^healthy \(peer seen 0s ago\)\n$/)
  close()
})

test('MUST 59: when the peer is silent, the client follows a name that resolves to another address', async () => {
  const network = new MemoryNetwork()
  network.hosts.set('server.test', '127.0.0.1')
  const targets = listen(network, () => new Party(0, 2, 1))
  const elsewhere = await start(network, { connect: '127.0.0.1:9000', kcp_bind: '127.0.0.2:5000' })
  const client = await start(network, { listen: '127.0.0.1:0', kcp_connect: 'server.test:5000', keepalive: 1 })
  const port = client.udp.port
  const silence = (): void => {
    network.clockAhead += 11_000
    client.driver.pump()
  }
  const lookups = (): number =>
    network.printed.filter((line) => line.includes('address update failed, retrying')).length
  // the name does not resolve for a while: the client continues and logs it once
  network.hosts.delete('server.test')
  silence()
  await until(() => lookups() === 1, 'the failure was logged')
  silence()
  await settle()
  assert.is(lookups(), 1)
  // the address is unchanged: the socket is kept
  network.hosts.set('server.test', '127.0.0.1')
  silence()
  await until(() => network.printed.some((line) => line.includes('addresses resolved again')), 'it resolves again')
  assert.ok(network.udp.has(`127.0.0.1:${port}`))
  network.hosts.set('server.test', '127.0.0.2')
  silence()
  await until(
    () => network.printed.some((line) => line.includes('udp connect: 127.0.0.2:5000')),
    'the client uses the new address',
  )
  assert.ok(network.udp.has(`127.0.0.1:${port}`), 'with the same port')
  assert.ok(client.tcp)
  connect(network, client.tcp, new Party(1000, 1, 2))
  await until(() => targets[0]?.received === 1000, 'a new connection goes to the new address')
  client.close()
  elsewhere.close()
})

test('a failed start names the key and leaves nothing open', async () => {
  const network = new MemoryNetwork()
  const server = await start(network, { connect: '127.0.0.1:9000', kcp_bind: '127.0.0.1:5000' })
  const failure = async (config: object): Promise<string> => {
    try {
      const endpoint = await start(network, config)
      endpoint.close()
      return 'it started'
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }
  assert.match(
    await failure({ connect: '127.0.0.1:1', kcp_bind: '127.0.0.1:5000' }),
    /udp.*127\.0\.0\.1:5000.*EADDRINUSE/,
  )
  assert.match(await failure({ listen: '127.0.0.1:7', kcp_connect: '127.0.0.1' }), 'kcp_connect')
  assert.match(await failure({ connect: 'a:1', kcp_bind: '127.0.0.1:1', method: 'rot13', psk: PSK }), 'rot13')
  assert.is(network.listeners.size, 0)
  assert.is(network.udp.size, 1)
  server.close()
  assert.is(network.udp.size, 0)
})

test.run()
