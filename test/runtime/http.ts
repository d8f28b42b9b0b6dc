/** HTTP of an adapter. */
import { connect } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { HttpServer } from '../../host/runtime.ts'
import { waitFor, within } from '../tools/wait.ts'
import { LOCALHOST, type Subject } from './conformance.ts'

const SHORT_LIMIT_MS = 500
/** Bun closes a slow head after 12 s whatever one asks for. */
const PATIENCE_MS = 40_000

export function httpConformance({ runtime, serveHttp }: Subject): void {
  const test = suite(`${runtime.name}: HTTP`)
  const servers: HttpServer[] = []
  const seen: string[] = []

  async function serve(limitMs?: number): Promise<HttpServer> {
    const answer = async (request: Request): Promise<Response> => {
      const { pathname, searchParams } = new URL(request.url)
      seen.push(`${request.method} ${pathname}`)
      if (pathname === '/never') return new Promise(() => {})
      if (pathname === '/broken') throw new Error('a bug')
      return new Response(`${request.method} ${pathname} ${searchParams.get('q')}`, {
        status: pathname === '/missing' ? 404 : 200,
        headers: { 'X-Test': 'yes', 'Content-Type': 'text/plain; charset=utf-8' },
      })
    }
    const server = await (limitMs === undefined
      ? runtime.serveHttp(LOCALHOST, answer)
      : serveHttp(LOCALHOST, answer, limitMs))
    servers.push(server)
    seen.length = 0
    return server
  }

  /** Sends `text` and waits for the close. Result: all that came. */
  function exchange(server: HttpServer, text: string, patienceMs = PATIENCE_MS): Promise<string> {
    const done = new Promise<string>((resolve) => {
      let answer = ''
      const socket = connect({ port: server.local.port, host: '127.0.0.1', allowHalfOpen: true })
      socket.setEncoding('latin1').on('data', (chunk) => {
        answer += chunk
      })
      socket.on('connect', () => socket.write(text))
      socket.on('end', () => socket.end())
      socket.on('error', () => {})
      socket.on('close', () => resolve(answer))
    })
    return within('the close of an HTTP connection', patienceMs, done)
  }

  test.after.each(() => {
    for (const server of servers.splice(0)) server.close()
  })

  test('GET gets status, headers and body, and the connection is closed after it', async () => {
    const server = await serve()
    const answer = await exchange(
      server,
      'GET /stats?q=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n',
    )
    assert.match(answer, /^HTTP\/1\.1 200 /)
    assert.match(answer, /\r\nx-test: yes\r\n/i)
    assert.match(answer, /\r\ncontent-type: text\/plain; ?charset=utf-8\r\n/i)
    assert.match(answer, /\r\nconnection: close\r\n/i)
    assert.match(answer, /GET \/stats 1/)
    assert.is(answer.split('HTTP/1.1 ').length, 2, 'one answer')
    assert.match(await exchange(server, 'GET /missing HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 404 /)
  })

  test('HEAD gets the headers, POST its answer', async () => {
    const server = await serve()
    const head = await exchange(server, 'HEAD /stats HTTP/1.1\r\nHost: a\r\n\r\n')
    assert.match(head, /^HTTP\/1\.1 200 /)
    assert.match(head, /\r\nx-test: yes\r\n/i)
    const post = await exchange(server, 'POST /stats HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
    assert.match(post, /POST \/stats null/)
    assert.equal(seen, ['HEAD /stats', 'POST /stats'])
  })

  test('a head above 4 KiB is cut and reaches no handler, one of 3 KiB does', async () => {
    const server = await serve()
    const request = (bytes: number): string => `GET /big HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(bytes)}\r\n\r\n`
    assert.match(await exchange(server, request(3000)), /^HTTP\/1\.1 200 /)
    for (const bytes of [4200, 20_000, 200_000]) {
      assert.not.match(await exchange(server, request(bytes)), /^HTTP\/1\.1 200 /)
    }
    assert.equal(seen, ['GET /big'])
  })

  test('a request that does not come to its end is cut, a silent connection too', async () => {
    const server = await serve(SHORT_LIMIT_MS)
    const answers = await Promise.all([exchange(server, 'GET /slow HTTP/1.1\r\nHo'), exchange(server, '')])
    for (const answer of answers) assert.not.match(answer, /^HTTP\/1\.1 200 /)
    assert.equal(seen, [])
  })

  test('a handler that throws gives 500, and the server goes on', async () => {
    const server = await serve()
    const { error } = console
    // the runtimes report it there
    console.error = () => {}
    try {
      assert.match(await exchange(server, 'GET /broken HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 500 /)
    } finally {
      console.error = error
    }
    assert.match(await exchange(server, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 200 /)
  })

  test('close() ends the connections and the port is free again', async () => {
    const server = await serve()
    let closed = false
    const busy = connect(server.local.port, '127.0.0.1')
    busy.on('connect', () => {
      busy.write('GET /never HTTP/1.1\r\nHost: a\r\n\r\n')
    })
    busy.on('close', () => {
      closed = true
    })
    busy.on('error', () => {})
    busy.resume()
    await waitFor('its request', () => seen.includes('GET /never'))
    server.close()
    await waitFor('its end', () => closed)
    const again = await runtime.serveHttp(server.local, () => new Response('again'))
    servers.push(again)
    assert.match(await exchange(again, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'), /again/)
  })

  test('a taken port rejects with EADDRINUSE', async () => {
    const server = await serve()
    const code = await runtime
      .serveHttp(server.local, () => new Response('second'))
      .then(
        (second) => {
          servers.push(second)
          return 'opened'
        },
        (error: NodeJS.ErrnoException) => error.code,
      )
    assert.is(code, 'EADDRINUSE')
  })

  test.run()
}
