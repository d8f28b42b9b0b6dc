/** SOCKS5 (RFC 1928) with user names (RFC 1929): CONNECT alone. */

import { isHost, MORE, type Protocol, type Refusal, type Step, type UserCheck } from './request.ts'

const VERSION = 5
const AUTH_VERSION = 1
const NO_AUTH = 0
const USER_NAME = 2
const NO_METHOD = 0xff
const CONNECT = 1
const IPV4 = 1
const NAME = 3
const IPV6 = 4
/** The longest message: user name and password. */
const LIMIT_BYTES = 3 + 2 * 255

/** Reply codes (RFC 1928, section 6). */
const CODES: Readonly<Record<Refusal, number>> = {
  malformed: 1,
  unsupported: 7,
  unauthorized: 2,
  denied: 2,
  'network unreachable': 3,
  'host unreachable': 4,
  refused: 5,
  timeout: 6,
  failed: 1,
}
const ADDRESS_TYPE_UNSUPPORTED = 8

/** A reply, whose bound address is that of no one. */
const reply = (code: number): Uint8Array => Uint8Array.of(VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0)

const malformed = (text: string): Step => ({
  kind: 'refuse',
  used: 0,
  why: 'malformed',
  text,
  bytes: new Uint8Array(0),
})

export class Socks5 implements Protocol {
  readonly limit = LIMIT_BYTES
  readonly #isUser: UserCheck | undefined
  #part: 'methods' | 'user' | 'request' = 'methods'

  /** @param isUser undefined: user names are not asked for */
  constructor(isUser: UserCheck | undefined) {
    this.#isUser = isUser
  }

  next(bytes: Uint8Array): Step {
    if (this.#part === 'methods') return this.#methods(bytes)
    return this.#part === 'user' ? this.#user(bytes) : request(bytes)
  }

  answer(why: Refusal | undefined): Uint8Array {
    // before the request there is no form for it
    if (why !== undefined && this.#part !== 'request') return new Uint8Array(0)
    return reply(why === undefined ? 0 : CODES[why])
  }

  #methods(bytes: Uint8Array): Step {
    const [version, count = 0] = bytes
    if (version !== VERSION) return malformed(`not SOCKS5: the first byte is ${version}`)
    if (bytes.length < 2 || bytes.length < 2 + count) return MORE
    const wanted = this.#isUser === undefined ? NO_AUTH : USER_NAME
    const used = 2 + count
    if (!bytes.subarray(2, used).includes(wanted)) {
      const text = this.#isUser === undefined ? 'the client insists on authentication' : 'the client gives no user name'
      return { kind: 'refuse', used, why: 'unauthorized', text, bytes: Uint8Array.of(VERSION, NO_METHOD) }
    }
    this.#part = wanted === NO_AUTH ? 'request' : 'user'
    return { kind: 'answer', used, bytes: Uint8Array.of(VERSION, wanted) }
  }

  #user(bytes: Uint8Array): Step {
    const [version, nameLength = 0] = bytes
    if (version !== AUTH_VERSION) return malformed(`not RFC 1929: version ${version}`)
    const passwordAt = 3 + nameLength
    const passwordLength = bytes[passwordAt - 1]
    if (bytes.length < 2 || passwordLength === undefined) return MORE
    const used = passwordAt + passwordLength
    if (bytes.length < used) return MORE
    const isKnown = this.#isUser?.(bytes.subarray(2, passwordAt - 1), bytes.subarray(passwordAt, used)) === true
    const answer = Uint8Array.of(AUTH_VERSION, isKnown ? 0 : 1)
    if (!isKnown)
      return { kind: 'refuse', used, why: 'unauthorized', text: 'wrong user name or password', bytes: answer }
    this.#part = 'request'
    return { kind: 'answer', used, bytes: answer }
  }
}

function request(bytes: Uint8Array): Step {
  const [version, command, , type] = bytes
  if (version !== VERSION) return malformed(`not a SOCKS5 request: version ${version}`)
  if (type === undefined) return MORE
  const at = type === NAME ? 5 : 4
  const length = type === IPV4 ? 4 : type === IPV6 ? 16 : bytes[4]
  if (type !== IPV4 && type !== IPV6 && type !== NAME) {
    const text = `address type ${type} is not supported`
    return { kind: 'refuse', used: bytes.length, why: 'unsupported', text, bytes: reply(ADDRESS_TYPE_UNSUPPORTED) }
  }
  const used = at + (length ?? 0) + 2
  if (length === undefined || bytes.length < used) return MORE
  const port = ((bytes[used - 2] ?? 0) << 8) | (bytes[used - 1] ?? 0)
  if (command !== CONNECT) {
    return { kind: 'refuse', used, why: 'unsupported', text: `command ${command} is not supported, only CONNECT` }
  }
  const host = hostOf(type, bytes.subarray(at, at + length))
  if (isHost(host) && port !== 0) return { kind: 'target', used, host, port }
  return { kind: 'refuse', used, why: 'failed', text: `no valid target: ${JSON.stringify(host)} port ${port}` }
}

function hostOf(type: number, bytes: Uint8Array): string {
  if (type === IPV4) return bytes.join('.')
  if (type === NAME) return String.fromCharCode(...bytes).replace(/^\[(.*)\]$/, '$1')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return Array.from({ length: 8 }, (_, group) => view.getUint16(2 * group).toString(16)).join(':')
}
