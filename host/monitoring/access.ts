/**
 * Access control of the monitoring server: rejection of cross-site requests, Host header check against DNS rebinding,
 * bearer token (docs/api.md, "Access"). Pure functions of the request headers; the requirements of each path are in
 * app.ts.
 *
 * DNS rebinding: a foreign page resolves its own host name to our address, so that the browser treats us as its origin.
 * The page cannot change the Host header or omit Accept-Encoding, both of which the browser sets (Fetch, 4.6).
 */

const IPV4 = /^\d{1,3}(?:\.\d{1,3}){3}$/
const IPV6 = /^\[[\da-f:.]+(?:%[\w.~-]+)?\]$/i
const PORT = /:\d*$/
const BEARER = /^bearer +([^ ]+)$/i

/** The host of `host:port` from a configuration or Host header, in lower case; IPv6 keeps its brackets. */
function hostOf(address: string): string {
  return address.replace(PORT, '').replace(/\.$/, '').toLowerCase()
}

/**
 * Whether a Host header names this server: an IP address, localhost, or the name in `http_listen`. A missing header is
 * accepted: browsers always send one.
 * @param configured `http_listen` of the configuration
 */
export function isOwnHost(header: string | null, configured: string | undefined): boolean {
  if (header === null) return true
  const host = hostOf(header)
  if (IPV4.test(host) || IPV6.test(host) || host === 'localhost') return true
  return configured !== undefined && host !== '' && host === hostOf(configured)
}

/**
 * Whether this is a cross-site request of a browser, according to Origin and Sec-Fetch-Site (Fetch Metadata Request
 * Headers), if present. Scripts cannot set these headers; other programs do not send them.
 */
export function isForeign(headers: Headers): boolean {
  const origin = headers.get('origin')
  // the scheme may be https behind a reverse proxy; an opaque origin is "null"
  if (origin !== null && origin.replace(/^https?:\/\//i, '').toLowerCase() !== headers.get('host')?.toLowerCase()) {
    return true
  }
  const site = headers.get('sec-fetch-site')
  return site !== null && site !== 'same-origin' && site !== 'none'
}

/** Header that the dashboard sends with its requests. */
export const PAGE_HEADER = 'x-kcptun-page'

/**
 * Whether this request can only come from the dashboard. A cross-site request with a custom header requires a
 * CORS-preflight (Fetch), which is rejected. Browsers send Sec-Fetch-Site only to the local machine and over TLS.
 */
export function isOwnPage(headers: Headers): boolean {
  return headers.has(PAGE_HEADER) || headers.get('sec-fetch-site') === 'same-origin'
}

/** Whether this is a top-level navigation, such as a followed link: no other page can read the response. */
export function isNavigation({ headers, method }: Request): boolean {
  const reads = method === 'GET' || method === 'HEAD'
  return reads && headers.get('sec-fetch-mode') === 'navigate' && headers.get('sec-fetch-dest') === 'document'
}

/** Whether a browser may have sent this: scripts cannot remove Accept-Encoding. */
export function maybeBrowser(headers: Headers): boolean {
  return headers.has('accept-encoding')
}

/** Whether an Authorization header contains the token. The run time depends only on the header. */
export function hasToken(header: string | null, token: string): boolean {
  const given = BEARER.exec(header ?? '')?.[1] ?? ''
  let difference = given.length ^ token.length
  for (let i = 0; i < given.length; i++) difference |= given.charCodeAt(i) ^ token.charCodeAt(i % token.length)
  return difference === 0
}
