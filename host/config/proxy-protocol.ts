/** The key `proxy_protocol_from`: whose connections begin with a PROXY header. */

import { ConfigError, quote } from '../errors.ts'
import type { SocketAddress } from '../net/address.ts'
import { type IpRange, inRange, ipBytes, parseRange } from '../net/ip-range.ts'

/** The entry for connections at a Unix socket. */
const UNIX = 'unix'

export interface TrustedSources {
  readonly ranges: readonly IpRange[]
  readonly hasUnix: boolean
}

/** @throws ConfigError */
export function trustedSources(texts: readonly string[]): TrustedSources {
  const ranges = texts.flatMap((text, index) => {
    if (text === UNIX) return []
    const range = parseRange(text)
    if (range !== undefined) return [range]
    throw new ConfigError(
      `proxy_protocol_from[${index}]`,
      quote(text),
      'must be an address, a range such as 10.0.0.0/8, or unix',
    )
  })
  return { ranges, hasUnix: texts.includes(UNIX) }
}

/** Whether a connection begins with a header. */
export function isTrusted(
  { ranges, hasUnix }: TrustedSources,
  { remote, path }: { readonly remote: SocketAddress | undefined; readonly path?: string | undefined },
): boolean {
  if (path !== undefined) return hasUnix
  const bytes = remote && ipBytes(remote.address)
  return bytes !== undefined && ranges.some((range) => inRange(bytes, range))
}
