/**
 * Who may ask the monitoring server: no page of another site, the Host header against DNS rebinding, and the bearer
 * token (docs/api.md, "Access").
 * Pure functions of a request's headers; which path requires what is in app.ts.
 *
 * DNS rebinding: a page of a stranger gives its own name our address, and the browser takes us for its origin. What it
 * cannot do is send another Host header, or leave out Accept-Encoding, which browsers set themselves (Fetch, 4.6).
 */

const IPV4 = /^\d{1,3}(?:\.\d{1,3}){3}$/
const IPV6 = /^\[[\da-f:.]+(?:%[\w.~-]+)?\]$/i
const PORT = /:\d*$/
const BEARER = /^bearer +([^ ]+)$/i

/** The host of `host:port` as configurations and Host headers write it, in lower case; IPv6 keeps its brackets. */
function hostOf(address: string): string {
  return address.replace(PORT, '').replace(/\.$/, '').toLowerCase()
}

/**
 * Whether a Host header names this server: an IP address, localhost, or the name in `http_listen`. No header at all is
 * good: every browser sends one.
 * @param configured `http_listen` of the configuration
 */
export function isOwnHost(header: string | null, configured: string | undefined): boolean {
  if (header === null) return true
  const host = hostOf(header)
  if (IPV4.test(host) || IPV6.test(host) || host === 'localhost') return true
  return configured !== undefined && host !== '' && host === hostOf(configured)
}

/**
 * Whether another site's page had a browser send this: by Origin, and by Sec-Fetch-Site (Fetch Metadata Request
 * Headers), where they are sent. Scripts can set neither. Programs send none of them.
 */
export function isForeign(headers: Headers): boolean {
  const origin = headers.get('origin')
  // a proxy in front may speak TLS; an opaque origin is "null"
  if (origin !== null && origin.replace(/^https?:\/\//i, '').toLowerCase() !== headers.get('host')?.toLowerCase()) {
    return true
  }
  const site = headers.get('sec-fetch-site')
  return site !== null && site !== 'same-origin' && site !== 'none'
}

/** What our page sends with its requests. */
export const PAGE_HEADER = 'x-kcptun-page'

/**
 * Whether no page but ours can have a browser send this: with a header of its own a browser asks first whether another
 * site's page may send it (Fetch, CORS-preflight), which is refused. Sec-Fetch-Site it sends to this machine and to TLS
 * only.
 */
export function isOwnPage(headers: Headers): boolean {
  return headers.has(PAGE_HEADER) || headers.get('sec-fetch-site') === 'same-origin'
}

/** Whether a browser follows a link or a bookmark in a tab of its own: what it shows then, no page can read. */
export function isNavigation({ headers, method }: Request): boolean {
  const reads = method === 'GET' || method === 'HEAD'
  return reads && headers.get('sec-fetch-mode') === 'navigate' && headers.get('sec-fetch-dest') === 'document'
}

/** Whether a browser may have sent this: no script can keep a browser from sending Accept-Encoding. */
export function maybeBrowser(headers: Headers): boolean {
  return headers.has('accept-encoding')
}

/** Whether an Authorization header carries the token. The time it takes depends on what was sent alone. */
export function hasToken(header: string | null, token: string): boolean {
  const given = BEARER.exec(header ?? '')?.[1] ?? ''
  let difference = given.length ^ token.length
  for (let i = 0; i < given.length; i++) difference |= given.charCodeAt(i) ^ token.charCodeAt(i % token.length)
  return difference === 0
}
