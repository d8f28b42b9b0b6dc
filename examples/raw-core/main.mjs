// node examples/raw-core/main.mjs: a client and a server exchange a sealed message over UDP, with nothing but core.wasm,
// a cipher and sockets. Written from docs/abi.md; a host for TCP with all methods is testkit/raw-host.mjs.

import { randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import sodium from 'libsodium-wrappers'

const abi = JSON.parse(readFileSync(new URL('../../assembly/abi.json', import.meta.url), 'utf8'))
const EVENTS = abi.enums.EventType.values
const module = new WebAssembly.Module(readFileSync(new URL('../../dist/core.wasm', import.meta.url)))
await sodium.ready
const key = randomBytes(32)
const AD = Buffer.from('kcptun-libev\0')
const [TAG, NONCE] = [16, 24]
/** Ticks of 1/8 ms. */
const now = () => (performance.now() * 8) >>> 0

class Endpoint {
  /** @param {'CLIENT' | 'SERVER'} mode @param {(text: string, endpoint: Endpoint) => void} onText */
  constructor(mode, onText) {
    this.onText = onText
    this.stream = 0
    /** @type {any} */
    this.core = new WebAssembly.Instance(module).exports
    this.udp = createSocket('udp4', (sealed, from) => this.receive(sealed, from.port))
    randomBytes(4096).copy(this.bytes(this.core.entropy_ptr(), 4096))
    this.core.entropy_filled(4096)
    /** @type {Record<string, number>} */
    const fields = { mode: abi.enums.Mode.values[mode].value, tagBytes: TAG, nonceBytes: NONCE, nonceStrategy: 1 }
    Object.assign(fields, { kcpMtu: 1400 - 28 - TAG - NONCE, replayCapacity: 1 << 14 })
    const block = this.words(this.core.config_ptr(), Object.keys(abi.config).length)
    for (const [i, [name, field]] of Object.entries(abi.config).entries())
      block[i] = fields[name] ?? (field.unset ? abi.constants.UNSET.value : field.default)
    if (this.core.configure(now()) !== 0) throw new Error('configure failed')
  }

  // views are made anew for each use: a call may have grown the memory
  bytes = (/** @type {number} */ at, /** @type {number} */ length) => Buffer.from(this.core.memory.buffer, at, length)
  words = (/** @type {number} */ at, /** @type {number} */ length) =>
    new Uint32Array(this.core.memory.buffer, at, length)

  /** Writes the address record of 127.0.0.1. @param {number} at @param {number} port */
  writeAddress = (at, port) => this.words(at, 6).set([4 | (port << 16), 0, 0x0100007f, 0, 0, 0])

  /** @param {Buffer} sealed @param {number} port */
  receive(sealed, port) {
    const slot = this.words(this.core.rx_ptr(), 4)
    const end = sealed.length - NONCE
    slot[2] = sealed.length
    slot[3] = 0
    try {
      const nonce = sealed.subarray(end)
      const text = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, sealed.subarray(0, end), AD, nonce, key)
      this.bytes(slot[0] ?? 0, sealed.length).set(text)
      this.bytes((slot[0] ?? 0) + end, NONCE).set(nonce)
      slot[3] = 1
    } catch {
      // not authentic: the engine counts it
    }
    this.writeAddress(this.core.rx_ptr() + 16, port)
    this.core.handle_datagrams(1, now())
    this.drain()
  }

  /** Call it after each call that may cause output: sends, handles events, arms the timer. */
  drain() {
    for (let events = 1; events > 0; ) {
      for (let n = this.core.poll_transmit(64, now()); n > 0; n = this.core.poll_transmit(64, now()))
        for (let i = 0; i < n; i++) this.send(...this.words(this.core.tx_ptr() + 32 * i, 5))
      events = this.core.poll_events()
      const list = this.words(this.core.events_ptr(), 4 * events).slice()
      for (let i = 0; i < events; i++) this.onEvent(list[4 * i] ?? 0, list[4 * i + 1] ?? 0)
    }
    clearTimeout(this.timer)
    const onTimer = () => {
      this.core.handle_timeout(now())
      this.drain()
    }
    this.timer = setTimeout(onTimer, this.core.next_timeout(now()) / 8)
  }

  send(at = 0, length = 0, _ = 0, nonceAt = 0, address = 0) {
    const nonce = this.bytes(nonceAt, NONCE)
    const text = this.bytes(at, length)
    const sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(text, AD, null, nonce, key)
    const port = (this.words(address, 1)[0] ?? 0) >>> 16
    this.udp.send(Buffer.concat([sealed, nonce]), port, '127.0.0.1')
  }

  /** @param {number} type @param {number} handle */
  onEvent(type, handle) {
    if (type === EVENTS.DIAL.value) this.core.stream_connected(handle, 1, now())
    if (type !== EVENTS.READABLE.value || this.core.stream_peek(handle) === 0) return
    const [at = 0, length = 0] = this.words(this.core.spans_ptr(), 2)
    const text = this.bytes(at, length).toString()
    this.core.stream_consume(handle, length, now())
    this.stream = handle
    this.onText(text, this)
  }

  /** @param {string} text that fits into one segment */
  write(text) {
    this.core.stream_reserve(this.stream, text.length)
    this.bytes(this.words(this.core.spans_ptr(), 1)[0] ?? 0, text.length).write(text)
    this.core.stream_commit(this.stream, text.length, now())
  }
}

const server = new Endpoint('SERVER', (text) => server.write(text.toUpperCase()))
const client = new Endpoint('CLIENT', (text) => {
  process.stdout.write(`the server answers: ${text}\n`)
  process.exit()
})
server.udp.bind(0, '127.0.0.1', () => {
  client.writeAddress(client.core.peer_ptr(), server.udp.address().port)
  client.core.set_peer(now())
  client.stream = client.core.stream_open(now())
  client.write('hello')
  client.drain()
  server.drain()
})
