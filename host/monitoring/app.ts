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
import { METRICS_TYPE, type MetricsPart, renderMetrics } from './metrics.ts'
import { bodyOf, errorPage, page } from './pages.ts'
import type { HttpSource, TunnelSource } from './source.ts'
import {
  healthLines,
  renderHead,
  renderHealth,
  renderStats,
  SessionFilter,
  type Snapshot,
  type StatsQuery,
} from './stats.ts'
import { renderJson, sessionJson, summaryOf } from './stats-json.ts'
import { parseStatsQuery, parseTarget, tunnelOfQuery } from './target.ts'

const TEXT_TYPE = 'text/plain; charset=utf-8'
const JSON_TYPE = 'application/json'
const HTML_TYPE = 'text/html; charset=utf-8'
const EVENTS_TYPE = 'text/event-stream; charset=utf-8'
/** Path of the only request that changes something. */
const RELOAD = '/reload'
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

/** Access to what changes something: by the token alone, also where all else is open. @returns as `refuse` */
function refuseControl({ headers, method }: Request, source: HttpSource): Response | undefined {
  if (method !== 'POST') {
    const answer = errorPage(405)
    answer.headers.set('Allow', 'POST')
    return answer
  }
  const token = source.token()
  if (token === undefined)
    return errorPage(403, 'This needs a token: set http_token in the configuration of this server.')
  return hasToken(headers.get('authorization'), token) ? undefined : errorPage(401)
}

/** Reloads the configuration, which may take longer than a connection otherwise lives. */
async function reload({ env }: Context<HttpEnv>, source: HttpSource): Promise<Response> {
  env.connection?.hold()
  const outcome = await source.reload?.(env.connection?.remote ?? 'an unknown address')
  env.connection?.release?.()
  if (outcome === undefined) return errorPage(503, 'The start is not complete, or this program has no reload.')
  return page(`${JSON.stringify(outcome, null, 2)}\n`, JSON_TYPE, outcome.outcome === 'reloaded' ? 200 : 422)
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

/** What is served of a source: all tunnels together, or one of them. */
class View {
  readonly source: HttpSource
  /** Snapshot of the last POST, to which the next POST is relative. */
  last: Snapshot
  #feed: LiveFeed | undefined

  constructor(source: HttpSource) {
    this.source = source
    this.last = source.start
  }

  get feed(): LiveFeed {
    const { source } = this
    this.#feed ??= new LiveFeed({
      ...source.live,
      snapshot: () => source.snapshot(),
      sessions: () => source.sessions(),
      summary: (snapshot) => summaryOf(source, snapshot),
      session: sessionJson,
      contexts: () => source.contexts?.(),
      context: contextJson,
    })
    return this.#feed
  }

  get viewers(): number {
    return this.#feed?.viewers ?? 0
  }

  endViewers(): void {
    this.#feed?.endAll()
  }
}

/** The views of a source: itself, and those of its tunnels as they are asked for. */
class Views {
  readonly #whole: View
  readonly #parts = new Map<TunnelSource, View>()

  constructor(source: HttpSource) {
    this.#whole = new View(source)
  }

  get all(): View[] {
    return [this.#whole, ...this.#parts.values()]
  }

  get tunnels(): View[] | undefined {
    return this.#whole.source.tunnels?.().map((source) => this.#viewOf(source))
  }

  /** The view that a request is about; undefined: it names a tunnel that does not exist. */
  find(target: string): View | undefined {
    const sources = this.#whole.source.tunnels?.()
    const name = sources && tunnelOfQuery(parseTarget(target)?.query ?? '')
    if (name === undefined) return this.#whole
    const found = sources?.find((source) => source.name === name)
    return found && this.#viewOf(found)
  }

  /** Ends the streams of all views, and forgets tunnels that are gone. */
  endViewers(): void {
    for (const view of this.all) view.endViewers()
    const sources = this.#whole.source.tunnels?.() ?? []
    for (const source of this.#parts.keys()) if (!sources.includes(source)) this.#parts.delete(source)
  }

  #viewOf(source: TunnelSource): View {
    const known = this.#parts.get(source) ?? new View(source)
    this.#parts.set(source, known)
    return known
  }
}

const queryOf = (context: Context<HttpEnv>): string => parseTarget(context.env.target)?.query ?? ''

/** Routes of the dashboard and its event stream. */
function addPages(app: Hono<HttpEnv>, source: HttpSource, views: Views): void {
  app.all('/', (context) => dashboard(context.req.raw, source))
  app.all('/events', (context) => {
    const { method, raw } = context.req
    if (method !== 'GET') return errorPage(405)
    const { connection } = context.env
    const isKnown = source.token() !== undefined || isOwnPage(raw.headers) || !maybeBrowser(raw.headers)
    const view = views.find(context.env.target)
    if (view === undefined) return errorPage(404)
    const events = connection === undefined ? undefined : view.feed.open(connection, isKnown)
    return events === undefined ? errorPage(503) : page(events, EVENTS_TYPE)
  })
}

/** The body of /stats of one view. @param banner undefined: the first lines are left out */
function statsOf(
  view: View,
  query: StatsQuery,
  isPost: boolean,
  banner: string | undefined,
): Iterator<string, unknown> {
  const { source } = view
  const snapshot = source.snapshot()
  const since = isPost ? view.last : undefined
  if (isPost) view.last = snapshot
  return renderStats(snapshot, source.sessions(), query, banner, since, source.contexts?.(), source.keys?.())
}

/** The body of /stats of several tunnels: each below a line with its name. */
function* statsOfAll(whole: View, tunnels: readonly View[], query: StatsQuery, isPost: boolean, banner: string) {
  yield renderHead(whole.source.snapshot(), query, banner)
  for (const [index, view] of tunnels.entries()) {
    const { program, name, health } = view.source as TunnelSource
    yield `${index === 0 ? '' : '\n'}tunnel ${name}, ${program.mode}: ${renderHealth(health()).text}\n\n`
    for (const parts = statsOf(view, query, isPost, undefined); ; ) {
      const { value, done } = parts.next()
      if (done === true) break
      yield value
    }
  }
}

const metricsOf = ({ source }: View): MetricsPart => ({
  snapshot: source.snapshot(),
  host: source.hostCounters(),
  ready: renderHealth(source.health()).healthy,
  servers: source.servers?.(),
  keys: source.keys?.(),
})

/** Routes of the statistics. */
function addFigures(app: Hono<HttpEnv>, source: HttpSource, views: Views): void {
  const { program } = source
  const banner = `${program.name} ${program.version}\n  ${program.note}`
  const { clock } = source.live
  /** The view of a request, and its tunnels if it shows several. */
  const viewOf = ({ env }: Context<HttpEnv>): { view: View; tunnels: View[] | undefined } | undefined => {
    const view = views.find(env.target)
    return view && { view, tunnels: view.source === source ? views.tunnels : undefined }
  }
  const on = (path: string, answer: (context: Context<HttpEnv>, view: View, tunnels?: View[]) => Response): void => {
    app.all(path, (context) => {
      const found = viewOf(context)
      return found === undefined ? errorPage(404) : answer(context, found.view, found.tunnels)
    })
  }

  on('/stats', (context, view, tunnels) => {
    const query = parseStatsQuery(queryOf(context))
    if (query === undefined) return errorPage(400)
    const { method } = context.req
    if (method !== 'GET' && method !== 'POST') return errorPage(405)
    const isPost = method === 'POST'
    const parts = tunnels ? statsOfAll(view, tunnels, query, isPost, banner) : statsOf(view, query, isPost, banner)
    return page(bodyOf(parts, clock), TEXT_TYPE, 200, isPost)
  })
  on('/stats.json', (context, view) => {
    const query = parseStatsQuery(queryOf(context), SessionFilter.all)
    if (query === undefined) return errorPage(400)
    if (context.req.method !== 'GET') return errorPage(405)
    return page(bodyOf(renderJson(view.source, query), clock), JSON_TYPE)
  })
  on('/metrics', (context, view, tunnels) => {
    if (context.req.method !== 'GET') return errorPage(405)
    const named = ({ source: part }: View): { tunnel?: string } => ('name' in part ? { tunnel: String(part.name) } : {})
    const parts = (tunnels ?? [view]).map((each) => ({ ...metricsOf(each), ...named(each) }))
    return page(renderMetrics(view.source.snapshot(), program, parts), METRICS_TYPE)
  })
  on('/healthy', (_, view) => page(healthLines(view.source.health()), TEXT_TYPE))
  on('/ready', (_, view) => {
    const health = view.source.health()
    return page(healthLines(health), TEXT_TYPE, renderHealth(health).healthy ? 200 : 503)
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
  const views = new Views(source)

  app.use(async (context, next) => {
    const { target } = context.env
    if (parseTarget(target) === undefined) return errorPage(400)
    const { path, raw } = context.req
    // nothing is fetched or computed before access is checked
    if (isForeign(raw.headers) && !(path === '/' && isNavigation(raw))) return errorPage(403)
    const access = ACCESS.get(path)
    const refusal = path === RELOAD ? refuseControl(raw, source) : access && refuse(raw, access, source)
    if (refusal !== undefined) return refusal
    if (access !== undefined) await views.find(target)?.source.prepare?.(target)
    await next()
  })
  addPages(app, source, views)
  addFigures(app, source, views)
  app.post(RELOAD, (context) => reload(context, source))
  app.notFound(() => errorPage(404))
  return {
    fetch: (request, env) => app.fetch(request, env),
    get viewers() {
      return views.all.reduce((sum, view) => sum + view.viewers, 0)
    },
    endViewers: () => views.endViewers(),
  }
}
