/**
 * The monitoring server's application (protocol.md 11, docs/api.md): a hono app over plain functions. Nothing is computed
 * or kept without a request; long responses are made in steps between which the tunnel gets the event loop.
 *
 * The request target is judged as it stands on the wire, which the runtime's HTTP server hands over beside the request.
 * Sockets, limits and the syntax of heads are the runtime's; who may ask is access.ts, the stream of the dashboard live.ts.
 */

import { type Context, Hono } from 'hono'
import { csp, html } from 'kcptun-dashboard'
import type { HttpConnection } from '../runtime.ts'
import { contextJson } from '../transport/obfs/context-stats.ts'
import { hasToken, isForeign, isNavigation, isOwnHost, isOwnPage, maybeBrowser } from './access.ts'
import { LiveFeed } from './live.ts'
import { METRICS_TYPE, renderMetrics } from './metrics.ts'
import { bodyOf, errorPage, page } from './pages.ts'
import type { HttpSource } from './source.ts'
import { renderHealth, renderStats, SessionFilter } from './stats.ts'
import { renderJson, sessionJson, summaryOf } from './stats-json.ts'
import { parseStatsQuery, parseTarget } from './target.ts'

const TEXT_TYPE = 'text/plain; charset=utf-8'
const JSON_TYPE = 'application/json'
const HTML_TYPE = 'text/html; charset=utf-8'
const EVENTS_TYPE = 'text/event-stream; charset=utf-8'
/** What the app's routes stand under a name that no target can have. */
const NO_ROUTE = '/\u0000'

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

/** What a path asks of who asks for it: nothing; the token; without one a Host header of ours, of browsers or of everybody. */
type Access = 'open' | 'token' | 'browsers' | 'strict'
const ACCESS: ReadonlyMap<string, Access> = new Map<string, Access>([
  ['/healthy', 'open'],
  ['/ready', 'token'],
  // requested by names that only a local network resolves; identifies no peer
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

const queryOf = (context: Context<HttpEnv>): string => parseTarget(context.env.target)?.query ?? ''

/** The dashboard and its stream of events. */
function addPages(app: Hono<HttpEnv>, source: HttpSource, feed: LiveFeed): void {
  app.all('/', (context) => dashboard(context.req.raw, source))
  app.all('/events', (context) => {
    const { method, raw } = context.req
    if (method !== 'GET') return errorPage(405)
    const { connection } = context.env
    const isKnown = source.token() !== undefined || isOwnPage(raw.headers) || !maybeBrowser(raw.headers)
    const events = connection === undefined ? undefined : feed.open(connection, isKnown)
    return events === undefined ? errorPage(503) : page(events, EVENTS_TYPE)
  })
}

/** The figures, for people and for programs. */
function addFigures(app: Hono<HttpEnv>, source: HttpSource): void {
  const { program } = source
  const banner = `${program.name} ${program.version}\n  ${program.note}`
  /** The moment of the last POST, whose figures are those since the one before. */
  let last = source.start

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
  addPages(app, source, feed)
  addFigures(app, source)
  app.notFound(() => errorPage(404))
  return {
    fetch: (request, env) => app.fetch(request, env),
    get viewers() {
      return feed.viewers
    },
    endViewers: () => feed.endAll(),
  }
}
