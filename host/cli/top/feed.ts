/**
 * Where `top` has its figures from: the stream `/events`, which also has the last minutes and the state of the link.
 * Where that is not to be had, because the program is an older one or has too many viewers, `/stats.json` is polled.
 */

import { messageOf } from '../../errors.ts'
import { PAGE_HEADER } from '../../monitoring/access.ts'
import { type ServerEvent, serverEvents } from '../../monitoring/event-stream.ts'

/** Without a response or a further event for this time the program counts as lost, ms. */
const ANSWER_MS = 5000
/** `/events` is asked for again after this time, ms. */
const POLLED_MS = 60_000

/** The monitoring server to read. */
export interface Source {
  /** URL of /stats.json. */
  readonly url: string
  /** http_token of the server. */
  readonly token: string | undefined
  /** One of several tunnels; undefined: all of them. */
  readonly tunnel?: string | undefined
}

/** The server has no `/events` for this program at present. */
export class NoEvents extends Error {}

function request({ token }: Source, url: string, signal: AbortSignal): Promise<Response> {
  const headers = { [PAGE_HEADER]: '1', ...(token !== undefined && { authorization: `Bearer ${token}` }) }
  return fetch(url, { headers, signal })
}

function check({ status, ok }: Response): void {
  if (status === 401) throw new Error('the token (http_token) is missing or wrong')
  if (status === 421) throw new Error('host name rejected: use the IP address, localhost or the host in http_listen')
  if (!ok) throw new Error(`HTTP status ${status}`)
}

const tunnelQuery = ({ tunnel }: Source, before: '?' | '&'): string =>
  tunnel === undefined ? '' : `${before}tunnel=${encodeURIComponent(tunnel)}`

/** One document of /stats.json. */
export async function fetchStatistics(source: Source, sessions: 'active' | 'all' = 'active'): Promise<unknown> {
  const answer = await request(
    source,
    `${source.url}?sessions=${sessions}${tunnelQuery(source, '&')}`,
    AbortSignal.timeout(ANSWER_MS),
  )
  check(answer)
  return answer.json()
}

/**
 * The events of `/events`, until they end.
 * @throws NoEvents if there are none for this program
 */
async function* events(source: Source, signal: AbortSignal): AsyncGenerator<ServerEvent, void, undefined> {
  const abort = new AbortController()
  const late = (): void => abort.abort(new DOMException('', 'TimeoutError'))
  let timer = setTimeout(late, ANSWER_MS)
  try {
    const url = `${source.url.replace(/stats\.json$/, 'events')}${tunnelQuery(source, '?')}`
    const answer = await request(source, url, AbortSignal.any([abort.signal, signal]))
    const { status } = answer
    if (status === 404 || status === 405 || status === 503) throw new NoEvents()
    check(answer)
    if (answer.body === null || !/^text\/event-stream/.test(answer.headers.get('content-type') ?? ''))
      throw new NoEvents()
    for await (const event of serverEvents(answer.body)) {
      clearTimeout(timer)
      timer = setTimeout(late, ANSWER_MS)
      if (event.name === 'crowded') throw new NoEvents()
      yield event
    }
  } finally {
    clearTimeout(timer)
    abort.abort()
  }
}

/** What becomes of the figures. */
export interface FeedHandlers {
  onHello(hello: unknown): void
  onSample(document: unknown): void
  /** There are no figures for this reason. It is tried again. */
  onTrouble(reason: string): void
}

/**
 * Follows a program until `signal` is aborted.
 * @param intervalMs pause between two documents that are polled, and after trouble
 */
export async function follow(
  source: Source,
  handlers: FeedHandlers,
  intervalMs: number,
  signal: AbortSignal,
): Promise<void> {
  let polledUntil = 0
  while (!signal.aborted) {
    try {
      if (performance.now() < polledUntil) handlers.onSample(await fetchStatistics(source))
      else {
        for await (const { name, data } of events(source, signal)) {
          if (name === 'hello') handlers.onHello(JSON.parse(data))
          else if (name === 'sample') handlers.onSample(JSON.parse(data))
        }
      }
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof NoEvents) {
        polledUntil = performance.now() + POLLED_MS
        continue
      }
      handlers.onTrouble(explain(error))
    }
    await pause(intervalMs, signal)
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    if (signal.aborted) done()
    else signal.addEventListener('abort', done)
  })
}

/** The reason of a failed request: Node reports it as the cause of "fetch failed". */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return `timeout after ${ANSWER_MS / 1000} s`
  for (const reason of [error, error.cause]) {
    if (reason instanceof Error && 'code' in reason && typeof reason.code === 'string') return reason.code
  }
  return messageOf(error.cause ?? error)
}
