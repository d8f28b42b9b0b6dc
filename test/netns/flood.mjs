// Floods a server with unknown clients, in its own network namespace: node flood.mjs connect|syn ADDRESS PORT
//
// connect: opens TCP connections, sends nothing, and closes each after a while. syn (IPv4): sends SYNs from unused
// addresses and ports. Prints the number of clients so far at intervals, until it is killed.

import { connect } from 'node:net'
import koffi from 'koffi'

const [kind = '', address = '', portText = ''] = process.argv.slice(2)
const port = Number(portText)

/** Clients per round, and the pause between rounds, ms. */
const ROUND = 40
const PAUSE_MS = 10
/** Connections open at a time. */
const OPEN_MAX = 600

let count = 0

/** @type {import('node:net').Socket[]} */
const open = []
function connectOnce() {
  const socket = connect({ host: address, port })
  socket.on('error', () => {})
  open.push(socket)
  if (open.length > OPEN_MAX) open.shift()?.destroy()
}

/** @param {Uint8Array} bytes */
function sum16(bytes) {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

const quad = (/** @type {string} */ text) => text.split('.').map(Number)

/** @returns {(source: readonly number[], sourcePort: number) => void} */
function synSender() {
  const c = koffi.load('libc.so.6')
  const socket = c.func('int socket(int, int, int)')
  const sendto = c.func('intptr_t sendto(int, const void *, size_t, int, const void *, uint32_t)')
  const AF_INET = 2
  const fd = socket(AF_INET, 3, 255)
  if (fd < 0) throw new Error('no raw socket')
  const receiver = new Uint8Array([AF_INET, 0, 0, 0, ...quad(address), 0, 0, 0, 0, 0, 0, 0, 0])
  return (source, sourcePort) => {
    const packet = new Uint8Array(40)
    const view = new DataView(packet.buffer)
    packet.set([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, ...source, ...quad(address)])
    view.setUint16(20, sourcePort)
    view.setUint16(22, port)
    view.setUint32(24, Math.floor(Math.random() * 2 ** 32))
    packet.set([0x50, 0x02, 0xff, 0xff], 32)
    const pseudo = new Uint8Array([...source, ...quad(address), 0, 6, 0, 20, ...packet.subarray(20)])
    view.setUint16(36, ~sum16(pseudo) & 0xffff)
    sendto(fd, packet, packet.length, 0, receiver, receiver.length)
  }
}

const sendSyn = kind === 'syn' ? synSender() : undefined
let printed = 0
setInterval(() => {
  for (let i = 0; i < ROUND; i++) {
    count++
    if (sendSyn === undefined) connectOnce()
    else sendSyn([203, 0, 113, 100 + (count % 100)], 1024 + (Math.floor(count / 100) % 60000))
  }
  if (count - printed >= 200) {
    printed = count
    process.stdout.write(`${count}\n`)
  }
}, PAUSE_MS)
