/** A client and a server of the library in one process, and what tests read from streams. */
import { createClient, createServer, type DuplexStream, generatePsk, type Stats } from 'kcptun-wasm'
import * as assert from 'uvu/assert'

export type Client = Awaited<ReturnType<typeof createClient>>
export type Server = Awaited<ReturnType<typeof createServer>>
type ClientOptions = Parameters<typeof createClient>[0]
type ServerOptions = Parameters<typeof createServer>[0]

export const psk = generatePsk()

/** No test waits longer for a stream to open. */
export const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(20_000) })

interface PairOptions {
  readonly client?: Omit<ClientOptions, 'server'> & Partial<Pick<ClientOptions, 'server'>>
  readonly server?: ServerOptions
}

/** Runs `use` with a client of a server that serves streams by `onStream`, and closes both. */
export async function withPair(
  onStream: (stream: DuplexStream) => unknown,
  use: (client: Client, server: Server) => Promise<void>,
  options: PairOptions = {},
): Promise<void> {
  const server = await createServer({ bind: '127.0.0.1:0', psk, ...options.server }, onStream)
  const client = await createClient({ server: server.address ?? '', psk, ...options.client })
  try {
    await use(client, server)
  } finally {
    await Promise.all([client.close(), server.close()])
  }
}

/** All bytes up to the end. Rejects if there is none. An async iterator would destroy the stream at its end. */
export function bytesOf(stream: DuplexStream): Promise<Buffer> {
  const parts: Uint8Array[] = []
  return new Promise((resolve, reject) => {
    stream.on('data', (part) => parts.push(part))
    stream.on('end', () => resolve(Buffer.concat(parts)))
    stream.on('error', reject)
    stream.on('close', () => reject(new Error('closed without an end')))
  })
}

export const textOf = async (stream: DuplexStream): Promise<string> => (await bytesOf(stream)).toString()

/** What a promise rejects with. */
export const errorOf = (promise: Promise<unknown>): Promise<Error & { code?: string }> =>
  promise.then(
    () => Promise.reject(new Error('nothing was rejected')),
    (error) => error,
  )

// biome-ignore-start lint/suspicious/noExplicitAny: of any event
/** The first value of an event. */
export const eventOf = (
  emitter: { once(event: any, listener: (value: any) => void): unknown },
  name: string,
): Promise<any> => new Promise((resolve) => emitter.once(name, resolve))
// biome-ignore-end lint/suspicious/noExplicitAny: of any event

/** Adds a test that runs at once, beside others of its file: most of them wait. */
export function atOnce(test: (name: string, run: () => Promise<void>) => void, name: string, run: () => Promise<void>) {
  const running = run()
  running.catch(() => {})
  test(name, () => running)
}

/** Waits until `isTrue`, and fails after `seconds`. */
export async function until(what: string, isTrue: () => boolean, seconds = 20): Promise<void> {
  const end = Date.now() + seconds * 1000
  while (!isTrue()) {
    if (Date.now() > end) assert.unreachable(`not within ${seconds} s: ${what}`)
    await pause(5)
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Bytes that the engine holds. */
export const memoryUsed = ({ gauges }: Stats): number => gauges['memory_used'] ?? Number.NaN
