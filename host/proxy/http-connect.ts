/** HTTP proxies (RFC 9110, 9.3.6): CONNECT alone, with Basic authentication (RFC 7617). */

import { isHost, MORE, type Protocol, type Refusal, type Step, type UserCheck } from './request.ts'

/** Longest request with its header fields. */
const LIMIT_BYTES = 8192
/** Most of a word of the client that is shown. */
const SHOWN_CHARS = 20
const LF = 0x0a
const CR = 0x0d
const COLON = 0x3a

const STATUS: Readonly<Record<Refusal, string>> = {
  malformed: '400 Bad Request',
  unsupported: '405 Method Not Allowed',
  unauthorized: '407 Proxy Authentication Required',
  denied: '403 Forbidden',
  refused: '502 Bad Gateway',
  'host unreachable': '502 Bad Gateway',
  'network unreachable': '502 Bad Gateway',
  timeout: '504 Gateway Timeout',
  failed: '502 Bad Gateway',
}
const TOO_LATE = '408 Request Timeout'
const TOO_LONG = '431 Request Header Fields Too Large'

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)

function response(status: string, text: string, field = ''): Uint8Array {
  const body = `${text}\n`
  return encode(
    `HTTP/1.1 ${status}\r\n${field}Content-Type: text/plain; charset=utf-8\r\nContent-Length: ${encode(body).length}\r\nConnection: close\r\n\r\n${body}`,
  )
}

/** Length of the header section with the empty line at its end; undefined: it is not there yet. */
function headerEnd(bytes: Uint8Array, from: number): number | undefined {
  for (let at = Math.max(0, from - 3); at < bytes.length; at++) {
    if (bytes[at] !== LF) continue
    const next = bytes[at + 1] === CR ? at + 2 : at + 1
    if (bytes[next] === LF) return next + 1
  }
  return undefined
}

/** Name and password of Basic credentials. */
function credentials(fields: readonly string[]): readonly [Uint8Array, Uint8Array] | undefined {
  const field = fields.find((line) => /^proxy-authorization:/i.test(line))
  const [, base64] = /^[^:]+:\s*basic\s+([\w+/]+=*)\s*$/i.exec(field ?? '') ?? []
  if (base64 === undefined) return undefined
  try {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
    const colon = bytes.indexOf(COLON)
    return colon < 0 ? undefined : [bytes.subarray(0, colon), bytes.subarray(colon + 1)]
  } catch {
    return undefined
  }
}

export class HttpConnect implements Protocol {
  readonly limit = LIMIT_BYTES
  readonly #isUser: UserCheck | undefined

  /** @param isUser undefined: user names are not asked for */
  constructor(isUser: UserCheck | undefined) {
    this.#isUser = isUser
  }

  next(bytes: Uint8Array, from: number): Step {
    const refuse = (why: Refusal, text: string, full?: Uint8Array): Step => ({
      kind: 'refuse',
      used: bytes.length,
      why,
      text,
      bytes: full ?? this.answer(why, text),
    })
    const first = bytes[0] ?? 0
    // such as a TLS or SOCKS client, which sends no line that could be waited for
    if (first < 0x41 || first > 0x5a) return refuse('malformed', 'not an HTTP request')
    const used = headerEnd(bytes, from)
    if (used === undefined) {
      const text = `the request is longer than ${LIMIT_BYTES} bytes`
      return bytes.length < LIMIT_BYTES ? MORE : refuse('malformed', text, response(TOO_LONG, text))
    }
    const [line = '', ...fields] = String.fromCharCode(...bytes.subarray(0, used)).split(/\r?\n/)
    const [, method = '', place = ''] = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(line) ?? []
    if (method === '') return refuse('malformed', 'not a request of HTTP/1.1')
    if (method !== 'CONNECT') {
      const text = `this proxy serves CONNECT only, not ${method.slice(0, SHOWN_CHARS)}: use it for https URLs, or make the client tunnel (curl --proxytunnel)`
      return refuse('unsupported', text, response(STATUS.unsupported, text, 'Allow: CONNECT\r\n'))
    }
    const given = credentials(fields)
    if (this.#isUser !== undefined && (given === undefined || !this.#isUser(...given))) {
      const text = given === undefined ? 'the client gives no user name' : 'wrong user name or password'
      return refuse('unauthorized', text)
    }
    const [, literal, name, digits = ''] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(place) ?? []
    const host = literal ?? name ?? ''
    const port = Number(digits)
    if (!isHost(host) || port < 1 || port > 65535) return refuse('malformed', 'the target must be host:port')
    return { kind: 'target', used, host, port }
  }

  answer(why: Refusal | undefined, text: string): Uint8Array {
    if (why === undefined) return encode('HTTP/1.1 200 Connection established\r\n\r\n')
    if (why === 'timeout' && text === '') return response(TOO_LATE, 'the request took too long')
    const field = why === 'unauthorized' ? 'Proxy-Authenticate: Basic realm="tunnel", charset="UTF-8"\r\n' : ''
    return response(STATUS[why], text, field)
  }
}
