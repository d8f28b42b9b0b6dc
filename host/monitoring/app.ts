/**
 * Routes of the monitoring server (protocol.md 11, docs/api.md): a hono app over plain functions. Nothing is computed
 * or stored without a request; long responses are generated in steps that yield to the event loop.
 *
 * Routing uses the raw request target, which the HTTP server of the runtime passes with the request. The runtime
 * handles sockets, limits and header syntax. Access control is in access.ts, the event stream of the dashboard in
 * live.ts.
 */

import type { Context, Hono } from 'hono'
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
/** Path that no target can have, for targets without a route. */
const NO_ROUTE = '/\u0000'

/** Passed with each request: the raw target of the request line, and the connection. */
export interface HttpEnv {
  readonly Bindings: { readonly target: string; readonly connection?: HttpConnection }
}

export interface HttpApp {
  fetch(request: Request, env: HttpEnv['Bindings']): Response | Promise<Response>
  /** Number of connected dashboards. */
  readonly viewers: number
  /** Ends their streams; they reconnect. */
  endViewers(): void
}

/**
 * The requirement of a path. `open`: none. Otherwise the token if one is set, and without a token: `token`: none;
 * `browsers`, `strict`: a Host header that names this server, from browsers or from all clients.
 */
type Access = 'open' | 'token' | 'browsers' | 'strict'
const ACCESS: ReadonlyMap<string, Access> = new Map<string, Access>([
  ['/healthy', 'open'],
  ['/ready', 'token'],
  // scraped by host names of the local network; does not identify peers
  ['/metrics', 'token'],
  ['/stats', 'browsers'],
  ['/stats.json', 'browsers'],
  ['/events', 'strict'],
])

/** Checks access. @returns an error page; undefined if access is granted */
function refuse({ headers }: Request, access: Access, source: HttpSource): Response | undefined {
  if (access === 'open') return undefined
  const token = source.token()
  // a foreign page does not have the token, so the Host header need not be checked
  if (token !== undefined) return hasToken(headers.get('authorization'), token) ? undefined : errorPage(401)
  const named = access === 'strict' || (access === 'browsers' && maybeBrowser(headers))
  return named && !isOwnHost(headers.get('host'), source.listen) ? errorPage(421) : undefined
}

/** The dashboard page. It contains no data and prompts for the token itself. */
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

/** Routes of the dashboard and its event stream. */
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

/** Routes of the statistics. */
function addFigures(app: Hono<HttpEnv>, source: HttpSource): void {
  const { program } = source
  const banner = `${program.name} ${program.version}\n  ${program.note}`
  /** Snapshot of the last POST, to which the next POST is relative. */
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

/**
 * Creates the application. Runtime.serveHttp calls its `fetch` with target and connection as bindings.
 * @param Router the class of the package hono: loaded only where there is a server, as it takes 2 MiB
 */
export function createHttpApp(source: HttpSource, Router: typeof Hono): HttpApp {
  const app = new Router<HttpEnv>({
    // routes use the raw target: request.url is normalized
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
    // nothing is fetched or computed before access is checked
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
