/** UDP applications and targets of a tunnel that forwards datagrams. */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { waitFor } from './wait.ts'

/** A UDP socket that keeps what arrives. */
export interface UdpEnd {
  readonly port: number
  readonly host: string
  readonly received: Buffer[]
  readonly senders: RemoteInfo[]
  /** When each arrived, by performance.now(). */
  readonly times: number[]
  send(data: Buffer, port: number, host?: string): void
  close(): void
}

async function bound(host: string, port: number): Promise<Socket> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
  const listening = once(socket, 'listening')
  socket.bind(port, host)
  await listening
  // that nobody listens there is a result of its own
  socket.on('error', () => {})
  socket.setRecvBufferSize(1 << 20)
  return socket
}

/** Opens an application. */
export async function openUdp(host = '127.0.0.1', port = 0): Promise<UdpEnd> {
  const socket = await bound(host, port)
  const received: Buffer[] = []
  const senders: RemoteInfo[] = []
  const times: number[] = []
  let isOpen = true
  socket.on('message', (data, from) => {
    received.push(Buffer.from(data))
    senders.push(from)
    times.push(performance.now())
  })
  return {
    host,
    port: socket.address().port,
    received,
    senders,
    times,
    send: (data, to, at = host) => isOpen && socket.send(data, to, at),
    close() {
      if (isOpen) socket.close()
      isOpen = false
    },
  }
}

/** Opens a target that answers each datagram by `answer` of it. */
export async function openUdpTarget(
  answer: (data: Buffer) => Buffer | undefined = (data) => data,
  host = '127.0.0.1',
  port = 0,
): Promise<UdpEnd> {
  const target = await openUdp(host, port)
  let seen = 0
  const timer = setInterval(() => {
    for (; seen < target.received.length; seen++) {
      const data = target.received[seen]
      const from = target.senders[seen]
      const text = data && answer(data)
      if (text !== undefined && from !== undefined) target.send(text, from.port, from.address)
    }
  }, 1)
  return {
    ...target,
    close() {
      clearInterval(timer)
      target.close()
    },
  }
}

/** Sends a datagram and waits for its answer, asking again as an application does. */
export async function ask(app: UdpEnd, question: Buffer, port: number, host?: string): Promise<Buffer> {
  const before = app.received.length
  let asked = Number.NEGATIVE_INFINITY
  await waitFor('an answer by UDP', () => {
    if (app.received.length > before) return true
    if (performance.now() - asked > 3000) {
      asked = performance.now()
      app.send(question, port, host)
    }
    return false
  })
  return app.received[before] ?? Buffer.alloc(0)
}
