/**
 * Obfuscation (protocol.md 9): the contents of packets, unauthenticated packets, and the lifetime of contexts.
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ErrorCode, EventType, ObfsHost } from '../../testkit/obfs-host.ts'
import { utf8 } from '../../testkit/sim/wire.ts'
import { isChecksumRight, masked, parsePacket } from '../vectors/obfs-packets.ts'

const test = suite('core/obfs')

const PSH_ACK = 0x18
const ECE = 0x40
const RST = 0x04
const OUTSIDE = 1492
const CLIENT = '10.77.0.3:40000'
const SERVER = '10.77.0.2:8080'
const TAG_AND_NONCE = 40

/** A dpi/tcp-wnd server with one captured context, and its client. */
function pair(): { server: ObfsHost; client: ObfsHost; context: number } {
  const server = new ObfsHost('dpi/tcp-wnd', 'server', '0.0.0.0:8080')
  const client = new ObfsHost('dpi/tcp-wnd', 'client', CLIENT)
  client.dial(SERVER)
  client.capture(kernel(SERVER, CLIENT, 0x12, 7000, 5001))
  server.capture(kernel(CLIENT, SERVER, 0x10, 5001, 7001))
  return { server, client, context: server.accept(CLIENT) }
}

/** A packet as sent by a kernel: the SYN of a dpi/tcp engine with other numbers and flags. */
function kernel(
  from: string,
  to: string,
  flags: number,
  seq: number,
  ack: number,
  payload = new Uint8Array(),
): Uint8Array {
  const maker = new ObfsHost('dpi/tcp', 'client', from)
  maker.dial(to)
  const [syn] = maker.controls()
  assert.ok(syn)
  const packet = Uint8Array.of(...syn, ...payload)
  const view = new DataView(packet.buffer)
  view.setUint16(2, packet.length)
  view.setUint8(1, 0)
  view.setUint32(24, seq)
  view.setUint32(28, ack)
  view.setUint8(33, flags)
  return withChecksum(packet)
}

function withChecksum(packet: Uint8Array): Uint8Array {
  const view = new DataView(packet.buffer)
  view.setUint16(36, 0)
  for (let sum = 0; sum <= 0xffff; sum += 0x100) {
    view.setUint16(36, sum)
    for (let low = 0; low < 0x100; low++) {
      packet[37] = low
      if (isChecksumRight(parsePacket(packet))) return packet
    }
  }
  throw new Error('no checksum fits')
}

const sealed = (length: number): Uint8Array<ArrayBuffer> => Uint8Array.from({ length }, (_, i) => (i * 7 + 1) & 255)

test("MUST 63: dpi/tcp-wnd sends with constant numbers, 1492 above the kernel's", () => {
  const { server, client } = pair()
  for (const length of [100, 1360, 1]) {
    const there = client.send(SERVER, sealed(length))
    assert.ok(there)
    const packet = parsePacket(there)
    assert.equal([packet.seq, packet.ack, packet.flags], [5001 + OUTSIDE, 7001, PSH_ACK])
    assert.equal(
      server.capture(there).map(({ bytes }) => bytes),
      [sealed(length)],
    )
    const back = server.send(CLIENT, sealed(length))
    assert.ok(back)
    assert.equal([parsePacket(back).seq, parsePacket(back).ack], [7001 + OUTSIDE, 5002])
  }
})

test('accept() is for dpi/tcp-wnd servers and dial() for clients: another endpoint gets E_STATE', () => {
  for (const kind of ['dpi/tcp', 'dpi/tcp-wnd'] as const) {
    const server = new ObfsHost(kind, 'server', '0.0.0.0:8080')
    const client = new ObfsHost(kind, 'client', CLIENT)
    assert.is(server.dial(CLIENT), ErrorCode.STATE, kind)
    assert.is(client.accept(SERVER), ErrorCode.STATE, kind)
    assert.ok(client.dial(SERVER) > 0, kind)
    const accepted = server.accept(CLIENT)
    if (kind === 'dpi/tcp') assert.is(accepted, ErrorCode.STATE)
    else assert.ok(accepted > 0)
  }
})

test('a datagram received before accept() is not lost', () => {
  const { client } = pair()
  const server = new ObfsHost('dpi/tcp-wnd', 'server', '0.0.0.0:8080')
  const ping = client.send(SERVER, sealed(64))
  assert.ok(ping)
  assert.equal(
    server.capture(
      kernel(CLIENT, SERVER, 0x10, 5001, 7001),
      kernel(CLIENT, SERVER, 0x18, 5001, 7001, utf8('GET /generate_204')),
    ),
    [],
  )
  assert.equal(server.capture(ping), [])
  assert.ok(server.accept(CLIENT) > 0)
  assert.equal(server.early(), sealed(64))
  const answer = server.send(CLIENT, sealed(10))
  assert.ok(answer)
  assert.is(parsePacket(answer).ack, 5002)
  server.accept('10.77.0.9:1')
  assert.is(server.early(), undefined)
})

test('MUST 65: RST and FIN from any sender change neither numbers nor contexts', () => {
  const { server, client, context } = pair()
  const before = server.send(CLIENT, sealed(20))
  for (const flags of [RST, RST | 0x10, 0x11, RST | PSH_ACK]) {
    assert.equal(server.capture(kernel(CLIENT, SERVER, flags, 99, 88)), [])
    client.capture(kernel(SERVER, CLIENT, flags, 99, 88))
  }
  assert.equal(server.capture(kernel(CLIENT, SERVER, RST | PSH_ACK, 99, 88, sealed(50))), [])
  const after = server.send(CLIENT, sealed(20))
  assert.ok(before && after)
  assert.is(masked(after, true), masked(before, true))
  assert.is(server.core.calls.obfs_context_info(context & 4095), context)
  // the RST of a refused connection does not set the numbers
  const refused = new ObfsHost('dpi/tcp-wnd', 'client', CLIENT)
  refused.dial(SERVER)
  refused.capture(kernel(SERVER, CLIENT, RST | 0x10, 0, 5001))
  assert.is(refused.send(SERVER, sealed(20)), undefined)
  const tcp = new ObfsHost('dpi/tcp', 'client', CLIENT)
  tcp.dial(SERVER)
  tcp.capture(kernel(SERVER, CLIENT, RST | 0x10, 77, parsePacket(tcp.controls()[0] ?? new Uint8Array()).seq + 1))
  assert.equal(tcp.events(), [])
  assert.is(parsePacket(tcp.send(SERVER, sealed(20)) ?? new Uint8Array()).ack, 0)
})

test('MUST 64: a datagram with a wrong checksum is accepted, its numbers only once a datagram was authentic', () => {
  const spoil = (packet: Uint8Array): Uint8Array => {
    const header = parsePacket(packet).header
    packet[header + 16] = (packet[header + 16] ?? 0) ^ 0x55
    return packet
  }
  const { client } = pair()
  const server = new ObfsHost('dpi/tcp-wnd', 'server', SERVER)
  server.accept(CLIENT)
  const there = client.send(SERVER, sealed(80))
  assert.ok(there)
  const [payload] = server.capture(spoil(there))
  assert.ok(payload)
  assert.equal(payload.bytes, sealed(80))
  assert.is(server.send(CLIENT, sealed(9)), undefined)
  // a PING, as opened with the key
  assert.ok(server.open(CLIENT, Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2, 3, 4), sealed(10 + TAG_AND_NONCE)))
  // the headers of IP and TCP are counted
  assert.is(server.core.counter('pkt_received_bytes'), BigInt(10 + TAG_AND_NONCE + 40))
  const back = server.send(CLIENT, sealed(9))
  assert.ok(back)
  assert.ok(isChecksumRight(parsePacket(back)))
  assert.is(parsePacket(back).ack, 5001 + OUTSIDE + 1)
})

test('a checksum left to the network card is accepted as correct', () => {
  const server = new ObfsHost('dpi/tcp-wnd', 'server', SERVER)
  const packet = kernel(CLIENT, SERVER, 0x10, 5001, 7001)
  // sum of the pseudo header: addresses, protocol, length
  const words = [0x0a4d, 0x0003, 0x0a4d, 0x0002, 6, 20]
  new DataView(packet.buffer).setUint16(
    36,
    words.reduce((sum, word) => sum + word, 0),
  )
  assert.not(isChecksumRight(parsePacket(packet)))
  server.capture(packet)
  server.accept(CLIENT)
  assert.ok(server.send(CLIENT, sealed(5)))
})

test('dpi/tcp-wnd answers a CE mark with ECE on one packet', () => {
  const { server, client } = pair()
  for (const length of [10, 20]) {
    const there = client.send(SERVER, sealed(length))
    assert.ok(there)
    there[1] = 3
    server.capture(there)
  }
  const flags = [1, 2, 3].map((n) => parsePacket(server.send(CLIENT, sealed(n)) ?? new Uint8Array()).flags)
  assert.equal(flags, [PSH_ACK | ECE, PSH_ACK, PSH_ACK])
})

test('MUST 67: dpi/tcp: SYN establishes the server, SYN|ACK the client, data may directly follow the SYN', () => {
  const server = new ObfsHost('dpi/tcp', 'server', SERVER)
  const client = new ObfsHost('dpi/tcp', 'client', CLIENT)
  const context = client.dial(SERVER)
  const [syn] = client.controls()
  const early = client.send(SERVER, sealed(50))
  assert.ok(syn && early)
  assert.is(parsePacket(early).ack, 0)
  assert.is(parsePacket(early).seq, (parsePacket(syn).seq + 1) >>> 0)
  assert.equal(
    server.capture(syn, early).map(({ bytes }) => bytes),
    [sealed(50)],
  )
  const [synAck] = server.controls()
  assert.ok(synAck)
  const back = server.send(CLIENT, sealed(30))
  assert.ok(back)
  assert.is(parsePacket(back).ack, (parsePacket(syn).seq + 1 + 50) >>> 0)
  assert.equal(client.events(), [])
  client.capture(synAck)
  assert.equal(client.events(), [[EventType.OBFS_READY, context]])
  assert.equal(
    client.capture(back).map(({ bytes }) => bytes),
    [sealed(30)],
  )
  const next = client.send(SERVER, sealed(70))
  assert.ok(next)
  assert.equal(
    [parsePacket(next).seq, parsePacket(next).ack],
    [(parsePacket(syn).seq + 51) >>> 0, (parsePacket(synAck).seq + 31) >>> 0],
  )
  // a repeated SYN gets a new SYN|ACK with a new ISN
  server.capture(syn)
  assert.is.not(parsePacket(server.controls()[0] ?? new Uint8Array()).seq, parsePacket(synAck).seq)
})

test('MUST 67: a SYN|ACK for another SYN does not make a client ready; an authentic datagram does', () => {
  const client = new ObfsHost('dpi/tcp', 'client', CLIENT)
  const context = client.dial(SERVER)
  client.capture(kernel(SERVER, CLIENT, 0x12, 1, 2))
  assert.equal(client.events(), [])
  const pong = Uint8Array.of(0, 0, 0, 0, 0, 1, 1, 2, 3, 4)
  assert.ok(client.open(SERVER, pong, sealed(10 + TAG_AND_NONCE)))
  assert.ok(client.events().some(([type, argument]) => type === EventType.OBFS_READY && argument === context))
})

test('MUST 67: a SYN to a client and a SYN|ACK to a server are not answered and change no numbers', () => {
  const server = new ObfsHost('dpi/tcp', 'server', SERVER)
  const client = new ObfsHost('dpi/tcp', 'client', CLIENT)
  client.dial(SERVER)
  server.capture(...client.controls())
  client.capture(...server.controls())
  const numbers = (host: ObfsHost, to: string): number[] => {
    const { seq, ack } = parsePacket(host.send(to, sealed(1)) ?? new Uint8Array())
    return [seq, ack]
  }
  const [clientSeq = 0, clientAck] = numbers(client, SERVER)
  const [serverSeq = 0, serverAck] = numbers(server, CLIENT)
  client.capture(kernel(SERVER, CLIENT, 0x02, 1, 0))
  server.capture(kernel(CLIENT, SERVER, 0x12, 1, serverSeq))
  assert.equal(client.controls(), [])
  assert.equal(server.controls(), [])
  assert.equal(numbers(client, SERVER), [(clientSeq + 1) >>> 0, clientAck])
  assert.equal(numbers(server, CLIENT), [(serverSeq + 1) >>> 0, serverAck])
})

test('a peer at a link-local address is at the interface of our own address, because packets carry no scope', () => {
  const [from, to] = ['[fe80::3]:40000', '[fe80::2]:8080']
  const scoped = from.replace(']', '%7]')
  for (const kind of ['dpi/tcp', 'dpi/tcp-wnd'] as const) {
    const server = new ObfsHost(kind, 'server', to.replace(']', '%7]'))
    const client = new ObfsHost('dpi/tcp', 'client', from)
    client.dial(to)
    const [syn] = client.controls()
    assert.ok(syn)
    if (kind === 'dpi/tcp-wnd') server.accept(scoped)
    // its numbers are taken from the SYN, or from the first datagram
    server.capture(syn)
    client.capture(...server.controls())
    const there = client.send(to, sealed(50))
    assert.ok(there)
    assert.is(server.capture(there).length, 1, kind)
    assert.ok(server.open(scoped, Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2, 3, 4), sealed(10 + TAG_AND_NONCE)))
    assert.ok(server.send(scoped, sealed(9)), kind)
    assert.is(server.send(from, sealed(9)), undefined, `${kind}: no scope`)
  }
  // other addresses have none
  const server = new ObfsHost('dpi/tcp', 'server', '[fd77::2%7]:8080')
  const client = new ObfsHost('dpi/tcp', 'client', '[fd77::3]:40000')
  client.dial('[fd77::2]:8080')
  server.capture(...client.controls())
  assert.ok(server.send('[fd77::3]:40000', sealed(9)))
})

test('packets to another address or port, fragments, and too short or too long packets are dropped and counted', () => {
  const server = new ObfsHost('dpi/tcp-wnd', 'server', SERVER)
  const { client } = pair()
  server.accept(CLIENT)
  const good = client.send(SERVER, sealed(100)) ?? new Uint8Array()
  const bad: Uint8Array[] = []
  const change = (at: number, value: number): void => {
    const copy = good.slice()
    copy[at] = value
    bad.push(copy)
  }
  change(19, 9) // target address
  change(23, 0x91) // target port
  change(6, 0x20) // more fragments
  change(7, 1) // fragment offset
  change(9, 17) // UDP
  change(0, 0x44) // header too short
  change(0, 0x65) // version 6
  change(3, good.length + 1) // longer than captured
  change(32, 0x40) // TCP header too short
  const cut = good.slice(0, 30)
  new DataView(cut.buffer).setUint16(2, cut.length)
  bad.push(cut, good.slice(0, 30), new Uint8Array(), new Uint8Array(2048).fill(0x45), good.slice(0, good.length - 1))
  for (const packet of bad) {
    assert.is(server.capture(good).length, 1)
    assert.equal(server.capture(packet), [])
  }
  assert.is(server.core.counter('obfs_dropped'), BigInt(bad.length))
  assert.is(server.capture(Uint8Array.of(...good, 0, 0, 0)).length, 1, 'link-layer padding is ignored')
  assert.is(server.capture(good).length, 1)
})

test('MUST 68: a dpi/tcp-wnd server refuses at random from 10 unauthenticated contexts, always from 60', () => {
  const server = new ObfsHost('dpi/tcp-wnd', 'server', '0.0.0.0:8080')
  const results: number[] = []
  for (let i = 0; i < 300; i++) results.push(server.accept(`10.1.${i >> 8}.${i & 255}:1000`))
  assert.ok(results.slice(0, 10).every((id) => id > 0))
  const accepted = results.filter((id) => id > 0).length
  assert.is(accepted, 60)
  const tries = results.findLastIndex((id) => id > 0) + 1
  assert.ok(tries > 62 && tries < 130, `60 contexts took ${tries} connections`)
  assert.ok(results.slice(tries).every((id) => id === ErrorCode.SESSIONS))
  // authenticated contexts are not counted
  server.open('10.1.0.0:1000', Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2, 3, 4), sealed(10 + TAG_AND_NONCE))
  const again = Array.from({ length: 100 }, (_, i) => server.accept(`10.2.0.${i}:1`)).filter((id) => id > 0)
  assert.is(again.length, 1)
  assert.is(server.accept('10.1.0.0:1000'), ErrorCode.SESSIONS, 'one context per address')
})

for (const [name, sender] of [
  ['one address', (i: number) => `10.1.0.1:${1000 + i}`],
  ['one /64', (i: number) => `[fd77::${(i + 1).toString(16)}]:1000`],
] as const) {
  test(`MUST 68: idle connections of ${name} do not block other clients of a dpi/tcp-wnd server`, () => {
    const any = name === 'one /64' ? '[::]:8080' : '0.0.0.0:8080'
    const other = (i: number): string => (name === 'one /64' ? `[fd99:0:0:${i + 1}::1]:5` : `10.9.${i}.1:5`)
    const server = new ObfsHost('dpi/tcp-wnd', 'server', any)
    const known = server.accept(other(200))
    server.open(other(200), Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2, 3, 4), sealed(10 + TAG_AND_NONCE))
    for (let i = 0; i < 300; i++) server.accept(sender(i))
    assert.is(server.core.counter('obfs_unauthenticated'), 60n)
    // recent contexts are not replaced yet
    assert.is(server.accept(other(0)), ErrorCode.SESSIONS)
    assert.equal(server.ended(), [])
    server.sleep(3)
    const accepted = Array.from({ length: 30 }, (_, i) => server.accept(other(i)))
    assert.ok(accepted.every((id) => id > 0))
    const ended = server.ended()
    assert.is(ended.length, 30)
    for (const id of [...accepted, known]) assert.not.ok(ended.includes(id))
  })
}

test('MUST 68: a flood of SYNs evicts its own contexts, never an authenticated one', () => {
  const server = new ObfsHost('dpi/tcp', 'server', SERVER)
  const client = new ObfsHost('dpi/tcp', 'client', CLIENT)
  client.dial(SERVER)
  server.capture(...client.controls())
  server.controls()
  server.open(CLIENT, Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2, 3, 4), sealed(10 + TAG_AND_NONCE))
  const [syn] = (() => {
    const attacker = new ObfsHost('dpi/tcp', 'client', '10.9.0.1:2000')
    attacker.dial(SERVER)
    return attacker.controls()
  })()
  assert.ok(syn)
  for (let i = 0; i < 10000; i += 50) {
    const batch = Array.from({ length: 50 }, (_, j) => {
      const copy = syn.slice()
      new DataView(copy.buffer).setUint16(14, i + j)
      return copy
    })
    server.capture(...batch)
    assert.is(server.controls().length, 50)
  }
  assert.is(server.core.counter('obfs_contexts'), 4095n)
  assert.ok(server.send(CLIENT, sealed(10)))
  assert.is(server.capture(client.send(SERVER, sealed(33)) ?? new Uint8Array()).length, 1)
  server.sleep(41)
  assert.is(server.core.counter('obfs_unauthenticated'), 0n)
})

test('MUST 68: contexts end 30 s after creation, authenticated ones after the silence of 7.4', () => {
  const { server, context } = pair()
  const other = server.accept('10.77.0.4:5')
  server.open(CLIENT, Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2, 3, 4), sealed(10 + TAG_AND_NONCE))
  server.sleep(29)
  // T is 10 s at keepalive 2
  assert.equal(server.ended(), [context])
  server.sleep(11)
  assert.equal(server.ended(), [other])
  assert.is(server.core.counter('obfs_contexts'), 0n)
  assert.ok(server.events().some(([type]) => type === EventType.OBFS_ENDED))
})

test('a context that takes the place of an ended one changes no other', () => {
  const server = new ObfsHost('dpi/tcp-wnd', 'server', '0.0.0.0:8080')
  const { calls } = server.core
  const open = [1, 2, 3, 4].map((i) => server.accept(`10.1.0.${i}:5`))
  for (let i = 5; i < 30; i++) {
    const [ended = 0] = open.splice(i % 3, 1)
    assert.is(calls.obfs_release(ended, server.now), 0)
    assert.ok(calls.obfs_release(ended, server.now) < 0, 'its id is not used again')
    open.push(server.accept(`10.1.0.${i}:5`))
    assert.equal(
      open.map((id) => calls.obfs_context_info(id & 4095)),
      open,
    )
  }
})

/** A server for which the client's stream is dialled. */
function dialled(server: ObfsHost, client: string, conv: number): void {
  // a DIAL, which has to be confirmed
  const datagram = (plain: Uint8Array): Uint8Array => sealed(plain.length + TAG_AND_NONCE).map((byte) => byte ^ conv)
  const dial = Uint8Array.of(0, 0, 0, conv, 81, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 4)
  assert.ok(server.open(client, dial, datagram(dial)))
  const challenge = server.plains().find((plain) => plain[3] === conv)
  assert.ok(challenge)
  // an ACK of the DIAL may precede it
  const ack = challenge[4] === 81 ? challenge.slice(0, 24) : challenge.slice(24, 48)
  ack[4] = 82
  ack[19] = 1
  ack[23] = 0
  assert.ok(server.open(client, ack, datagram(ack)))
  assert.ok(server.events().every(([type]) => type === EventType.DIAL))
}

test('the end of a context aborts its sessions, no others, and sends nothing', () => {
  const { server, context } = pair()
  const other = '10.77.0.4:40000'
  server.capture(kernel(other, SERVER, 0x10, 5001, 7001))
  const rest = server.accept(other)
  assert.ok(rest > 0)
  dialled(server, CLIENT, 1)
  dialled(server, other, 2)
  server.sleep(1)
  assert.is(server.core.calls.obfs_release(context, server.now), 0)
  assert.equal(server.events(), [[EventType.ABORT, 9]])
  assert.is(server.core.calls.poll_transmit(64, server.now), 0)
  assert.is(server.send(CLIENT, sealed(5)), undefined)
  assert.is(server.core.calls.obfs_release(rest, server.now), 0)
  assert.equal(server.events(), [[EventType.ABORT, 9]], 'that of the other client')
})

test.run()
