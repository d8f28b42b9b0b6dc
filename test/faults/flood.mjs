// Sends 100 000 datagrams a second, or what one process makes: node flood.mjs ADDRESS PORT [SPOOFED_ADDRESS SPOOFED_PORT]
//
// Random bytes, one size; with the spoofed source (IPv4, raw socket, root) as if the peer had sent them. Prints the
// datagrams sent so far, at intervals, until it is killed.

import { randomBytes } from 'node:crypto'
import { isIPv6 } from 'node:net'
import koffi from 'koffi'

const [address = '', port = '', source, sourcePort] = process.argv.slice(2)

/** Long enough to be sealed. */
const BYTES = 200
const BATCH = 64
const PER_MS = 100
const IP_BYTES = 20
const UDP_BYTES = 8
const [AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW, IPPROTO_RAW, IPPROTO_UDP] = [2, 10, 2, 3, 255, 17]
const [MSGHDR_BYTES, IOVEC_BYTES, SOCKADDR_BYTES] = [64, 16, 28]

const c = koffi.load(null)
const socket = c.func('int socket(int, int, int)')
const sendmmsg = c.func('int sendmmsg(int, uintptr_t, uint32_t, int)')
const isV6 = isIPv6(address)
const quad = (/** @type {string} */ text) => text.split('.').map(Number)

/** @returns {Uint8Array} what the socket is given */
function datagram() {
  if (source === undefined) return randomBytes(BYTES)
  const packet = new Uint8Array(IP_BYTES + UDP_BYTES + BYTES)
  const view = new DataView(packet.buffer)
  packet.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, IPPROTO_UDP, 0, 0, ...quad(source), ...quad(address)])
  view.setUint16(2, packet.length)
  view.setUint16(IP_BYTES, Number(sourcePort))
  view.setUint16(IP_BYTES + 2, Number(port))
  view.setUint16(IP_BYTES + 4, UDP_BYTES + BYTES)
  // checksum 0: none
  packet.set(randomBytes(BYTES), IP_BYTES + UDP_BYTES)
  return packet
}

const memory = new Uint8Array(BATCH * (MSGHDR_BYTES + IOVEC_BYTES + 2048) + SOCKADDR_BYTES)
const at = Number(koffi.address(memory.buffer))
const view = new DataView(memory.buffer)
const vectors = BATCH * MSGHDR_BYTES
const name = vectors + BATCH * IOVEC_BYTES
const data = name + 32
const pointer = (/** @type {number} */ offset, /** @type {number} */ to) =>
  view.setBigUint64(offset, BigInt(at + to), true)
view.setUint16(name, isV6 ? AF_INET6 : AF_INET, true)
view.setUint16(name + 2, source === undefined ? Number(port) : 0)
if (isV6) memory[name + 23] = 1
else memory.set(quad(address), name + 4)
if (isV6 && address !== '::1') throw new Error('of IPv6 only ::1 is supported')
for (let i = 0; i < BATCH; i++) {
  const bytes = datagram()
  memory.set(bytes, data + i * 1900)
  pointer(i * MSGHDR_BYTES, name)
  view.setUint32(i * MSGHDR_BYTES + 8, isV6 ? SOCKADDR_BYTES : 16, true)
  pointer(i * MSGHDR_BYTES + 16, vectors + i * IOVEC_BYTES)
  view.setUint32(i * MSGHDR_BYTES + 24, 1, true)
  pointer(vectors + i * IOVEC_BYTES, data + i * 1900)
  view.setUint32(vectors + i * IOVEC_BYTES + 8, bytes.length, true)
}

const fd =
  source === undefined ? socket(isV6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0) : socket(AF_INET, SOCK_RAW, IPPROTO_RAW)
if (fd < 0) throw new Error(`no socket: errno ${koffi.errno()}`)

let sent = 0
const began = performance.now()
setInterval(() => {
  // a process that did not run for a while does not make up for it
  const due = Math.min((performance.now() - began) * PER_MS - sent, 10 * PER_MS)
  for (let left = due; left >= BATCH; left -= BATCH) sent += Math.max(0, sendmmsg(fd, at, BATCH, 0))
}, 1)
setInterval(() => process.stdout.write(`${sent}\n`), 100)
