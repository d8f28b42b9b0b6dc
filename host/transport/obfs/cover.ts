/**
 * The HTTP messages that cover a dpi/tcp-wnd tunnel (protocol.md 9.3): builds the request and the responses of a plain
 * nginx, and parses message heads. Pure; the connections are in cover-server.ts and cover-client.ts.
 */

/** Maximum length of a head, including its empty line, bytes. */
export const HEAD_BYTES = 4095

const PATH = '/generate_204'
const VERSION = 'HTTP/1.1'
const USER_AGENT =
  'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0.3112.32 Safari/537.36'

const CR = 0x0d
const LF = 0x0a

const REASONS = { 400: 'Bad Request', 404: 'Not Found' } as const

/** A header name (RFC 7230, section 3.2.6). */
const TOKEN = /^[!#$%&'*+.^`|~\w-]+$/
// biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern matches control characters
const CONTROL = /[\u0000-\u001f\u007f]/

/** Reaction of a server to a request: a response status, or close without a response. */
export type Reaction = 204 | keyof typeof REASONS | 'close'

/** The client's request. @param host the server, as formatAddress prints it */
export function requestText(host: string): string {
  return (
    `GET ${PATH} ${VERSION}\r\nHost: ${host}\r\nUser-Agent: ${USER_AGENT}\r\n` +
    'Accept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n'
  )
}

/** Splits the first line at its first two spaces; undefined without them or with a control character. */
function splitLine(line: string): readonly [string, string, string] | undefined {
  const first = line.indexOf(' ')
  const second = line.indexOf(' ', first + 1)
  if (first < 0 || second < 0 || CONTROL.test(line)) return undefined
  return [line.slice(0, first), line.slice(first + 1, second), line.slice(second + 1)]
}

const isHeader = (line: string): boolean => {
  const colon = line.indexOf(':')
  return colon > 0 && TOKEN.test(line.slice(0, colon))
}

/** First line and headers of a head without its empty line; undefined if a header is malformed. */
function linesOf(head: string): readonly string[] | undefined {
  const [first = '', ...headers] = head.split('\r\n')
  return headers.every(isHeader) ? [first, ...headers] : undefined
}

/** @returns the reaction to a complete request head, given without its empty line */
export function judgeRequest(head: string): Reaction {
  const line = splitLine(linesOf(head)?.[0] ?? '')
  if (line === undefined) return 'close'
  const [method, target, version] = line
  if (version !== VERSION) return 'close'
  if (method !== 'GET') return 400
  return target === PATH ? 204 : 404
}

/** Whether a complete response head, given without its empty line, is the expected 204. */
export function isNoContent(head: string): boolean {
  const line = splitLine(linesOf(head)?.[0] ?? '')
  return line !== undefined && line[0] === VERSION && line[1] === '204'
}

/** The response with a status, in the form that nginx sends. */
export function answerText(status: Exclude<Reaction, 'close'>, date: Date): string {
  const identity = `Server: nginx\r\nDate: ${date.toUTCString()}\r\n`
  if (status === 204) return `${VERSION} 204 No Content\r\n${identity}Connection: keep-alive\r\n\r\n`
  const name = `${status} ${REASONS[status]}`
  const body =
    `<html>\r\n<head><title>${name}</title></head>\r\n<body>\r\n<center><h1>${name}</h1></center>\r\n` +
    '<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n'
  return (
    `${VERSION} ${name}\r\n${identity}Content-Type: text/html\r\nContent-Length: ${body.length}\r\n` +
    `Connection: close\r\n\r\n${body}`
  )
}

/** Collects a message head from chunks. */
export class HeadReader {
  readonly #bytes = new Uint8Array(HEAD_BYTES)
  #length = 0

  /**
   * Adds received bytes.
   * @returns undefined while the head is incomplete; 'too long'; or the head as Latin-1 text without its empty line,
   *   with the number of bytes that follow it
   */
  read(chunk: Uint8Array): undefined | 'too long' | { readonly head: string; readonly rest: number } {
    const bytes = this.#bytes
    for (let at = 0; at < chunk.length; at++) {
      if (this.#length === HEAD_BYTES) return 'too long'
      bytes[this.#length++] = chunk[at] ?? 0
      const end = this.#length
      if (end < 4 || bytes[end - 1] !== LF || bytes[end - 2] !== CR || bytes[end - 3] !== LF || bytes[end - 4] !== CR)
        continue
      const head = String.fromCharCode(...bytes.subarray(0, end - 4))
      return { head, rest: chunk.length - at - 1 }
    }
    return undefined
  }
}
