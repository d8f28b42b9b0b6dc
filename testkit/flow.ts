/**
 * Traffic for the benchmarks: a TCP target that discards or echoes, a continuous upload, an echo at fixed
 * times, and the time from connect to the first byte received. Only byte counts are checked.
 */
import { randomBytes } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { sleep } from './wait.ts'

/**
 * Bytes per write: random, and larger than the window of a compressor, so that tunnels with compression have no
 * advantage.
 */
const CHUNK_BYTES = 256 * 1024
/** Bytes of a message of the echo. */
export const ECHO_BYTES = 64
/** Time limit of echoes after the last message. */
const STRAGGLER_MS = 10_000
/** Time limit of the first byte. */
const OPEN_TIMEOUT_MS = 30_000

const chunk = randomBytes(CHUNK_BYTES)

/** Discards received bytes if the first byte is `S`, sends continuously if it is `D`, and echoes otherwise. */
export interface Target {
  readonly port: number
  /** Bytes discarded so far. */
  readonly discarded: number
  close(): Promise<void>
}

const DISCARD = 0x53
const SEND = 0x44

/** Opens a target. */
export async function openTarget(host = '127.0.0.1'): Promise<Target> {
  let discarded = 0
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
      if (order === DISCARD) discarded += bytes.length
      else if (order !== SEND) socket.write(bytes)
      else if (first) {
        socket.on('drain', fill)
        fill()
      }
    })
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen({ port: 0, host, backlog: 4096 }, done)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    get discarded() {
      return discarded
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((done) => server.close(done))
    },
  }
}

/** Uploads to a port continuously until stop(). */
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
  first[0] = DISCARD
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

/** Downloads from a target until stop(). */
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

/** Round trips in ms; `lost`: messages without an echo in time. */
export interface EchoResult {
  readonly times: readonly number[]
  readonly lost: number
}

/** Sends a message every `everyMs` without waiting for echoes. The first `warmUp` messages do not count. */
export async function echo(
  port: number,
  everyMs: number,
  messages: number,
  warmUp = 0,
  host = '127.0.0.1',
): Promise<EchoResult> {
  const socket = connect({ port, host, noDelay: true })
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

/** Milliseconds from connect(), with the request sent at once, to the first byte received; NaN after a timeout. */
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

/** Connections that each received an echo of 64 bytes and stay open. */
export interface Crowd {
  /** ms from connect to echo of each connection, in order of the echoes. */
  readonly times: readonly number[]
  /** ms until the last echo. */
  readonly ms: number
  close(): void
}

/**
 * Opens `count` connections, at most `underWay` of them without an echo at a time, and waits for all, or for `limitMs`.
 */
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
