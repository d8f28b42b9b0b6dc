/**
 * What a runtime's own sockets cost: two processes that pass the bytes of one TCP connection over UDP, by node:net and
 * node:dgram, without any protocol. No tunnel on that runtime's sockets is faster.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { freePort } from '../testkit/process.ts'
import { listening } from './peers.ts'

const START_TIMEOUT_MS = 10_000

const CLIENT = `
const udp = dgram.createSocket('udp4')
udp.bind(0, host)
net.createServer((tcp) => {
  tcp.setNoDelay(true)
  tcp.on('data', (bytes) => udp.send(bytes, Number(b), host))
  tcp.on('error', () => {})
  udp.removeAllListeners('message').on('message', (bytes) => tcp.write(bytes))
}).listen(Number(a), host)`

const SERVER = `
const udp = dgram.createSocket('udp4')
const tcp = net.connect(Number(b), host)
tcp.setNoDelay(true)
let peer
udp.on('message', (bytes, from) => {
  peer = from
  tcp.write(bytes)
})
tcp.on('data', (bytes) => peer && udp.send(bytes, peer.port, peer.address))
udp.bind(Number(a), host)`

function run(command: string, body: string, a: number, b: number): ChildProcess {
  const script = `const net = require('node:net'), dgram = require('node:dgram'), host = '127.0.0.1', a = ${a}, b = ${b}\n${body}`
  return spawn(command, ['-e', script], { stdio: 'ignore' })
}

/** Starts both processes; @returns the port that leads to `target`, and what ends them. */
export async function startPlainHop(
  command: string,
  target: number,
): Promise<{ readonly port: number; close(): void }> {
  const [port, udpPort] = [await freePort(), await freePort()]
  const ends = [run(command, SERVER, udpPort, target), run(command, CLIENT, port, udpPort)]
  await listening(port, START_TIMEOUT_MS)
  return { port, close: () => ends.forEach((end) => void end.kill('SIGKILL')) }
}
