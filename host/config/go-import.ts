/**
 * Makes the configurations of a server and its client from those of a Go kcptun: what has a counterpart is taken over,
 * everything else is named with the reason. The two programs do not understand each other (docs/migration.md).
 */

import { generatePsk } from '../crypto/key.ts'
import { ConfigError, HIDDEN, quote } from '../errors.ts'
import { type HostPort, ipFamily, parseHostPort } from '../net/address.ts'
import { parseUnix, unixText } from '../net/unix-path.ts'
import { GO_WITHOUT } from './foreign-keys.ts'
import { bindAddress, formatHostPort, SCHEMA_URL, type Written } from './generate.ts'
import type { GoEnd, GoRole } from './go-settings.ts'
import { MTU_TOP } from './mtu.ts'

/** What the files of the Go kcptun leave open, or replaces what they say. */
export interface GoWishes {
  /** The server as the client reaches it; without a port that of the server's `listen`. */
  readonly server: { readonly host: string; readonly port: number | undefined } | undefined
  /** Values of the keys. */
  readonly listen: string | undefined
  readonly connect: string | undefined
  /** Take over windows and the settings of `mode`, which are automatic otherwise. */
  readonly tuning: boolean
  /** A random psk in place of the passphrase. */
  readonly newKey: boolean
}

export interface GoPair {
  /** The content of each file. */
  readonly files: ReadonlyMap<GoRole, Written>
  /** The server as the client reaches it. */
  readonly server: HostPort
  readonly taken: readonly string[]
  readonly left: readonly string[]
}

/** The defaults of the Go kcptun. */
const DEFAULTS = { localaddr: ':12948', listen: ':29900', target: '127.0.0.1:12948', key: "it's a secrect" } as const
/** nodelay, interval, resend, nc. */
const MODES: ReadonlyMap<string, readonly number[]> = new Map([
  ['normal', [0, 40, 2, 1]],
  ['fast', [0, 30, 2, 1]],
  ['fast2', [1, 20, 2, 1]],
  ['fast3', [1, 10, 2, 1]],
])
const MANUAL = ['nodelay', 'interval', 'resend', 'nc'] as const
const RANGES: Readonly<Record<'sndwnd' | 'rcvwnd' | (typeof MANUAL)[number], readonly [number, number]>> = {
  sndwnd: [16, 65536],
  rcvwnd: [16, 65536],
  nodelay: [0, 2],
  interval: [10, 500],
  resend: [0, 100],
  nc: [0, 1],
}
/** Methods by the name of the cipher. The others are no AEADs that this program has. */
const METHODS: ReadonlyMap<string, string> = new Map(
  ['aes', 'aes-128', 'aes-192', 'aes-256', 'aes-128-gcm', 'aes-192-gcm', 'aes-256-gcm']
    .map((name) => [name, 'aes256gcm'] as [string, string])
    .concat([['salsa20', 'xsalsa20poly1305']])
    .concat(
      ['sm4', 'twofish', 'blowfish', 'cast5', '3des', 'tea', 'xtea', 'xor'].map((name) => [
        name,
        'xchacha20poly1305_ietf',
      ]),
    ),
)
const UNENCRYPTED = ['none', 'null']

/** The receive buffer without udp.rcvbuf, and its upper limit, in bytes. */
const RCVBUF_DEFAULT = 1 << 22
const SOCKBUF_MAX = 1 << 25
const MTU_MIN = 300
const UDP_HEADERS = { 4: 28, 6: 48 } as const
const LINGER_MIN_S = 5
const LINGER_MAX_S = 600
/** Limits of rate.up, Mbit/s, and of what becomes it, bytes per second. */
const RATE_MIN_MBIT = 0.008
const RATE_MAX_BYTES = 12_500_000_000

/** An address of the Go kcptun, which listens on both families without a host. @throws ConfigError */
function address(name: string, text: string, role: 'bind' | 'connect'): HostPort {
  const refuse = (reason: string): never => {
    throw new ConfigError(name, quote(text), reason)
  }
  if (/:\d+-\d+$/.test(text))
    refuse(
      'a range of ports: a tunnel has one here, choose one of them; to hop, write the range into kcp_connect (docs/operation.md)',
    )
  if (text.includes('/') || !text.includes(':')) refuse('must be host:port, or the absolute path of a Unix socket')
  const { host, port } = parseHostPort(name, text, role)
  if (port === 0) refuse('the port must not be 0')
  return { host: role === 'bind' && text.startsWith(':') ? '::' : host, port }
}

/** Collects one file, and what became of each setting. */
class Import {
  readonly #end: GoEnd
  readonly #wishes: GoWishes
  readonly #taken: Set<string>
  readonly #left: Set<string>
  readonly kcp: Record<string, number> = {}
  readonly udp: Record<string, number> = {}
  readonly rate: Record<string, number> = {}
  readonly file: Record<string, number | string> = {}

  constructor(end: GoEnd, wishes: GoWishes, taken: Set<string>, left: Set<string>) {
    this.#end = end
    this.#wishes = wishes
    this.#taken = taken
    this.#left = left
  }

  text(name: string): string | undefined {
    const value = this.#end.settings.get(name)
    return typeof value === 'string' && value !== '' ? value : undefined
  }

  /** @throws ConfigError outside of the range */
  integer(name: string, minimum: number, maximum: number): number | undefined {
    const text = this.text(name)
    if (text === undefined) return undefined
    const value = Number(text)
    if (value >= minimum && value <= maximum) return value
    throw new ConfigError(name, text, `must be an integer from ${minimum} to ${maximum}`)
  }

  take(name: string, becomes: string): void {
    this.#taken.add(`${name} ${this.#end.settings.get(name)} -> ${becomes}`)
  }

  leave(name: string, why: string): void {
    const value = this.#end.settings.get(name)
    this.#left.add(`${name}${value === true || value === undefined ? '' : ` ${value}`}: ${why}`)
  }

  /** @param server as the client reaches it */
  collect(server: HostPort): void {
    this.#mtu(server)
    this.#tuning()
    this.#socketBuffer()
    this.#times()
    this.#rate()
    const dscp = this.integer('dscp', 0, 63)
    if (dscp !== undefined && dscp > 0) {
      this.file['dscp'] = dscp
      this.take('dscp', 'dscp')
    }
    const log = this.text('log')
    if (log !== undefined) {
      this.file['log'] = `file:${log}`
      this.take('log', `log file:${log}, for this end only`)
    }
    this.#nameOthers()
  }

  #mtu({ host }: HostPort): void {
    const family = ipFamily(host) === 6 ? 6 : 4
    const headers = UDP_HEADERS[family]
    const payload = this.integer('mtu', MTU_MIN - headers, MTU_TOP)
    if (payload === undefined) return
    const packet = Math.min(payload + headers, MTU_TOP)
    this.kcp['mtu'] = packet
    this.take('mtu', `kcp.mtu ${packet}, which counts the IP packet; remove it to let it be found`)
  }

  #tuning(): void {
    const { tuning } = this.#wishes
    const set = (name: keyof typeof RANGES): void => {
      const value = tuning ? this.integer(name, ...RANGES[name]) : undefined
      if (value !== undefined) this.kcp[name] = value
      if (value !== undefined) this.take(name, `kcp.${name}`)
      else if (this.text(name) !== undefined) this.leave(name, `chosen automatically (--tuning sets kcp.${name})`)
    }
    set('sndwnd')
    set('rcvwnd')
    const mode = this.text('mode')
    const preset = mode === undefined ? undefined : MODES.get(mode)
    if (mode !== undefined && preset === undefined && mode !== 'manual') {
      const reason = `unknown mode, must be one of ${[...MODES.keys()].join(', ')}, manual`
      throw new ConfigError('mode', quote(mode), reason)
    }
    if (preset === undefined) {
      for (const name of MANUAL) set(name)
      return
    }
    // Go ignores nodelay and the others then
    if (!tuning) {
      this.leave('mode', 'retransmission and flush are controlled automatically (--tuning sets them)')
      return
    }
    MANUAL.forEach((name, index) => {
      this.kcp[name] = preset[index] ?? 0
    })
    this.take('mode', MANUAL.map((name) => `kcp.${name} ${this.kcp[name]}`).join(', '))
  }

  #socketBuffer(): void {
    const bytes = this.integer('sockbuf', 0, SOCKBUF_MAX)
    if (bytes === undefined) return
    if (bytes <= RCVBUF_DEFAULT && !this.#wishes.tuning) {
      this.leave('sockbuf', 'the receive buffer is 4 MiB anyway (--tuning sets udp.rcvbuf and udp.sndbuf)')
      return
    }
    Object.assign(this.udp, { rcvbuf: bytes, sndbuf: bytes })
    this.take('sockbuf', 'udp.rcvbuf, udp.sndbuf')
  }

  #rate(): void {
    const bytes = this.integer('ratelimit', 0, RATE_MAX_BYTES)
    if (bytes === undefined || bytes === 0) return
    const up = Math.max(RATE_MIN_MBIT, Math.round((8 * bytes) / 1000) / 1000)
    this.rate['up'] = up
    this.take('ratelimit', `rate.up ${up}, which counts payload, in Mbit/s`)
  }

  #times(): void {
    const keepalive = this.integer('keepalive', 0, 600)
    if (keepalive !== undefined && this.#end.role === 'server') {
      this.leave('keepalive', 'only the client sends pings (keepalive in its file)')
    } else if (keepalive !== undefined) {
      this.file['keepalive'] = keepalive
      this.take('keepalive', 'keepalive')
    }
    const closewait = this.integer('closewait', 0, LINGER_MAX_S)
    if (closewait === undefined || closewait === 0) return
    if (closewait < LINGER_MIN_S) {
      this.leave('closewait', `linger is at least ${LINGER_MIN_S} s`)
      return
    }
    this.file['linger'] = closewait
    this.take('closewait', 'linger')
  }

  #nameOthers(): void {
    for (const [name, why] of GO_WITHOUT) {
      const value = this.#end.settings.get(name)
      // not in use there
      if (value === undefined || value === false || value === '' || value === '0') continue
      if ((name === 'QPPCount' && !this.#isOn('QPP')) || (name === 'snmpperiod' && !this.text('snmplog'))) continue
      this.leave(name, why)
    }
    if (!this.#isOn('nocomp')) this.leave('compression (nocomp is not set)', 'there is none')
    if (this.#isOn('tcp')) this.leave('tcp', 'obfs sends TCP packets, on Linux, and needs rights and a firewall rule')
    if (this.#isOn('quiet')) this.leave('quiet', 'single connections are not logged by default (loglevel)')
    for (const key of this.#end.unknown) this.#left.add(`${key}: unknown`)
  }

  #isOn(name: string): boolean {
    return this.#end.settings.get(name) === true
  }
}

/** A setting of both ends that must be the same. @throws ConfigError */
function common(ends: readonly GoEnd[], name: 'crypt' | 'key'): string | undefined {
  const values = ends.map(({ settings }) => settings.get(name)).filter((value) => typeof value === 'string')
  const [value] = values
  if (values.every((other) => other === value)) return value
  const reason = 'differs between client and server, which cannot reach each other with it'
  throw new ConfigError(name, name === 'key' ? HIDDEN : values.map(quote).join(' and '), reason)
}

/** Method and key of both files. */
function security(ends: readonly GoEnd[], { newKey }: GoWishes, taken: Set<string>, left: Set<string>): Written {
  const crypt = common(ends, 'crypt')
  if (crypt !== undefined && UNENCRYPTED.includes(crypt)) {
    taken.add(`crypt ${crypt} -> no method: nothing is encrypted or authenticated`)
    if (ends.some(({ settings }) => settings.has('key'))) left.add('key: without a method there is none')
    return {}
  }
  const method = METHODS.get(crypt ?? 'aes')
  if (method === undefined) {
    const known = [...METHODS.keys(), ...UNENCRYPTED].join(', ')
    throw new ConfigError('crypt', quote(crypt ?? ''), `unknown cipher, must be one of ${known}`)
  }
  taken.add(crypt === undefined ? `the default crypt aes -> method ${method}` : `crypt ${crypt} -> method ${method}`)
  if (newKey) {
    left.add('key: a random psk replaces it (--new-key)')
    return { method, psk: generatePsk() }
  }
  const key = common(ends, 'key')
  if (key === undefined || key === '' || key === DEFAULTS.key) {
    left.add('key: it is the default of the Go kcptun, which is public; a random psk replaces it')
    return { method, psk: generatePsk() }
  }
  taken.add('key -> password, which is stretched very little: --new-key makes a random psk instead')
  return { method, password: key }
}

/** What is not in the files: names of the options for it. */
export function missingWishes(ends: readonly GoEnd[], wishes: GoWishes): readonly ('server' | 'listen' | 'connect')[] {
  const has = (role: GoRole): boolean => ends.some((end) => end.role === role)
  const client = ends.find(({ role }) => role === 'client')
  return [
    ...(wishes.server === undefined && client?.settings.get('remoteaddr') === undefined ? (['server'] as const) : []),
    ...(wishes.listen === undefined && !has('client') ? (['listen'] as const) : []),
    ...(wishes.connect === undefined && !has('server') ? (['connect'] as const) : []),
  ]
}

/** The setting of an end as text, or the default. */
const textOf = (end: GoEnd | undefined, name: string, preset: string): string => {
  const value = end?.settings.get(name)
  return typeof value === 'string' && value !== '' ? value : preset
}

interface Places {
  readonly server: HostPort
  readonly kcpBind: string
  readonly listen: string
  readonly connect: string
}

/** All addresses. @throws ConfigError */
function places(client: GoEnd | undefined, server: GoEnd | undefined, wishes: GoWishes, taken: Set<string>): Places {
  /** `given`, or the setting. */
  const local = (
    given: string | undefined,
    end: GoEnd | undefined,
    name: 'localaddr' | 'target',
    key: string,
  ): string => {
    if (given !== undefined) return given
    const text = textOf(end, name, DEFAULTS[name])
    // the Go kcptun takes a path for a Unix socket
    const isPath = text.startsWith('/')
    const value = isPath
      ? unixText(parseUnix(key, unixText(text)))
      : formatHostPort(address(name, text, name === 'target' ? 'connect' : 'bind'))
    taken.add(`${name} ${text} -> ${key} ${value}`)
    return value
  }
  const listen = local(wishes.listen, client, 'localaddr', 'listen')
  const connect = local(wishes.connect, server, 'target', 'connect')
  const bound = server === undefined ? undefined : textOf(server, 'listen', DEFAULTS.listen)
  const bind = bound === undefined ? undefined : address('listen', bound, 'bind')
  const remote = wishes.server === undefined ? textOf(client, 'remoteaddr', '') : undefined
  const reached = remote === undefined ? undefined : address('remoteaddr', remote, 'connect')
  const host = wishes.server?.host ?? reached?.host ?? ''
  const port = wishes.server?.port ?? reached?.port ?? bind?.port
  const preset = parseHostPort('listen', DEFAULTS.listen, 'bind').port
  const meeting = { host, port: port ?? preset }
  if (remote !== undefined) taken.add(`remoteaddr ${remote} -> kcp_connect ${formatHostPort(meeting)}`)
  const kcpBind = bind === undefined ? bindAddress(meeting) : formatHostPort(bind)
  if (bound !== undefined) taken.add(`listen ${bound} -> kcp_bind ${kcpBind}`)
  return { server: meeting, kcpBind, listen, connect }
}

const filled = (name: string, values: Readonly<Record<string, number>>): Written =>
  Object.keys(values).length === 0 ? {} : { [name]: values }

/**
 * The pair of configurations for one end of a Go kcptun, or for both. What `missingWishes` names must be given.
 * @throws ConfigError that does not contain the key
 */
export function importGo(ends: readonly GoEnd[], wishes: GoWishes): GoPair {
  const [client, server] = (['client', 'server'] as const).map((role) => ends.find((end) => end.role === role))
  const taken = new Set<string>()
  const left = new Set<string>()
  const where = places(client, server, wishes, taken)
  const shared = security(ends, wishes, taken, left)
  const imports = new Map<GoRole, Import>()
  for (const end of ends) {
    const one = new Import(end, wishes, taken, left)
    one.collect(where.server)
    imports.set(end.role, one)
  }
  const written = (role: GoRole, addresses: Written): [GoRole, Written] => {
    const own = imports.get(role)
    const mtu = own?.kcp['mtu'] ?? [...imports.values()][0]?.kcp['mtu']
    const kcp = { ...(mtu === undefined ? {} : { mtu }), ...own?.kcp }
    const content = {
      $schema: SCHEMA_URL,
      ...addresses,
      ...shared,
      ...filled('kcp', kcp),
      ...filled('udp', own?.udp ?? {}),
      ...filled('rate', own?.rate ?? {}),
    }
    return [role, { ...content, ...own?.file }]
  }
  const address = formatHostPort(where.server)
  return {
    files: new Map([
      written('server', { kcp_bind: where.kcpBind, connect: where.connect }),
      written('client', { listen: where.listen, kcp_connect: address }),
    ]),
    server: where.server,
    taken: [...taken],
    left: [...left],
  }
}
