/**
 * Socket addresses in the spelling of Node's and Bun's calls, for the adapters. Link-local IPv6 addresses name their
 * interface on POSIX systems and number it on Windows; the rest of the host uses only the number. Configured addresses
 * and the engine's records are in address.ts.
 */

import { type SystemError, systemError, toError } from '../errors.ts'
import { formatAddress, ipFamily, type SocketAddress } from './address.ts'

/** Peers cached by one UDP socket; when full, the cache is cleared. */
const PEER_CACHE_ENTRIES = 1024

/** Prefix of IPv4-mapped addresses (RFC 4291, section 2.5.5.2). */
const MAPPED = '::ffff:'

/** fe80::/10 (RFC 4291, section 2.5.6). */
const LINK_LOCAL = /^fe[89ab][0-9a-f]:/i

/** The IPv4 address of a mapped one; any other address itself. */
export const unmapped = (address: SocketAddress): SocketAddress =>
  address.family === 6 && isIpv4(address)
    ? { ...address, family: 4, address: address.address.slice(MAPPED.length) }
    : address

type IpAddress = Omit<SocketAddress, 'port'>

/** Whether packets to an address are IPv4 packets. */
export const isIpv4 = ({ family, address }: IpAddress): boolean => family === 4 || address.startsWith(MAPPED)

/** The part of os.networkInterfaces() used here. */
export type Interfaces = () => {
  readonly [name: string]: readonly { readonly family: string; readonly scopeid?: number }[] | undefined
}

/** Converts the error of a call; adds a message in Node's style where Bun's names neither code nor port. */
export function explained(syscall: string, address: SocketAddress, reason: unknown): SystemError {
  const error = toError(reason)
  if (error.code === undefined || error.message.includes(error.code)) return error
  return systemError(error.code, `${syscall} ${formatAddress(address)}`, syscall)
}

/** Reads and writes addresses in the runtime's spelling. */
export class AddressSpelling {
  readonly #interfaces: Interfaces
  readonly #numericZones: boolean

  /** `numericZones`: the runtime's calls expect the scope id as a number (Windows). */
  constructor(interfaces: Interfaces, numericZones: boolean) {
    this.#interfaces = interfaces
    this.#numericZones = numericZones
  }

  /**
   * Parses an IP literal with an optional `%zone`.
   * @returns null if `text` is not an IP literal or its zone is not an interface
   */
  parse(text: string): IpAddress | null {
    const percent = text.indexOf('%')
    const address = percent < 0 ? text : text.slice(0, percent)
    const family = ipFamily(address)
    if (family === 0) return null
    if (percent < 0) return { family, address, scope: 0 }
    const scope = family === 6 ? this.#scopeOf(text.slice(percent + 1)) : 0
    return scope === 0 ? null : { family, address, scope }
  }

  /**
   * Converts an address and port that the runtime reports. An unknown zone (the interface is gone) gives scope 0.
   * `scope` is that of the socket; link-local addresses get it if the runtime reports no zone.
   */
  read(text: string, port: number, scope = 0): SocketAddress {
    const parsed = this.parse(text) ?? this.parse(text.split('%', 1)[0] ?? '')
    if (parsed === null) throw systemError('EINVAL', `not an IP address: ${text}`)
    return { ...parsed, port, scope: parsed.scope === 0 && LINK_LOCAL.test(text) ? scope : parsed.scope }
  }

  /** Spells an address for calls: the literal, with the zone if the scope is not 0 (RFC 4007, section 11). */
  write(address: IpAddress): string {
    return address.scope === 0 ? address.address : `${address.address}%${this.#zoneOf(address.scope)}`
  }

  /** Spells an address for a socket of one family: for an IPv6 socket, IPv4 addresses are mapped. */
  writeFor(family: 4 | 6, address: IpAddress): string {
    if (family === 6 && address.family === 4) return `${MAPPED}${address.address}`
    if (family === 4 && address.family === 6 && isIpv4(address)) return address.address.slice(MAPPED.length)
    return this.write(address)
  }

  #scopeOf(zone: string): number {
    if (/^[1-9]\d{0,8}$/.test(zone)) return Number(zone)
    for (const entry of this.#interfaces()[zone] ?? []) {
      if (entry.family === 'IPv6' && entry.scopeid) return entry.scopeid
    }
    return 0
  }

  #zoneOf(scope: number): string {
    if (this.#numericZones) return String(scope)
    for (const [name, entries] of Object.entries(this.#interfaces())) {
      if (entries?.some((entry) => entry.family === 'IPv6' && entry.scopeid === scope)) return name
    }
    return String(scope)
  }
}

interface Source {
  readonly text: string
  readonly address: SocketAddress
}

/** Cache of source addresses: a cached peer yields the same SocketAddress object each time. */
export class SourceCache {
  readonly #spelling: AddressSpelling
  readonly #scope: number
  readonly #mapped: boolean
  readonly #byPort = new Map<number, Source[]>()
  #last: Source | undefined
  #entries = 0

  /**
   * @param scope as in AddressSpelling.read
   * @param mapped addresses are IPv4, and returned as IPv4-mapped ones
   */
  constructor(spelling: AddressSpelling, scope: number, mapped = false) {
    this.#spelling = spelling
    this.#scope = scope
    this.#mapped = mapped
  }

  /** SocketAddress of the peer that the runtime reports as `text` and `port`. */
  get(text: string, port: number): SocketAddress {
    const last = this.#last
    if (last !== undefined && last.address.port === port && last.text === text) return last.address
    const source = this.#find(text, port) ?? this.#add(text, port)
    this.#last = source
    return source.address
  }

  #find(text: string, port: number): Source | undefined {
    const sources = this.#byPort.get(port)
    if (sources === undefined) return undefined
    for (const source of sources) if (source.text === text) return source
    return undefined
  }

  #add(text: string, port: number): Source {
    if (this.#entries === PEER_CACHE_ENTRIES) {
      this.#byPort.clear()
      this.#entries = 0
    }
    const address = this.#spelling.read(this.#mapped ? `${MAPPED}${text}` : text, port, this.#scope)
    const source: Source = { text, address }
    const sources = this.#byPort.get(port)
    if (sources === undefined) this.#byPort.set(port, [source])
    else sources.push(source)
    this.#entries += 1
    return source
  }
}

/** Cache of destination spellings, keyed by object identity: the driver reuses a few address objects. */
export class DestinationCache {
  readonly #spelling: AddressSpelling
  readonly #family: 4 | 6
  readonly #known = new WeakMap<SocketAddress, string>()
  #last: SocketAddress | undefined
  #text = ''

  constructor(spelling: AddressSpelling, family: 4 | 6) {
    this.#spelling = spelling
    this.#family = family
  }

  /** Spelling for a socket of this family. */
  get(to: SocketAddress): string {
    if (to === this.#last) return this.#text
    let text = this.#known.get(to)
    if (text === undefined) {
      text = this.#spelling.writeFor(this.#family, to)
      this.#known.set(to, text)
    }
    this.#last = to
    this.#text = text
    return text
  }
}
