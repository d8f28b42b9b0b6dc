// node testkit/raw-host.mjs CONFIG: a complete client or server on dist/core.wasm, written from docs/abi.md.
//
// It implements only what a host requires: no name resolution, reload, statistics, rendezvous mode or obfuscation.
// CONFIG is a JSON file with keys of kcptun-libev: `listen` and `kcp_connect` for a client, `kcp_bind` and `connect`
// for a server; `method` with `psk` or `password`. Addresses are IPv4 addresses with a port.

import { createCipheriv, createDecipheriv } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import sodium from 'libsodium-wrappers-sumo'

const abi = JSON.parse(readFileSync(new URL('../assembly/abi.json', import.meta.url), 'utf8'))
const { EventType, ErrorCode, Mode, NonceStrategy } = abi.enums
const EVENTS = EventType.values
const RANDOM = NonceStrategy.values.RANDOM.value
const COUNTER = NonceStrategy.values.COUNTER.value
const config = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8'))
const isClient = config.listen !== undefined
await sodium.ready

// Ciphers (docs/abi.md, "Ciphers")

const AD = Buffer.from('kcptun-libev\0')
const TAG_BYTES = 16

/**
 * `seal` returns ciphertext and tag; `open` takes both and throws if they are not authentic.
 * @typedef {(bytes: Uint8Array, nonce: Uint8Array, key: Uint8Array) => Uint8Array} Cipher
 * @typedef {{ nonceBytes: number, strategy: number, seal: Cipher, open: Cipher }} Method
 * @type {Record<string, Method>}
 */
const METHODS = {
  xchacha20poly1305_ietf: {
    nonceBytes: 24,
    strategy: RANDOM,
    seal: (text, nonce, key) => sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(text, AD, null, nonce, key),
    open: (sealed, nonce, key) => sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, sealed, AD, nonce, key),
  },
  chacha20poly1305_ietf: {
    nonceBytes: 12,
    strategy: COUNTER,
    seal: (text, nonce, key) => sodium.crypto_aead_chacha20poly1305_ietf_encrypt(text, AD, null, nonce, key),
    open: (sealed, nonce, key) => sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, AD, nonce, key),
  },
  xsalsa20poly1305: {
    nonceBytes: 24,
    strategy: RANDOM,
    // detached: on the wire the tag follows the ciphertext
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
    strategy: COUNTER,
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

/** The configured key, 32 bytes. */
function readKey() {
  const { psk, password } = config
  if ((psk === undefined) === (password === undefined)) throw new Error('a method needs either psk or password')
  if (psk !== undefined) return sodium.from_base64(psk, sodium.base64_variants.ORIGINAL)
  const salt = sodium.crypto_generichash(16, 'kcptun-libev', null)
  return sodium.crypto_pwhash(32, password, salt, 2, 8192, sodium.crypto_pwhash_ALG_ARGON2ID13)
}

const method = METHODS[config.method]
if (config.method !== undefined && method === undefined) throw new Error(`unknown method ${config.method}`)
const key = method === undefined ? new Uint8Array(32) : readKey()
if (key.length !== 32) throw new Error('psk must be 32 bytes in Base64')

// The engine. Views are created for each use: a call may have grown its memory

const { instance } = await WebAssembly.instantiate(readFileSync(new URL('../dist/core.wasm', import.meta.url)))
/** @type {any} */
const core = instance.exports
if (core.abi_version() !== abi.version) throw new Error(`core.wasm has ABI version ${core.abi_version()}`)
const bytes = (/** @type {number} */ at, /** @type {number} */ length) =>
  new Uint8Array(core.memory.buffer, at >>> 0, length)
const words = (/** @type {number} */ at, /** @type {number} */ length) =>
  new Uint32Array(core.memory.buffer, at >>> 0, length)
/** Ticks of 1/8 ms. */
const now = () => (performance.now() * 8) >>> 0

function refill() {
  crypto.getRandomValues(bytes(core.entropy_ptr(), core.entropy_capacity()))
  core.entropy_filled(core.entropy_capacity())
}

/**
 * Writes the address record of an IPv4 address.
 * @param {number} at
 * @param {{ address: string, port: number }} address
 */
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
 * TCP connections by handle: the socket, its bytes that did not fit into the engine, and whether its FIN arrived.
 * @typedef {{ tcp: import('node:net').Socket, waiting: Buffer, isEnded: boolean }} Connection
 * @type {Map<number, Connection>}
 */
const connections = new Map()
const NOTHING = Buffer.alloc(0)
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

/** Seals and sends all pending datagrams. */
function transmit() {
  for (;;) {
    const count = core.poll_transmit(core.tx_slots(), now())
    if (count === ErrorCode.values.ENTROPY.value) {
      refill()
      continue
    }
    if (count <= 0) return
    for (let i = 0; i < count; i++) {
      const [source = 0, length = 0, , nonceAt = 0, address = 0] = words(core.tx_ptr() + 32 * i, 6)
      // copies: the socket sends after this function has returned
      let datagram = bytes(source, length).slice()
      if (method !== undefined) {
        const nonce = bytes(nonceAt, method.nonceBytes)
        datagram = Buffer.concat([method.seal(datagram, nonce, key), nonce])
      }
      const { address: host, port } = readAddress(address)
      // a failed send counts as loss and is retransmitted
      udp.send(datagram, port, host, () => {})
    }
  }
}

/**
 * Opens a datagram into the first receive descriptor and passes it to the engine.
 * @param {Buffer} sealed
 * @param {import('node:dgram').RemoteInfo} from
 */
function receive(sealed, from) {
  const slot = words(core.rx_ptr(), 4)
  let text = sealed
  let isOpened = sealed.length <= abi.constants.MAX_DATAGRAM_BYTES.value
  if (isOpened && method !== undefined) {
    const end = Math.max(0, sealed.length - method.nonceBytes)
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

/** Call after every engine call that may cause output: sends, handles events, arms the timer. */
function drain() {
  for (;;) {
    transmit()
    const count = core.poll_events()
    if (count === 0) break
    // copied: handlers call the engine, which may grow its memory
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

/**
 * Engine to TCP. Bytes that the socket does not take stay in the engine, whose window limits the peer.
 * @param {number} handle
 * @param {Connection} connection
 */
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

/**
 * TCP to engine. The socket pauses while the engine has no room.
 * @param {number} handle
 * @param {Connection} connection
 * @param {Buffer} data
 */
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

/**
 * Connects a TCP socket to a session.
 * @param {number} handle
 * @param {import('node:net').Socket} tcp
 */
function attach(handle, tcp) {
  /** @type {Connection} */
  const connection = { tcp, waiting: NOTHING, isEnded: false }
  connections.set(handle, connection)
  const act = (/** @type {() => void} */ action) => {
    if (connections.get(handle) !== connection) return
    action()
    drain()
  }
  // a paused socket may still deliver data that it has already read, and its end
  tcp.on('data', (data) => act(() => write(handle, connection, Buffer.concat([connection.waiting, data]))))
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

/**
 * Server: connects a session to the target.
 * @param {number} handle
 */
function dial(handle) {
  const { address, port } = parse(config.connect)
  const tcp = connect({ host: address, port, allowHalfOpen: true })
  const onRefused = () => {
    core.stream_connected(handle, 0, now())
    drain()
  }
  tcp.once('error', onRefused)
  tcp.once('connect', () => {
    tcp.off('error', onRefused)
    if (core.stream_connected(handle, 1, now()) === 0) attach(handle, tcp)
    // the session ended meanwhile
    else tcp.destroy()
    drain()
  })
}

// Configuration and start

refill()
/** @type {Record<string, number>} */
const fields = {
  mode: (isClient ? Mode.values.CLIENT : Mode.values.SERVER).value,
  tagBytes: method === undefined ? 0 : TAG_BYTES,
  nonceBytes: method?.nonceBytes ?? 0,
  nonceStrategy: method?.strategy ?? 0,
  // an IP packet of 1400 bytes, minus IPv4 and UDP headers, tag and nonce
  kcpMtu: 1400 - 28 - (method === undefined ? 0 : TAG_BYTES + method.nonceBytes),
  replayCapacity: method === undefined ? 0 : isClient ? 1 << 14 : 1 << 20,
}
const block = words(core.config_ptr(), Object.keys(abi.config).length)
for (const [index, [name, field]] of Object.entries(abi.config).entries()) {
  block[index] = fields[name] ?? (field.unset ? abi.constants.UNSET.value : field.default)
}
const result = core.configure(now())
if (result !== 0) throw new Error(`configure: ${Object.keys(abi.config)[-100 - result] ?? result}`)
udp.on('message', receive)
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
