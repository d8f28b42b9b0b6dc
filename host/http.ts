/**
 * The monitoring server's application (protocol.md 11): /healthy and /stats as a hono app over plain functions.
 *
 * Requests that the HTTP server of the runtime refuses never get here, nor does what it repairs (`/<`, a fragment).
 * /healthy answers 200 in every state: the body tells it.
 */
import { type Context, Hono } from 'hono'
import { type Health, renderHealth, renderStats, SessionFilter, type Snapshot, type StatsQuery } from './stats.ts'

/** What the app shows. */
export interface HttpSource {
  /** Name and version of the program with its URL, two lines. */
  readonly banner: string
  snapshot(): Snapshot
  health(): Health
  /** The moment of the start, with the counters at 0. */
  readonly start: Snapshot
}

/** Status, title and sentence of the error pages. */
const ERRORS = {
  400: ['Bad Request', 'Your browser sent a request that this server could not understand.'],
  404: ['Not Found', 'The requested URL was not found on this server.'],
  405: ['Method Not Allowed', 'The requested method is not allowed for this URL.'],
} as const

const TRUE_WORDS = new Set(['1', 'y', 'yes', 'on', 't', 'true'])

/** Numbers and names of the `sessions` parameter (protocol.md 11.2). */
const SESSION_WORDS = new Map<string, number>([
  ['0', SessionFilter.none],
  ['none', SessionFilter.none],
  ['1', SessionFilter.connected],
  ['connected', SessionFilter.connected],
  ['2', SessionFilter.active],
  ['active', SessionFilter.active],
  ['3', SessionFilter.all],
  ['all', SessionFilter.all],
])

function errorPage(status: keyof typeof ERRORS): Response {
  const [title, sentence] = ERRORS[status]
  const name = `${status} ${title}`
  const body = `<HTML><HEAD><TITLE>${name}</TITLE></HEAD>\n<BODY><H1>${name}</H1>\n` + `${sentence}\n</BODY></HTML>\n`
  return new Response(body, { status, headers: { Connection: 'close', 'Content-Type': 'text/html' } })
}

function textPage(text: string, cache: boolean): Response {
  const headers = new Headers({
    Connection: 'close',
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Content-Type-Options': 'nosniff',
  })
  if (!cache) headers.set('Cache-Control', 'no-store')
  return new Response(text, { headers })
}

/** Percent-decoded text, or undefined for a bad code or a control character. */
function decode(text: string): string | undefined {
  try {
    const decoded = decodeURIComponent(text)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
    return /[\u0000-\u001f\u007f]/.test(decoded) ? undefined : decoded
  } catch {
    return undefined
  }
}

/** Raw path and query of a URL as the server hands it over. */
function splitUrl(url: string): { readonly path: string; readonly query: string } {
  const match = /^[a-z][a-z\d+.-]*:\/\/[^/?#]*([^?#]*)(?:\?([^#]*))?/i.exec(url)
  return { path: match?.[1] ?? '', query: match?.[2] ?? '' }
}

/** Reads the parameters of /stats; undefined when they are not form-encoded. */
export function parseStatsQuery(query: string): StatsQuery | undefined {
  let banner = false
  let sessions: number = SessionFilter.connected
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    const key = decode((equals < 0 ? pair : pair.slice(0, equals)).replaceAll('+', ' '))
    const value = equals < 0 ? '' : decode(pair.slice(equals + 1).replaceAll('+', ' '))
    if (key === undefined || value === undefined) return undefined
    if (key === 'nobanner') banner = !(equals < 0 || TRUE_WORDS.has(value))
    else if (key === 'sessions') sessions = SESSION_WORDS.get(value) ?? sessions
  }
  return { banner, sessions }
}

/** The application; its `fetch` goes to Runtime.serveHttp. */
export function createHttpApp(source: HttpSource): Hono {
  const app = new Hono()
  let last = source.start

  const stats = (context: Context): Response => {
    const query = parseStatsQuery(splitUrl(context.req.url).query)
    if (query === undefined) return errorPage(400)
    const { method } = context.req
    if (method === 'GET') return textPage(renderStats(source.snapshot(), query, source.banner), false)
    if (method !== 'POST') return errorPage(405)
    const snapshot = source.snapshot()
    const text = renderStats(snapshot, query, source.banner, last)
    last = snapshot
    return textPage(text, true)
  }

  app.use(async (context, next) => {
    if (decode(splitUrl(context.req.url).path) === undefined) return errorPage(400)
    await next()
  })
  app.all('/stats', stats)
  app.all('/healthy', () => textPage(`${renderHealth(source.health()).text}\n`, false))
  app.notFound(() => errorPage(404))
  return app
}
