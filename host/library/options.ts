/** From the options of clients and servers to a configuration: the same schema, rules and errors as for a file. */

import { type Config, MODE_CLIENT, MODE_SERVER } from '../config/config.ts'
import { readJson } from '../config/json.ts'
import { parseConfig } from '../config/load.ts'
import { assertStartable } from '../config/security.ts'
import { didYouMean, examine, KEYS } from '../config/unknown-keys.ts'
import { DEFAULT_METHOD, methods } from '../crypto/methods.ts'
import { ConfigError, HIDDEN, messageOf, quote } from '../errors.ts'
import type { ClientOptions, CommonOptions, ServerOptions } from './api.ts'
import { mtuOf } from './custom-transport.ts'

/** Selects the mode. Nothing listens or connects there. */
const UNUSED = '127.0.0.1:0'
/** In place of addresses that a custom transport does not have. */
const NOWHERE = '[fc00::]:1'

/** Options that are no configuration keys. */
const OWN = ['server', 'bind', 'logger', 'signal', 'transport'] as const
/** Configuration keys under another name here. */
const RENAMED = new Map([
  ['kcp_connect', 'server'],
  ['kcp_bind', 'bind'],
])
/** Configuration keys without meaning here, and why. */
const REFUSED = new Map([
  ['listen', 'streams are opened by connect() and open(): use createTunnel for TCP'],
  ['connect', 'streams are served by the handler: use createTunnel for TCP'],
  ['udp_listen', 'streams carry bytes: use createTunnel for UDP'],
  ['udp_connect', 'streams carry bytes: use createTunnel for UDP'],
  ['udp_timeout', 'is for udp_listen and udp_connect'],
  ['listen_mode', 'there is no listener'],
  ['proxy_protocol', 'is for TCP connections: use createTunnel'],
  ['proxy_protocol_from', 'is for TCP connections: use createTunnel'],
  ['proxy_rules', 'streams are served by the handler'],
  ['proxy_users', 'streams are served by the handler'],
  ['kcp_connect', 'is the option server'],
  ['kcp_bind', 'is the option bind'],
  ['tcp', 'there are no TCP connections'],
  ['log', 'is the option logger'],
  ['user', 'is for the program'],
  ['workers', 'is for the program'],
])
/** Options that conflict with a custom transport. */
const SOCKET_KEYS = ['server', 'bind', 'rendezvous_server', 'netdev', 'fwmark', 'dscp', 'obfs', 'udp'] as const

type AnyOptions = Partial<ClientOptions & ServerOptions>

/** The value of an option for messages. */
const shown = (value: unknown): string =>
  typeof value === 'string' ? quote(value) : Array.isArray(value) ? '[...]' : String(value)

function checkNames(options: Readonly<Record<string, unknown>>, isClient: boolean): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue
    const reason =
      isClient || (name !== 'server' && name !== 'strategy' && name !== 'when_down')
        ? REFUSED.get(name)
        : 'is an option of clients'
    if (reason !== undefined) throw new ConfigError(name, '', reason)
  }
}

function checkTransport(options: AnyOptions): void {
  for (const name of options.transport === undefined ? [] : SOCKET_KEYS) {
    if (options[name] !== undefined) throw new ConfigError(name, shown(options[name]), 'conflicts with transport')
  }
}

/** @throws ConfigError for the first unknown key */
function checkUnknown(document: Uint8Array): void {
  const [unknown] = examine(readJson(document)).unknown
  if (unknown === undefined) return
  const meant = didYouMean(unknown)
  const name = meant === undefined ? undefined : (RENAMED.get(meant) ?? meant)
  throw new ConfigError(unknown, '', `unknown option${name === undefined ? '' : `, did you mean ${name}?`}`)
}

/** A key that encrypts nothing, or no key, is an oversight. */
function checkKey(options: AnyOptions): void {
  const name = (['psk', 'password', 'keys'] as const).find((each) => options[each] !== undefined)
  const { method } = options
  if (method === null && name !== undefined) throw new ConfigError(name, HIDDEN, 'has no use with method null')
  if (method !== null && name === undefined)
    throw new ConfigError('psk', '', 'psk or password (or keys) is required; with method null nothing is encrypted')
}

function addressKeys(options: AnyOptions, isClient: boolean): object {
  const { server, bind, transport } = options
  if (transport !== undefined) return isClient ? { kcp_connect: NOWHERE } : { kcp_bind: NOWHERE }
  return { kcp_connect: server, kcp_bind: bind }
}

/** Throws an error again that names the option, where it names a configuration key. */
export function rethrow(error: unknown): never {
  const name = error instanceof ConfigError ? RENAMED.get(error.key) : undefined
  if (name === undefined) throw error
  const { value, reason } = error as ConfigError
  throw new ConfigError(name, value, reason)
}

/** Runs a check; errors name the options. */
function naming<Result>(check: () => Result): Result {
  try {
    return check()
  } catch (error) {
    return rethrow(error)
  }
}

/** Members of the options that are objects of the application. */
const METHODS = new Map<'logger' | 'signal' | 'transport', readonly string[]>([
  ['logger', ['error', 'warn', 'info', 'debug']],
  ['signal', ['addEventListener', 'removeEventListener']],
  ['transport', ['open', 'send', 'close']],
])

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null

/**
 * Checks what is no configuration: the options themselves, and the objects in them.
 * @throws ConfigError
 */
export function checkObjects(options: AnyOptions): void {
  if (!isObject(options)) throw new ConfigError('options', '', 'must be an object')
  for (const [name, methods] of METHODS) {
    const value: unknown = options[name]
    if (value === undefined) continue
    const hasAll =
      isObject(value) && methods.every((method) => typeof (value as Record<string, unknown>)[method] === 'function')
    if (!hasAll) throw new ConfigError(name, '', `must be an object with the methods ${methods.join(', ')}`)
  }
}

/** @throws ConfigError */
export function checkTunnel(options: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || name === 'config' || name === 'logger' || name === 'signal') continue
    const reason = KEYS.includes(name) || OWN.some((own) => own === name) ? 'belongs into config' : 'unknown option'
    throw new ConfigError(name, '', reason)
  }
  const { config } = options
  if (typeof config !== 'string' && !isObject(config))
    throw new ConfigError('config', '', 'must be the name of a file, its bytes, or an object')
}

/** Values that JSON does not have become text, which the schema rejects. */
const asJson = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' || typeof value === 'function' || typeof value === 'symbol' ? String(value) : value

/** JSON of options. @throws ConfigError */
export function toDocument(value: unknown): Uint8Array {
  try {
    return new TextEncoder().encode(JSON.stringify(value, asJson))
  } catch (error) {
    // a circular reference
    throw new ConfigError('options', '', messageOf(error))
  }
}

function configOf(options: AnyOptions, isClient: boolean): Config {
  checkNames(options as Record<string, unknown>, isClient)
  checkTransport(options)
  const keys = Object.entries(options).filter(([name]) => !(OWN as readonly string[]).includes(name))
  const { method = DEFAULT_METHOD, kcp, transport } = options
  const given = {
    ...Object.fromEntries(keys),
    ...addressKeys(options, isClient),
    ...(isClient ? { listen: UNUSED } : { connect: UNUSED }),
    // null: no encryption, and no key
    method: method ?? undefined,
  }
  const document = toDocument(given)
  checkUnknown(document)
  checkKey(options)
  const config = naming(() => parseConfig(document))
  assertStartable(config, methods)
  if (config.when_down === 'close') throw new ConfigError('when_down', '"close"', 'must be hold or reset')
  const own = { ...config, listen: undefined, connect: undefined, mode: isClient ? MODE_CLIENT : MODE_SERVER }
  if (config.rendezvous_server !== undefined) own.mode = config.mode
  if (transport === undefined) return own
  return { ...own, kcp: { ...own.kcp, mtu: mtuOf(transport, kcp?.mtu) } }
}

/** @throws ConfigError */
export const clientConfig = (options: ClientOptions): Config => configOf(options, true)

/** @throws ConfigError */
export const serverConfig = (options: ServerOptions): Config => configOf(options, false)

/** The options that both ends have. */
export type { CommonOptions }
