/** HTTP responses of the monitoring server: headers, error pages, bodies generated in steps. */

import type { Clock } from '../runtime.ts'

/** Maximum length of a body that is sent at once, UTF-16 units. */
const WHOLE_ANSWER = 65536
/** Title and text of the error pages, by status. */
const ERRORS = {
  400: ['Bad Request', 'Your browser sent a request that this server could not understand.'],
  401: ['Unauthorized', 'The bearer token (http_token in the configuration of this server) is missing or wrong.'],
  403: ['Forbidden', 'Requests from pages of other sites are not allowed.'],
  404: ['Not Found', 'The requested URL was not found on this server.'],
  405: ['Method Not Allowed', 'The requested method is not allowed for this URL.'],
  421: [
    'Misdirected Request',
    'This server does not accept this host name. Use its IP address, localhost, or the host in http_listen.',
  ],
  503: ['Service Unavailable', 'Event streams are not available on this connection.'],
} as const

/**
 * Browsers do not expose responses with these headers to pages of other sites. Needed because requests do not always
 * contain the origin.
 */
const NOT_FOR_OTHERS = { 'Cross-Origin-Resource-Policy': 'same-origin', 'X-Frame-Options': 'DENY' } as const

/** An error page (protocol.md 11). @param text in place of the usual one */
export function errorPage(status: keyof typeof ERRORS, text?: string): Response {
  const [title, usual] = ERRORS[status]
  const sentence = text ?? usual
  const name = `${status} ${title}`
  const body = `<HTML><HEAD><TITLE>${name}</TITLE></HEAD>\n<BODY><H1>${name}</H1>\n${sentence}\n</BODY></HTML>\n`
  const headers = new Headers({ Connection: 'close', 'Content-Type': 'text/html', ...NOT_FOR_OTHERS })
  if (status === 401) headers.set('WWW-Authenticate', 'Bearer')
  return new Response(body, { status, headers })
}

/** A response with the common headers. @param post whether it answers a POST, which omits Cache-Control */
export function page(body: string | ReadableStream<Uint8Array>, type: string, status = 200, post = false): Response {
  const headers = new Headers({
    Connection: 'close',
    'Content-Type': type,
    'X-Content-Type-Options': 'nosniff',
    ...NOT_FOR_OTHERS,
  })
  if (!post) headers.set('Cache-Control', 'no-store')
  return new Response(body, { status, headers })
}

/** A body generated from parts: a string if it is short, otherwise a stream that generates each part on demand. */
export function bodyOf(parts: Iterator<string, unknown>, clock: Clock): string | ReadableStream<Uint8Array> {
  let text = ''
  while (text.length < WHOLE_ANSWER) {
    const { value, done } = parts.next()
    if (done === true) return text
    // a step without output: let the event loop run before the next one
    if (value === '') break
    text += value
  }
  const encoder = new TextEncoder()
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      while (text === '') {
        // yield to the event loop
        await new Promise<void>((resolve) => clock.defer(resolve))
        const { value, done } = parts.next()
        if (done === true) {
          controller.close()
          return
        }
        text = String(value)
      }
      controller.enqueue(encoder.encode(text))
      text = ''
    },
  })
}
