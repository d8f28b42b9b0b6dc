/** The target of a soak: the first bytes of a connection say how it is served. */
import { createServer, type Socket } from 'node:net'
import { Content } from './content.ts'

/** How the target serves a connection. */
export const Service = {
  /** Sends everything back. */
  ECHO: 1,
  /** Sends `size` bytes after the end of the request. */
  ANSWER: 2,
  /** Sends `size` bytes at once. */
  SOURCE: 3,
  /** Sends a few bytes, and then a reset. */
  RESET: 4,
} as const
export type ServiceKind = (typeof Service)[keyof typeof Service]

const HEADER_BYTES = 9
const BYTES_BEFORE_RESET = 1000

/** First bytes of a connection. */
export function header(service: ServiceKind, seed: number, size: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES)
  bytes[0] = service
  bytes.writeUInt32LE(seed >>> 0, 1)
  bytes.writeUInt32LE(size, 5)
  return bytes
}

/** Sends the first `size` bytes of a content as fast as they are taken, and then `then`. */
export function pour(socket: Socket, seed: number, size: number, then: () => void): void {
  const content = new Content(seed)
  const fill = (): void => {
    while (!socket.destroyed && content.length < size) {
      if (!socket.write(content.next(size - content.length))) {
        socket.once('drain', fill)
        return
      }
    }
    then()
  }
  fill()
}

function serve(socket: Socket): void {
  let head: Buffer = Buffer.alloc(0)
  socket.on('error', () => {})
  const onHead = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk])
    if (head.length < HEADER_BYTES) return
    socket.off('data', onHead)
    socket.off('end', onEarlyEnd)
    const [service, seed, size] = [head[0], head.readUInt32LE(1), head.readUInt32LE(5)]
    if (service === Service.ECHO) {
      socket.write(head.subarray(HEADER_BYTES))
      socket.pipe(socket)
      return
    }
    socket.resume()
    if (service === Service.ANSWER) socket.once('end', () => pour(socket, seed, size, () => socket.end()))
    else if (service === Service.SOURCE) pour(socket, seed, size, () => socket.end())
    else pour(socket, seed, BYTES_BEFORE_RESET, () => socket.resetAndDestroy())
  }
  const onEarlyEnd = (): void => void socket.end()
  socket.on('data', onHead)
  socket.on('end', onEarlyEnd)
}

export interface SoakTarget {
  readonly address: string
  /** Connections that are open. */
  readonly open: number
  close(): Promise<void>
}

export async function openTarget(): Promise<SoakTarget> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    serve(socket)
  })
  await new Promise<void>((done) => server.listen({ port: 0, host: '127.0.0.1', backlog: 1024 }, done))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    address: `127.0.0.1:${address.port}`,
    get open() {
      return sockets.size
    },
    close: () =>
      new Promise((done) => {
        server.close(() => done())
        for (const socket of sockets) socket.destroy()
      }),
  }
}
