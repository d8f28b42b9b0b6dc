/**
 * TCP ends for tests: targets (echo, sink, source, slow reader) behind a tunnel and applications in front of it, seeded
 * data with SHA-256 digests, and exact control over FIN and RST.
 */
import { createCipheriv, createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { connect, createServer } from 'node:net'

/** Bytes per write of seeded data. */
const CHUNK_BYTES = 64 * 1024

/** A write still pending this long after the end of the stream counts as accepted: the end was a FIN. */
const FIN_DOUBT_MS = 1000

/** Endless seeded pseudo-random bytes: an AES-CTR key stream. */
export class Pattern {
  readonly #cipher
  readonly #zeros = Buffer.alloc(CHUNK_BYTES)

  constructor(seed: number) {
    const key = Buffer.alloc(16)
    key.writeUInt32LE(seed >>> 0)
    this.#cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  }

  /** The next `size` bytes (at most 64 KiB at a time). */
  next(size: number): Buffer {
    return this.#cipher.update(this.#zeros.subarray(0, Math.min(size, CHUNK_BYTES)))
  }
}

/** The first `size` bytes of a pattern. */
export function patternBytes(size: number, seed: number): Buffer {
  const pattern = new Pattern(seed)
  const parts: Buffer[] = []
  for (let left = size; left > 0; ) {
    const part = pattern.next(left)
    parts.push(part)
    left -= part.length
  }
  return Buffer.concat(parts)
}

/** SHA-256 of the first `size` bytes of a pattern, in hex. */
export function patternDigest(size: number, seed: number): string {
  const hash = createHash('sha256')
  const pattern = new Pattern(seed)
  for (let left = size; left > 0; ) {
    const part = pattern.next(left)
    hash.update(part)
    left -= part.length
  }
  return hash.digest('hex')
}

export const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** How a TCP connection's incoming direction ended. */
export interface Ending {
  /** fin: a clean end of stream. reset: RST or another error. closed: this end stopped reading. */
  readonly kind: 'fin' | 'reset' | 'closed'
  readonly bytes: number
  readonly sha256: string
  readonly code: string | undefined
}

/** One end of a TCP connection. Counts and hashes every byte it reads, from the start. */
export class TcpEnd {
  readonly socket: Socket
  /** How the incoming direction ended; never rejects. */
  readonly ending: Promise<Ending>
  /** Bytes read so far. */
  received = 0
  /** True once an ending is known. */
  ended = false
  #kept: Buffer[] = []
  #keptBytes = 0

  /** `rate`: bytes read per second (default: unlimited). `keep`: bytes kept for text() and bytes(). */
  constructor(socket: Socket, options: { readonly rate?: number; readonly keep?: number } = {}) {
    this.socket = socket
    const keep = options.keep ?? 64 * 1024
    const hash = createHash('sha256')
    this.ending = new Promise((resolve) => {
      const finish = (kind: Ending['kind'], code?: string): void => {
        if (this.ended) return
        this.ended = true
        resolve({ kind, bytes: this.received, sha256: hash.digest('hex'), code })
      }
      socket.on('error', (error: NodeJS.ErrnoException) => finish('reset', error.code))
      // libuv reports an RST right behind data as a FIN; an empty write fails after an RST and sends nothing after a
      // FIN
      socket.on('end', () => {
        if (socket.writableEnded || socket.destroyed) {
          finish('fin')
          return
        }
        const late = setTimeout(() => finish('fin'), FIN_DOUBT_MS)
        socket.write('', (error) => {
          clearTimeout(late)
          if (error) finish('reset', (error as NodeJS.ErrnoException).code)
          else finish('fin')
        })
      })
      socket.on('close', () => finish('closed'))
      socket.on('data', (chunk: Buffer) => {
        hash.update(chunk)
        this.received += chunk.length
        if (this.#keptBytes < keep) {
          this.#kept.push(chunk)
          this.#keptBytes += chunk.length
        }
        if (options.rate !== undefined) {
          socket.pause()
          setTimeout(() => socket.resume(), (chunk.length / options.rate) * 1000)
        }
      })
    })
  }

  /** The first bytes read, up to `keep`. */
  bytes(): Buffer {
    return Buffer.concat(this.#kept)
  }

  text(): string {
    return this.bytes().toString('latin1')
  }

  /** Writes bytes; resolves when the kernel or the stream buffer accepted them. */
  send(bytes: Uint8Array | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.write(bytes, (error) => (error ? reject(error) : resolve()))
    })
  }

  /**
   * Sends `size` bytes of a pattern; stops early when the connection breaks.
   * @returns bytes written
   */
  async pour(size: number, seed: number): Promise<number> {
    const pattern = new Pattern(seed)
    let sent = 0
    try {
      while (sent < size) {
        const part = pattern.next(size - sent)
        await this.send(part)
        sent += part.length
      }
    } catch {
      // reported by the ending
    }
    return sent
  }

  /** Sends FIN; reading continues. */
  finish(): void {
    this.socket.end()
  }

  /** RST. */
  reset(): void {
    this.socket.resetAndDestroy()
  }

  destroy(): void {
    this.socket.destroy()
  }
}

export interface Target {
  readonly host: string
  readonly port: number
  /** `host:port` as configurations write it. */
  readonly address: string
  /** Connections so far, in order of arrival. */
  readonly connections: readonly TcpEnd[]
  /** Connection number `index`; waits until it is accepted. */
  connection(index: number): Promise<TcpEnd>
  /** Stops listening and destroys open connections. */
  close(): Promise<void>
}

export interface TargetOptions {
  readonly host?: string
  readonly port?: number
  /** Bytes per second read from each connection. */
  readonly rate?: number
  readonly keep?: number
}

/** Listens and passes each accepted connection to `serve`. */
export async function listen(serve: (end: TcpEnd) => void, options: TargetOptions = {}): Promise<Target> {
  const host = options.host ?? '127.0.0.1'
  const connections: TcpEnd[] = []
  const waiting: { index: number; resolve: (end: TcpEnd) => void }[] = []
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const end = new TcpEnd(socket, options)
    const index = connections.push(end) - 1
    for (const waiter of waiting) if (waiter.index === index) waiter.resolve(end)
    serve(end)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port: options.port ?? 0, host, backlog: 1024 }, () => resolve())
  })
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new Error('no TCP address')
  return {
    host,
    port: bound.port,
    address: formatAddress(host, bound.port),
    connections,
    connection: (index) => {
      const end = connections[index]
      return end === undefined ? new Promise((resolve) => waiting.push({ index, resolve })) : Promise.resolve(end)
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const end of connections) end.destroy()
      }),
  }
}

/** Echoes everything and sends FIN when the peer does. */
export const echoTarget = (options?: TargetOptions): Promise<Target> =>
  listen(({ socket }) => {
    // not pipe(): TcpEnd reads the same stream
    socket.on('data', (chunk: Buffer) => {
      if (!socket.write(chunk)) {
        socket.pause()
        socket.once('drain', () => socket.resume())
      }
    })
    socket.on('end', () => socket.end())
  }, options)

/** Reads only; sends FIN when the peer does. */
export const sinkTarget = (options?: TargetOptions): Promise<Target> =>
  listen(({ socket }) => socket.on('end', () => socket.end()), options)

/** Sends `size` bytes of a pattern on each connection, then FIN. */
export const sourceTarget = (size: number, seed: number, options?: TargetOptions): Promise<Target> =>
  listen((end) => void end.pour(size, seed).then(() => end.finish()), options)

/** `host:port` with brackets around IPv6. */
export const formatAddress = (host: string, port: number): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

/** Opens a TCP connection (half-open allowed, no delay). Rejects when refused. */
export function dial(
  host: string,
  port: number,
  options: { readonly rate?: number; readonly keep?: number } = {},
): Promise<TcpEnd> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true })
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(new TcpEnd(socket, options))
    })
  })
}
