/** Who may use the proxy, and which targets. */

import { type ProxyRule, parseRule, plainName } from '../config/proxy-rules.ts'
import { type IpBytes, inRange, ipBytes } from '../net/ip-range.ts'
import { isSpecial, viewsOf } from './special-ranges.ts'

/** Compared with at once; no name or password is longer (RFC 1929). */
const CREDENTIAL_BYTES = 256

/** 0 if two texts are equal. Takes the same time for all texts. */
function difference(a: Uint8Array, b: Uint8Array): number {
  let bits = a.length ^ b.length
  for (let i = 0; i < CREDENTIAL_BYTES; i++) bits |= (a[i] ?? 0) ^ (b[i] ?? 0)
  return bits
}

/** Why a target is refused: the rule, as written; the last rule of all is built in. */
export const DENIED_SPECIAL = 'private and special-purpose addresses are denied unless a rule allows their range'

export class ProxyAccess {
  readonly #rules: readonly (readonly [ProxyRule, string])[]
  readonly #users: readonly (readonly [Uint8Array, Uint8Array])[]

  /**
   * @param rules the first one that matches counts
   * @param users passwords by name; none: everybody may
   */
  constructor(rules: readonly string[], users: Readonly<Record<string, string>>) {
    this.#rules = rules.map((text, index) => [parseRule(`proxy_rules[${index}]`, text), text])
    const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
    this.#users = Object.entries(users).map(([name, password]) => [bytes(name), bytes(password)])
  }

  get hasUsers(): boolean {
    return this.#users.length > 0
  }

  /** Whether there is such a user. The time that this takes depends on the number of users alone. */
  isUser(name: Uint8Array, password: Uint8Array): boolean {
    let found = 0
    for (const [user, secret] of this.#users)
      found |= Number((difference(name, user) | difference(password, secret)) === 0)
    return found !== 0
  }

  /**
   * What refuses a target before its addresses are known.
   * @returns the rule; undefined: none, or that depends on the addresses
   */
  refusalOfName(host: string, port: number): string | undefined {
    const name = plainName(host)
    for (const [{ isAllowed, target, ports }, text] of this.#rules) {
      if (port < ports[0] || port > ports[1]) continue
      if (target.kind === 'range' || target.kind === 'private') return undefined
      if (matchesName(target, name)) return isAllowed ? undefined : text
    }
    return undefined
  }

  /** @returns what refuses a connection to an address of a host; undefined: nothing */
  refusal(host: string, address: string, port: number): string | undefined {
    const bytes = ipBytes(address)
    if (bytes === undefined) return DENIED_SPECIAL
    const name = plainName(host)
    for (const view of viewsOf(bytes)) {
      const refusal = this.#refusalOf(name, view, port)
      if (refusal !== undefined) return refusal
    }
    return undefined
  }

  #refusalOf(name: string, view: IpBytes, port: number): string | undefined {
    const special = isSpecial(view)
    for (const [{ isAllowed, target, ports }, text] of this.#rules) {
      if (port < ports[0] || port > ports[1]) continue
      const isOfAddress = target.kind === 'range' || target.kind === 'private'
      const matches =
        target.kind === 'range' ? inRange(view, target.range) : isOfAddress ? special : matchesName(target, name)
      if (!matches) continue
      if (!isAllowed) return text
      // who owns a name decides where it leads: that opens nothing
      if (!special || isOfAddress) return undefined
    }
    return special ? DENIED_SPECIAL : undefined
  }
}

function matchesName(target: ProxyRule['target'], name: string): boolean {
  if (target.kind === 'any') return true
  if (target.kind === 'name') return name === target.name
  return target.kind === 'below' && name.endsWith(target.name)
}
