/**
 * Traffic for the benchmarks: a TCP target that swallows or echoes on 127.0.0.1, an upload that keeps a connection full, an echo at fixed times,
 * and the time from connect to the first byte back. Nothing is checked here but byte counts: tests do that.
 */
import { randomBytes } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { sleep } from './wait.ts'

/** Bytes of a write: random, so that a tunnel that compresses has no advantage; more than its compressor looks back. */
const CHUNK_BYTES = 256 * 1024
/** Bytes of a message of the echo. */
export const ECHO_BYTES = 64
/** How long echoes are waited for after the last message. */
const STRAGGLER_MS = 10_000
/** An answer to the first byte takes no longer, or something is broken. */
const OPEN_TIMEOUT_MS = 30_000

const chunk = randomBytes(CHUNK_BYTES)

/** Swallows what comes when the first byte is `S`, sends as much as the connection takes when it is `D`, and else echoes everything. */
export interface Target {
  readonly port: number
  /** Bytes swallowed so far. */
  readonly swallowed: number
  close(): Promise<void>
}

const SWALLOW = 0x53
const SEND = 0x44

/** Opens a target. */
export async function openTarget(): Promise<Target> {
  let swallowed = 0
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    let order: number | undefined
    const fill = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    }
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (bytes: Buffer) => {
      const first = order === undefined
      order ??= bytes[0] ?? 0
      if (order === SWALLOW) swallowed += bytes.length
      else if (order !== SEND) socket.write(bytes)
      else if (first) {
        socket.on('drain', fill)
        fill()
      }
    })
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, done)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    get swallowed() {
      return swallowed
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((done) => server.close(done))
    },
  }
}

/** Keeps a connection to a port full until stop(). */
export function pour(port: number, host = '127.0.0.1'): { readonly failed: () => string | undefined; stop(): void } {
  let failure: string | undefined
  let stopped = false
  const socket = connect({ port, host, noDelay: true })
  const fill = (): void => {
    while (!stopped && socket.write(chunk));
  }
  socket.on('drain', fill)
  socket.on('error', (error) => {
    if (!stopped) failure = `upload: ${error.message}`
  })
  socket.on('close', () => {
    if (!stopped) failure ??= 'the upload was closed'
  })
  const first = Buffer.from(chunk)
  first[0] = SWALLOW
  socket.write(first)
  fill()
  return {
    failed: () => failure,
    stop() {
      stopped = true
      socket.destroy()
    },
  }
}

/** Takes what a target sends until stop(). */
export function download(
  port: number,
  host = '127.0.0.1',
): { received(): number; failed(): string | undefined; stop(): void } {
  let failure: string | undefined
  let stopped = false
  let received = 0
  const socket = connect({ port, host, noDelay: true })
  socket.on('data', (bytes: Buffer) => {
    received += bytes.length
  })
  socket.on('error', (error) => {
    if (!stopped) failure = `download: ${error.message}`
  })
  socket.on('close', () => {
    if (!stopped) failure ??= 'the download was closed'
  })
  socket.write(Uint8Array.of(SEND))
  return {
    received: () => received,
    failed: () => failure,
    stop() {
      stopped = true
      socket.destroy()
    },
  }
}

/** Round trips in ms; `lost`: messages without an answer in time. */
export interface EchoResult {
  readonly times: readonly number[]
  readonly lost: number
}

/** Sends messages every `everyMs` whether or not the last one is back. Echoes of the first `warmUp` messages do not count. */
export async function echo(port: number, everyMs: number, messages: number, warmUp = 0): Promise<EchoResult> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.on('error', () => undefined)
  const sentAt: number[] = []
  const times: number[] = []
  let received = 0
  let answered: () => void = () => undefined
  socket.on('data', (bytes: Buffer) => {
    received += bytes.length
    while (times.length < Math.floor(received / ECHO_BYTES)) {
      times.push(performance.now() - (sentAt[times.length] ?? 0))
    }
    if (times.length === sentAt.length) answered()
  })
  const message = Buffer.alloc(ECHO_BYTES, 0x45)
  const began = performance.now()
  for (let i = 0; i < messages + warmUp && !socket.destroyed; i++) {
    await sleep(Math.max(0, began + i * everyMs - performance.now()))
    sentAt.push(performance.now())
    socket.write(message)
  }
  const all = new Promise<void>((done) => {
    answered = done
    if (times.length === sentAt.length) done()
  })
  let timer: NodeJS.Timeout | undefined
  await Promise.race([all, new Promise((done) => (timer = setTimeout(done, STRAGGLER_MS)))])
  clearTimeout(timer)
  socket.destroy()
  return { times: times.slice(warmUp), lost: messages + warmUp - times.length }
}

/** Milliseconds from connect() to the first byte back, the request being sent at once. NaN without an answer in time. */
export async function openAndFirstByte(port: number): Promise<number> {
  const began = performance.now()
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.write(Buffer.alloc(ECHO_BYTES, 0x45))
  const time = await new Promise<number>((resolve) => {
    const timer = setTimeout(() => resolve(Number.NaN), OPEN_TIMEOUT_MS)
    const end = (value: number) => () => {
      clearTimeout(timer)
      resolve(value)
    }
    socket.once('data', () => end(performance.now() - began)())
    socket.once('error', end(Number.NaN)).once('close', end(Number.NaN))
  })
  socket.destroy()
  return time
}

/** Connections that each got an echo of 64 bytes, and stay open. */
export interface Crowd {
  /** ms from the connect of each that was answered, in order of the answers. */
  readonly times: readonly number[]
  /** ms until the last answer. */
  readonly ms: number
  close(): void
}

/** Opens `count` connections, at most `underWay` of them without an answer at a time, and waits for all, or for `limitMs`. */
export async function openCrowd(port: number, count: number, underWay: number, limitMs: number): Promise<Crowd> {
  const sockets: Socket[] = []
  const times: number[] = []
  const message = Buffer.alloc(ECHO_BYTES, 0x45)
  const began = performance.now()
  let last = began
  let ended = 0
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, limitMs)
    const next = (): void => {
      if (ended === count) {
        clearTimeout(timer)
        resolve()
      }
      while (sockets.length < count && sockets.length - ended < underWay) open()
    }
    const open = (): void => {
      const at = performance.now()
      const socket = connect({ port, host: '127.0.0.1', noDelay: true })
      sockets.push(socket)
      let received = 0
      const end = (): void => {
        if (received < 0) return
        received = -1
        ended++
        next()
      }
      socket.on('data', (bytes: Buffer) => {
        if (received < 0) return
        received += bytes.length
        if (received < ECHO_BYTES) return
        last = performance.now()
        times.push(last - at)
        end()
      })
      socket.on('error', end)
      socket.on('close', end)
      socket.write(message)
    }
    next()
  })
  return {
    times,
    ms: last - began,
    close() {
      for (const socket of sockets) socket.destroy()
    },
  }
}
