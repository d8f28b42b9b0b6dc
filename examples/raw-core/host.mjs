// node examples/raw-core/host.mjs CONFIG: a complete client or server on dist/core.wasm, from docs/abi.md alone.
//
// It shows what a host has to do and nothing more: no name look-ups, no reload, no statistics, no rendezvous mode, no
// obfuscation. CONFIG is a JSON file with the keys of kcptun-libev: `listen` and `kcp_connect` make a client, `kcp_bind`
// and `connect` a server; `method` with `psk` or `password`. Addresses are IPv4.

import { createCipheriv, createDecipheriv, getRandomValues } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import sodium from 'libsodium-wrappers-sumo'

const abi = JSON.parse(readFileSync(new URL('../../assembly/abi.json', import.meta.url), 'utf8'))
const EVENTS = abi.enums.EventType.values
const config = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8'))
const isClient = config.listen !== undefined
await sodium.ready

// Ciphers (docs/abi.md, "Ciphers")

const AD = Buffer.from('kcptun-libev\0')
const TAG_BYTES = 16

/**
 * A method: the bytes and strategy of its nonces, and how it seals and opens. `open` returns null or throws when a
 * datagram is not authentic.
 * @type {Record<string, { nonceBytes: number, strategy: number, seal: (text: Uint8Array, nonce: Uint8Array, key: Uint8Array) => Uint8Array, open: (sealed: Uint8Array, nonce: Uint8Array, key: Uint8Array) => Uint8Array }>}
 */
const METHODS = {
  xchacha20poly1305_ietf: {
    nonceBytes: 24,
    strategy: 1,
    seal: (text, nonce, key) => sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(text, AD, null, nonce, key),
    open: (sealed, nonce, key) => sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, sealed, AD, nonce, key),
  },
  chacha20poly1305_ietf: {
    nonceBytes: 12,
    strategy: 2,
    seal: (text, nonce, key) => sodium.crypto_aead_chacha20poly1305_ietf_encrypt(text, AD, null, nonce, key),
    open: (sealed, nonce, key) => sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, AD, nonce, key),
  },
  xsalsa20poly1305: {
    nonceBytes: 24,
    strategy: 1,
    // libsodium's own order is tag, ciphertext: on the wire the tag stands behind
    seal(text, nonce, key) {
      const { cipher, mac } = sodium.crypto_secretbox_detached(text, nonce, key)
      return Buffer.concat([cipher, mac])
    },
    open(sealed, nonce, key) {
      const end = sealed.length - TAG_BYTES
      return sodium.crypto_secretbox_open_detached(sealed.subarray(0, end), sealed.subarray(end), nonce, key)
    },
  },
  aes256gcm: {
    nonceBytes: 12,
    strategy: 2,
    seal(text, nonce, key) {
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(AD)
      return Buffer.concat([cipher.update(text), cipher.final(), cipher.getAuthTag()])
    },
    open(sealed, nonce, key) {
      const end = sealed.length - TAG_BYTES
      const cipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
      cipher.setAAD(AD).setAuthTag(sealed.subarray(end))
      return Buffer.concat([cipher.update(sealed.subarray(0, end)), cipher.final()])
    },
  },
}

const method = METHODS[config.method]
if (config.method !== undefined && method === undefined) throw new Error(`unknown method ${config.method}`)
const salt = sodium.crypto_generichash(16, 'kcptun-libev', null)
const key =
  config.psk === undefined
    ? sodium.crypto_pwhash(32, config.password ?? '', salt, 2, 8192, sodium.crypto_pwhash_ALG_ARGON2ID13)
    : Buffer.from(config.psk, 'base64')

// The engine: views over its memory, which a call may have grown

const { instance } = await WebAssembly.instantiate(readFileSync(new URL('../../dist/core.wasm', import.meta.url)))
/** @type {any} */
const core = instance.exports
if (core.abi_version() !== abi.version) throw new Error(`core.wasm speaks ABI version ${core.abi_version()}`)
const bytes = (/** @type {number} */ at, /** @type {number} */ length) =>
  new Uint8Array(core.memory.buffer, at >>> 0, length)
const words = (/** @type {number} */ at, /** @type {number} */ length) =>
  new Uint32Array(core.memory.buffer, at >>> 0, length)
/** Ticks of 1/8 ms. */
const now = () => (performance.now() * 8) >>> 0

function refill() {
  getRandomValues(bytes(core.entropy_ptr(), core.entropy_capacity()))
  core.entropy_filled(core.entropy_capacity())
}

/** @param {number} at @param {{ address: string, port: number }} address an IPv4 address, for an address record */
function writeAddress(at, { address, port }) {
  const record = bytes(at, 24).fill(0)
  new DataView(record.buffer, record.byteOffset).setUint32(0, 4 | (port << 16), true)
  record.set(address.split('.').map(Number), 8)
}

/** @param {number} at */
function readAddress(at) {
  const [head = 0] = words(at, 1)
  return { address: bytes(at + 8, 4).join('.'), port: head >>> 16 }
}

/** @param {string} text `host:port` */
function parse(text) {
  const colon = text.lastIndexOf(':')
  return { address: text.slice(0, colon) || '0.0.0.0', port: Number(text.slice(colon + 1)) }
}

// Sockets

const udp = createSocket('udp4')
/**
 * TCP connections by handle: the socket, bytes from it that the engine had no room for, and whether its FIN came.
 * @typedef {{ tcp: import('node:net').Socket, waiting: Buffer, isEnded: boolean }} Connection
 * @type {Map<number, Connection>}
 */
const connections = new Map()
const NOTHING = Buffer.alloc(0)
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

/** Seals and sends what the engine has. */
function transmit() {
  for (;;) {
    const count = core.poll_transmit(core.tx_slots(), now())
    if (count === abi.enums.ErrorCode.values.ENTROPY.value) {
      refill()
      continue
    }
    if (count <= 0) return
    for (let i = 0; i < count; i++) {
      const [source = 0, length = 0, , nonceAt = 0, address = 0] = words(core.tx_ptr() + 32 * i, 6)
      // a copy: the socket sends it later
      const text = bytes(source, length).slice()
      const nonce = bytes(nonceAt, method?.nonceBytes ?? 0).slice()
      const { address: host, port } = readAddress(address)
      udp.send(method === undefined ? text : Buffer.concat([method.seal(text, nonce, key), nonce]), port, host)
    }
  }
}

/** Opens a datagram into the first receive descriptor and hands it over. @param {Buffer} sealed @param {import('node:dgram').RemoteInfo} from */
function receive(sealed, from) {
  const slot = words(core.rx_ptr(), 4)
  let text = sealed
  let isOpened = sealed.length <= abi.constants.MAX_DATAGRAM_BYTES.value
  if (isOpened && method !== undefined) {
    const end = sealed.length - method.nonceBytes
    try {
      text = Buffer.from(method.open(sealed.subarray(0, end), sealed.subarray(end), key))
      bytes((slot[0] ?? 0) + end, method.nonceBytes).set(sealed.subarray(end))
    } catch {
      isOpened = false
    }
  }
  if (isOpened) bytes(slot[0] ?? 0, text.length).set(text)
  slot[2] = sealed.length
  slot[3] = isOpened ? 1 : 0
  writeAddress(core.rx_ptr() + 16, from)
  core.handle_datagrams(1, now())
  drain()
}

/** The rule: after every call that may cause output, everything is drained and the timer armed. */
function drain() {
  for (;;) {
    transmit()
    const count = core.poll_events()
    if (count === 0) break
    // handlers call the engine, which may grow its memory: the array is copied
    const events = words(core.events_ptr(), 4 * count).slice()
    for (let i = 0; i < count; i++) onEvent(events[4 * i] ?? 0, events[4 * i + 1] ?? 0)
  }
  clearTimeout(timer)
  const wait = core.next_timeout(now())
  if (wait < 0) return
  timer = setTimeout(
    () => {
      core.handle_timeout(now())
      drain()
    },
    Math.ceil(wait / 8),
  )
}

/** @param {number} type @param {number} handle */
function onEvent(type, handle) {
  const connection = connections.get(handle)
  if (type === EVENTS.DIAL.value) dial(handle)
  if (connection === undefined) return
  const { tcp, waiting } = connection
  if (type === EVENTS.READABLE.value) flush(handle, connection)
  else if (type === EVENTS.WRITABLE.value) write(handle, connection, waiting)
  else if (type === EVENTS.EOF.value) tcp.end()
  else if (type === EVENTS.ABORT.value || type === EVENTS.DETACH.value) {
    connections.delete(handle)
    if (type === EVENTS.ABORT.value) tcp.resetAndDestroy()
    else tcp.end()
  }
}

/** Engine to TCP: what the socket does not take stays in the engine, whose window limits the peer. @param {number} handle @param {Connection} connection */
function flush(handle, { tcp }) {
  while (!tcp.writableNeedDrain) {
    const count = core.stream_peek(handle)
    if (count <= 0) return
    let taken = 0
    for (let i = 0; i < count; i++) {
      const [at = 0, length = 0] = words(core.spans_ptr() + 8 * i, 2)
      tcp.write(bytes(at, length).slice())
      taken += length
    }
    core.stream_consume(handle, taken, now())
  }
}

/** TCP to engine: the socket pauses while the engine has no room. @param {number} handle @param {Connection} connection @param {Buffer} data */
function write(handle, connection, data) {
  let offset = 0
  while (offset < data.length) {
    const count = core.stream_reserve(handle, data.length - offset)
    if (count <= 0) break
    let filled = 0
    for (let i = 0; i < count; i++) {
      const [at = 0, length = 0] = words(core.spans_ptr() + 8 * i, 2)
      const part = data.subarray(offset + filled, offset + filled + length)
      bytes(at, part.length).set(part)
      filled += part.length
    }
    core.stream_commit(handle, filled, now())
    offset += filled
  }
  connection.waiting = data.subarray(offset)
  if (offset < data.length) connection.tcp.pause()
  else if (connection.isEnded) core.stream_shutdown(handle, now())
  else connection.tcp.resume()
}

/** @param {number} handle @param {import('node:net').Socket} tcp */
function attach(handle, tcp) {
  /** @type {Connection} */
  const connection = { tcp, waiting: NOTHING, isEnded: false }
  connections.set(handle, connection)
  const act = (/** @type {() => void} */ action) => {
    if (connections.get(handle) !== connection) return
    action()
    drain()
  }
  // after pause() the runtime may deliver what it had in hand, and the end
  tcp.on('data', (data) =>
    act(() =>
      write(handle, connection, connection.waiting.length === 0 ? data : Buffer.concat([connection.waiting, data])),
    ),
  )
  tcp.on('end', () =>
    act(() => {
      connection.isEnded = true
      if (connection.waiting.length === 0) core.stream_shutdown(handle, now())
    }),
  )
  tcp.on('drain', () => act(() => flush(handle, connection)))
  tcp.on('error', () => {})
  tcp.on('close', (isBroken) =>
    act(() => {
      if (!isBroken) return
      connections.delete(handle)
      core.stream_abort(handle, now())
    }),
  )
}

/** Server: a session wants its target. @param {number} handle */
function dial(handle) {
  const { address, port } = parse(config.connect)
  const tcp = connect({ host: address, port, allowHalfOpen: true })
  const settle = (/** @type {number} */ ok) => {
    tcp.removeAllListeners()
    if (ok === 1) attach(handle, tcp)
    core.stream_connected(handle, ok, now())
    drain()
  }
  tcp.once('connect', () => settle(1))
  tcp.once('error', () => settle(0))
}

// The start

refill()
/** @type {Record<string, number>} */
const fields = {
  mode: isClient ? 2 : 1,
  tagBytes: method === undefined ? 0 : TAG_BYTES,
  nonceBytes: method?.nonceBytes ?? 0,
  nonceStrategy: method?.strategy ?? 0,
  // 1400 bytes of IP packet, less IPv4 and UDP headers, tag and nonce
  kcpMtu: 1400 - 28 - (method === undefined ? 0 : TAG_BYTES + method.nonceBytes),
  timeout: 600,
  linger: 60,
  keepalive: isClient ? 25 : 0,
  timeWait: 120,
  memoryCeiling: 256 << 20,
  maxSessions: 4096,
  replayCapacity: method === undefined ? 0 : isClient ? 1 << 14 : 1 << 20,
}
const block = words(core.config_ptr(), Object.keys(abi.config).length)
for (const [index, [name, { unset }]] of Object.entries(abi.config).entries()) {
  block[index] = fields[name] ?? (unset ? abi.constants.UNSET.value : 0)
}
const result = core.configure(now())
if (result !== 0) throw new Error(`configure: ${Object.keys(abi.config)[-100 - result] ?? result}`)
udp.on('message', receive)
udp.on('error', () => {})
if (isClient) {
  writeAddress(core.peer_ptr(), parse(config.kcp_connect))
  core.set_peer(now())
  udp.bind(0)
  const { address, port } = parse(config.listen)
  const server = createServer({ allowHalfOpen: true }, (tcp) => {
    const handle = core.stream_open(now())
    if (handle > 0) attach(handle, tcp)
    else tcp.resetAndDestroy()
    drain()
  })
  server.listen(port, address, () => process.stdout.write(`listen ${JSON.stringify(server.address())}\n`))
} else {
  const { address, port } = parse(config.kcp_bind)
  udp.bind(port, address, () => process.stdout.write(`bind ${JSON.stringify(udp.address())}\n`))
}
drain()
