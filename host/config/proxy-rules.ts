/**
 * The keys of a server that is a proxy itself (`connect`: socks5 or http): rules about targets, and users. proxy/access.ts
 * applies them.
 */

import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { type IpRange, parseRange } from '../net/ip-range.ts'

/** The values of `connect` that name no target: the client does. */
export const PROXIES = ['socks5', 'http'] as const
export type ProxyKind = (typeof PROXIES)[number]

/** Whether `connect` makes the server a proxy. */
export const isProxy = (connect: string | undefined): connect is ProxyKind => PROXIES.some((kind) => kind === connect)

/** What a rule is about: everything, special-purpose addresses, a name or the names below it, or addresses. */
export type RuleTarget =
  | { readonly kind: 'any' | 'private' }
  | { readonly kind: 'name' | 'below'; readonly name: string }
  | { readonly kind: 'range'; readonly range: IpRange }

export interface ProxyRule {
  readonly isAllowed: boolean
  readonly target: RuleTarget
  readonly ports: readonly [number, number]
}

export const ALL_PORTS = [1, 65535] as const
/** A user name or password, in bytes (RFC 1929). */
const CREDENTIAL_MAX_BYTES = 255
/** The last label is no number, as in 0x7f.1: such a name is an address to a resolver, and a rule about it would miss that. */
const NAME = /^(?!(.*\.)?(\d+|0x[\da-f]*)$)[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/** The form in which names are compared: lower case, without the dot of the root. */
export const plainName = (host: string): string => host.toLowerCase().replace(/\.$/, '')

/** Divides `host`, `host:ports`, `[v6]:ports` or a bare IPv6 range. */
function divide(text: string): readonly [string, string | undefined] {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text)
  if (bracketed !== null) return [bracketed[1] ?? '', bracketed[2]]
  const parts = text.split(':')
  return parts.length === 2 ? [parts[0] ?? '', parts[1]] : [text, undefined]
}

function portsOf(text: string | undefined): readonly [number, number] | undefined {
  if (text === undefined || text === '*') return ALL_PORTS
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? []
  const [from, to] = [Number(first), Number(last)]
  return from >= 1 && from <= to && to <= 65535 ? [from, to] : undefined
}

function targetOf(host: string): RuleTarget | undefined {
  if (host === '*') return { kind: 'any' }
  if (host === 'private') return { kind: 'private' }
  const range = parseRange(host)
  if (range !== undefined) return { kind: 'range', range }
  const name = plainName(host)
  if (name.startsWith('*.')) return NAME.test(name.slice(2)) ? { kind: 'below', name: name.slice(1) } : undefined
  return NAME.test(name) ? { kind: 'name', name } : undefined
}

/** @throws ConfigError */
export function parseRule(key: string, text: string): ProxyRule {
  const refuse = (reason: string): never => {
    throw new ConfigError(key, quote(text), reason)
  }
  const [, verb, place = ''] = /^(allow|deny)\s+(\S+)$/.exec(text) ?? []
  if (verb === undefined) return refuse('must be "allow TARGET" or "deny TARGET"')
  const [host, port] = divide(place)
  const ports = portsOf(port)
  if (ports === undefined) return refuse('a port must be a number from 1 to 65535, or a range such as 8000-8099')
  const target = targetOf(host)
  if (target === undefined) {
    return refuse(
      `${quote(host)} must be *, private, a name, *.name, an address or a range such as 10.0.0.0/8 (IPv6 with a port in brackets)`,
    )
  }
  return { isAllowed: verb === 'allow', target, ports }
}

/** Checks `proxy_rules` and `proxy_users`. @throws ConfigError */
export function checkProxy(rules: readonly string[], users: Readonly<Record<string, string>>): void {
  for (const [index, rule] of rules.entries()) parseRule(`proxy_rules[${index}]`, rule)
  for (const [name, password] of Object.entries(users)) {
    const refuse = (reason: string): never => {
      throw new ConfigError('proxy_users', HIDDEN, `user ${quote(name)}: ${reason}`)
    }
    if (name === '' || name.includes(':')) refuse('a user name must not be empty or contain a colon')
    for (const text of [name, password]) {
      const { length } = new TextEncoder().encode(text)
      if (length === 0 || length > CREDENTIAL_MAX_BYTES)
        refuse(`name and password must have 1 to ${CREDENTIAL_MAX_BYTES} bytes`)
    }
  }
}
