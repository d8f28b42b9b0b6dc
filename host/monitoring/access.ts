/**
 * Who may ask the monitoring server: the Host header against DNS rebinding, and the bearer token (docs/api.md, "Access").
 * Pure functions of a request's headers; which path asks for what stands in http.ts.
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

/** Whether a browser may have sent this: no script can keep a browser from sending Accept-Encoding. */
export function maybeBrowser(headers: Headers): boolean {
  return headers.has('accept-encoding')
}

/** Whether an Authorization header carries the token. The time it takes tells nothing but the token's length. */
export function hasToken(header: string | null, token: string): boolean {
  const given = BEARER.exec(header ?? '')?.[1] ?? ''
  let difference = given.length ^ token.length
  for (let i = 0; i < token.length; i++) difference |= token.charCodeAt(i) ^ given.charCodeAt(i % (given.length || 1))
  return difference === 0
}
