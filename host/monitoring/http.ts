/**
 * The monitoring server's application (protocol.md 11, docs/api.md): a hono app over plain functions. Nothing is done
 * and nothing kept unless somebody asks; long answers are made in steps between which the tunnel gets the event loop.
 *
 * The request target is judged as it stands on the wire, which the runtime's HTTP server hands over beside the request.
 * Sockets, limits and the syntax of heads are the runtime's; who may ask is access.ts, the stream of the dashboard live.ts.
 */

import { type Context, Hono } from 'hono'
import { csp, html } from 'kcptun-dashboard'
import type { HostCounters } from '../driver/diagnostics.ts'
import { formatConv } from '../format.ts'
import { formatAddress } from '../net/address.ts'
import type { Clock, HttpConnection } from '../runtime.ts'
import { type ContextSteps, contextJson } from '../transport/obfs/context-stats.ts'
import { hasToken, isForeign, isNavigation, isOwnHost, isOwnPage, maybeBrowser } from './access.ts'
import { LiveFeed, type LiveSource } from './live.ts'
import { METRICS_TYPE, renderMetrics } from './metrics.ts'
import {
  GAUGES,
  type Health,
  renderHealth,
  renderStats,
  SessionFilter,
  type SessionStats,
  type SessionSteps,
  type Snapshot,
  type StatsQuery,
} from './stats.ts'

/** Version of the schema of /stats.json: raised when a name goes or changes its meaning, not when one is added. */
const STATS_JSON_VERSION = 1
/** An answer up to this length is sent in one piece, UTF-16 units. */
const WHOLE_ANSWER = 65536
const TEXT_TYPE = 'text/plain; charset=utf-8'
const JSON_TYPE = 'application/json'
const HTML_TYPE = 'text/html; charset=utf-8'
const EVENTS_TYPE = 'text/event-stream; charset=utf-8'
/** What the app's routes stand under a name that no target can have. */
const NO_ROUTE = '/\u0000'

/** Who answers. */
export interface ProgramInfo {
  readonly name: string
  readonly version: string
  /** second line of the banner */
  readonly note: string
  readonly runtime: string
  readonly runtimeVersion: string
  /** As in the log: client, server, ... */
  readonly mode: string
}

/** What the app shows. */
export interface HttpSource {
  readonly program: ProgramInfo
  snapshot(): Snapshot
  sessions(): SessionSteps
  /** With an obfuscator: its contexts. */
  contexts?(): ContextSteps | undefined
  /** Called before a request is answered, once it is known that it may be, when figures must be fetched first. */
  prepare?(target: string): Promise<void>
  health(): Health
  hostCounters(): HostCounters
  /** The moment of the start, with the counters at 0. */
  readonly start: Snapshot
  /** `http_listen`: the name in it is one of ours. */
  readonly listen: string | undefined
  /** `http_token` in force. */
  token(): string | undefined
  /** What only the dashboard shows. */
  readonly live: Omit<LiveSource, 'snapshot' | 'sessions' | 'summary' | 'session' | 'contexts' | 'context'>
}

/** Beside the request: its target as it stood in the request line, and its connection. */
export interface HttpEnv {
  readonly Bindings: { readonly target: string; readonly connection?: HttpConnection }
}

export interface HttpApp {
  fetch(request: Request, env: HttpEnv['Bindings']): Response | Promise<Response>
  /** Dashboards that watch. */
  readonly viewers: number
  /** Ends their streams; they come again when they can. */
  endViewers(): void
}

/** Status, title and sentence of the error pages. */
const ERRORS = {
  400: ['Bad Request', 'Your browser sent a request that this server could not understand.'],
  401: ['Unauthorized', 'The bearer token of this server (http_token in its configuration) is missing or wrong.'],
  403: ['Forbidden', 'A page of another site may not ask this server.'],
  404: ['Not Found', 'The requested URL was not found on this server.'],
  405: ['Method Not Allowed', 'The requested method is not allowed for this URL.'],
  421: [
    'Misdirected Request',
    'This server does not answer to that name. Ask for it by its IP address, by localhost, or by the host in its http_listen.',
  ],
  503: ['Service Unavailable', 'This connection cannot carry a stream of events.'],
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

/** Names of the states in /stats.json, by state number. */
const STATE_NAMES = ['unknown', 'connect', 'established', 'linger', 'time_wait'] as const

/** Browsers do not always tell whose page asks; they keep answers with these from pages of other sites. */
const NOT_FOR_OTHERS = { 'Cross-Origin-Resource-Policy': 'same-origin', 'X-Frame-Options': 'DENY' } as const

/** An error page (protocol.md 11). */
export function errorPage(status: keyof typeof ERRORS): Response {
  const [title, sentence] = ERRORS[status]
  const name = `${status} ${title}`
  const body = `<HTML><HEAD><TITLE>${name}</TITLE></HEAD>\n<BODY><H1>${name}</H1>\n${sentence}\n</BODY></HTML>\n`
  const headers = new Headers({ Connection: 'close', 'Content-Type': 'text/html', ...NOT_FOR_OTHERS })
  if (status === 401) headers.set('WWW-Authenticate', 'Bearer')
  return new Response(body, { status, headers })
}

function page(body: string | ReadableStream<Uint8Array>, type: string, status = 200, post = false): Response {
  const headers = new Headers({
    Connection: 'close',
    'Content-Type': type,
    'X-Content-Type-Options': 'nosniff',
    ...NOT_FOR_OTHERS,
  })
  if (!post) headers.set('Cache-Control', 'no-store')
  return new Response(body, { status, headers })
}

/** A body made part by part: in one piece when it is short, else each part when the one before was taken. */
function bodyOf(parts: Iterator<string, unknown>, clock: Clock): string | ReadableStream<Uint8Array> {
  let text = ''
  while (text.length < WHOLE_ANSWER) {
    const { value, done } = parts.next()
    if (done === true) return text
    // a step over slots that are empty or left out: those that follow are others' turn too
    if (value === '') break
    text += value
  }
  const encoder = new TextEncoder()
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      while (text === '') {
        // the tunnel comes first
        await new Promise((resolve) => clock.defer(() => resolve(undefined)))
        const { value, done } = parts.next()
        if (done === true) {
          controller.close()
          return
        }
        text = String(value)
      }
      controller.enqueue(encoder.encode(text))
      text = ''
    },
  })
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

/** Unreserved and reserved characters and `%` (RFC 3986, section 2). */
const TARGET = /^[\w.~:/?#[\]@!$&'()*+,;=%-]+$/
/** Scheme, authority, path, query, fragment of an absolute or scheme-relative URI. */
const ABSOLUTE = /^(?:[a-z][a-z\d+.-]*:)?\/\/[^/?#]*/i

/**
 * Takes a request target apart (protocol.md 11): the percent-decoded first segment, whether something follows it, and
 * the raw query; undefined for a target that is none.
 */
export function parseTarget(
  target: string,
): { readonly name: string; readonly more: boolean; readonly query: string } | undefined {
  if (!TARGET.test(target)) return undefined
  const local = target.replace(/#.*$/, '').replace(ABSOLUTE, '')
  const question = local.indexOf('?')
  const path = question < 0 ? local : local.slice(0, question)
  if (!path.startsWith('/')) return undefined
  const segments: string[] = []
  for (const raw of path.replace(/^\/+/, '').split('/')) {
    const segment = decode(raw)
    if (segment === undefined) return undefined
    segments.push(segment)
  }
  return { name: segments[0] ?? '', more: segments.length > 1, query: question < 0 ? '' : local.slice(question + 1) }
}

/** Reads the parameters of /stats; undefined when they are not form-encoded. `sessions`: the default filter. */
export function parseStatsQuery(query: string, filter: number = SessionFilter.connected): StatsQuery | undefined {
  let banner = false
  let sessions = filter
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

function sessionJson(session: SessionStats): object {
  const ms = (value: number): number | null => (value < 0 ? null : value)
  return {
    conv: formatConv(session.conv),
    state: STATE_NAMES[session.state] ?? STATE_NAMES[0],
    peer: formatAddress(session.peer),
    age_seconds: session.age,
    idle_seconds: session.idle,
    rtt_ms: ms(session.rtt),
    rttvar_ms: ms(session.rttvar),
    rto_ms: ms(session.rto),
    waitsnd_segments: session.waitsnd,
    sndwnd_segments: session.sndwnd,
    rmtwnd_segments: session.rmtWnd,
    cwnd_segments: session.cwnd,
    retransmitted_segments: session.retransmissions,
    pace_segments_per_second: session.pace,
    base_loss: session.baseLoss,
    tcp_read_bytes: session.tcpRead,
    tcp_written_bytes: session.tcpWritten,
  }
}

/** The body of /stats.json but its sessions; its schema stands in docs/api.md. */
function summaryOf(source: HttpSource, { uptime, cpu, date, counters, workers }: Snapshot): object {
  const { name, version, runtime, runtimeVersion, mode } = source.program
  const health = source.health()
  const { healthy, text } = renderHealth(health)
  const gauges = Object.entries(counters).filter(([key]) => GAUGES.has(key))
  const totals = Object.entries(counters).filter(([key]) => !GAUGES.has(key))
  return {
    version: STATS_JSON_VERSION,
    program: { name, version, runtime, runtime_version: runtimeVersion, mode },
    time: date.toISOString(),
    uptime_ms: uptime,
    cpu_ms: cpu ?? null,
    ready: healthy,
    health: text,
    // absent for a single process
    workers,
    counters: Object.fromEntries(totals),
    // JSON knows no Infinity: null stands for never
    gauges: Object.fromEntries(gauges),
    host: source.hostCounters(),
  }
}

/** The body of /stats.json in parts. */
function* renderJson(source: HttpSource, query: StatsQuery): Generator<string, void, undefined> {
  const head = JSON.stringify(summaryOf(source, source.snapshot()))
  yield `${head.slice(0, -1)},"sessions":[`
  let first = true
  if (query.sessions !== SessionFilter.none) {
    for (const step of source.sessions()) {
      let lines = ''
      for (const session of step) {
        if (session.state > query.sessions) continue
        lines += `${first ? '\n' : ',\n'}${JSON.stringify(sessionJson(session))}`
        first = false
      }
      yield lines
    }
  }
  const contexts = source.contexts?.()
  if (contexts === undefined) {
    yield ']}\n'
    return
  }
  yield '],"contexts":['
  let next = '\n'
  for (const step of contexts) {
    let lines = ''
    for (const context of step) {
      lines += next + JSON.stringify(contextJson(context))
      next = ',\n'
    }
    yield lines
  }
  yield ']}\n'
}

/** What a path asks of who asks for it: nothing; the token; without one a Host header of ours, of browsers or of everybody. */
type Access = 'open' | 'token' | 'browsers' | 'strict'
const ACCESS: ReadonlyMap<string, Access> = new Map<string, Access>([
  ['/healthy', 'open'],
  ['/ready', 'token'],
  // asked for by names that only a network knows; tells of nobody
  ['/metrics', 'token'],
  ['/stats', 'browsers'],
  ['/stats.json', 'browsers'],
  ['/events', 'strict'],
])

/** An answer to who may not ask for this; undefined to who may. */
function refuse({ headers }: Request, access: Access, source: HttpSource): Response | undefined {
  if (access === 'open') return undefined
  const token = source.token()
  // a stranger's page has no token: then the name does not matter
  if (token !== undefined) return hasToken(headers.get('authorization'), token) ? undefined : errorPage(401)
  const named = access === 'strict' || (access === 'browsers' && maybeBrowser(headers))
  return named && !isOwnHost(headers.get('host'), source.listen) ? errorPage(421) : undefined
}

/** The dashboard: the same for everybody, it holds no data and asks for the token itself. */
function dashboard({ headers, method }: Request, source: HttpSource): Response {
  if (source.token() === undefined && !isOwnHost(headers.get('host'), source.listen)) {
    return errorPage(maybeBrowser(headers) ? 421 : 404)
  }
  if (method !== 'GET' && method !== 'HEAD') return errorPage(405)
  const answer = page(html, HTML_TYPE)
  answer.headers.set('Content-Security-Policy', csp)
  answer.headers.set('Referrer-Policy', 'no-referrer')
  answer.headers.set('Cross-Origin-Opener-Policy', 'same-origin')
  return answer
}

/** The application; its `fetch` goes to Runtime.serveHttp, with the target and the connection as bindings. */
export function createHttpApp(source: HttpSource): HttpApp {
  const app = new Hono<HttpEnv>({
    // routes are found by the target itself: what stands in request.url was repaired on the way
    getPath: (_request, options) => {
      const parsed = parseTarget(options?.env?.target ?? '')
      return parsed === undefined || parsed.more ? NO_ROUTE : `/${parsed.name}`
    },
  })
  const { program } = source
  const banner = `${program.name} ${program.version}\n  ${program.note}`
  let last = source.start

  const queryOf = (context: Context<HttpEnv>): string => parseTarget(context.env.target)?.query ?? ''

  const feed = new LiveFeed({
    ...source.live,
    snapshot: () => source.snapshot(),
    sessions: () => source.sessions(),
    summary: (snapshot) => summaryOf(source, snapshot),
    session: sessionJson,
    contexts: () => source.contexts?.(),
    context: contextJson,
  })

  app.use(async (context, next) => {
    const { target } = context.env
    if (parseTarget(target) === undefined) return errorPage(400)
    const { path, raw } = context.req
    // nothing is looked at, fetched or made before it is known who asks
    if (isForeign(raw.headers) && !(path === '/' && isNavigation(raw))) return errorPage(403)
    const access = ACCESS.get(path)
    const refusal = access === undefined ? undefined : refuse(raw, access, source)
    if (refusal !== undefined) return refusal
    if (access !== undefined) await source.prepare?.(target)
    await next()
  })
  app.all('/', (context) => dashboard(context.req.raw, source))
  app.all('/events', (context) => {
    const { method, raw } = context.req
    if (method !== 'GET') return errorPage(405)
    const { connection } = context.env
    const isKnown = source.token() !== undefined || isOwnPage(raw.headers) || !maybeBrowser(raw.headers)
    const events = connection === undefined ? undefined : feed.open(connection, isKnown)
    return events === undefined ? errorPage(503) : page(events, EVENTS_TYPE)
  })
  app.all('/stats', (context) => {
    const query = parseStatsQuery(queryOf(context))
    if (query === undefined) return errorPage(400)
    const { method } = context.req
    if (method !== 'GET' && method !== 'POST') return errorPage(405)
    const snapshot = source.snapshot()
    const since = method === 'POST' ? last : undefined
    if (method === 'POST') last = snapshot
    const parts = renderStats(snapshot, source.sessions(), query, banner, since, source.contexts?.())
    return page(bodyOf(parts, source.live.clock), TEXT_TYPE, 200, method === 'POST')
  })
  app.all('/stats.json', (context) => {
    const query = parseStatsQuery(queryOf(context), SessionFilter.all)
    if (query === undefined) return errorPage(400)
    if (context.req.method !== 'GET') return errorPage(405)
    return page(bodyOf(renderJson(source, query), source.live.clock), JSON_TYPE)
  })
  app.all('/metrics', (context) => {
    if (context.req.method !== 'GET') return errorPage(405)
    const { healthy } = renderHealth(source.health())
    return page(renderMetrics(source.snapshot(), source.hostCounters(), healthy, program), METRICS_TYPE)
  })
  app.all('/healthy', () => page(`${renderHealth(source.health()).text}\n`, TEXT_TYPE))
  app.all('/ready', () => {
    const { healthy, text } = renderHealth(source.health())
    return page(`${text}\n`, TEXT_TYPE, healthy ? 200 : 503)
  })
  app.notFound(() => errorPage(404))
  return {
    fetch: (request, env) => app.fetch(request, env),
    get viewers() {
      return feed.viewers
    },
    endViewers: () => feed.endAll(),
  }
}
