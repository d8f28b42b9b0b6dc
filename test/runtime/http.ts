/** HTTP conformance of an adapter. */

import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { Hono } from 'hono'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NO_HOST_COUNTERS } from '../../host/driver/diagnostics.ts'
import { createHttpApp } from '../../host/monitoring/app.ts'
import { CONNECTIONS_MAX } from '../../host/monitoring/http-server.ts'
import { NO_COUNTERS } from '../../host/monitoring/stats.ts'
import type { HttpConnection, HttpServer } from '../../host/runtime.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { NO_LIVE } from '../host/live-source.ts'
import { LOCALHOST, type Subject } from './subject.ts'

const SHORT_LIMIT_MS = 500
const PATIENCE_MS = 40_000

interface Sample {
  readonly to: string
  readonly note: string
  readonly request: string
  readonly response: string
}

function parseAnswer(text: string): { status: string; headers: Map<string, string>; body: string } {
  const end = text.indexOf('\r\n\r\n')
  const [status = '', ...lines] = text.slice(0, Math.max(end, 0)).split('\r\n')
  const headers = new Map<string, string>()
  for (const line of lines) {
    const colon = line.indexOf(':')
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim())
  }
  return { status, headers, body: end < 0 ? '' : text.slice(end + 4) }
}

export function httpConformance({ runtime, serveHttp }: Subject): void {
  const test = suite(`${runtime.name}: HTTP`)
  const servers: HttpServer[] = []
  const seen: string[] = []
  const others: Socket[] = []

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

  /**
   * Sends `text` and waits for the connection to close.
   * @returns all received text
   */
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

  /** The monitoring application of a client in contact with its peer, over constant counters. */
  function application() {
    const start = { at: 0, uptime: 0, cpu: 0, date: new Date(), counters: NO_COUNTERS }
    const app = createHttpApp(
      {
        program: { name: 'NAME', version: '1', note: 'NOTE', runtime: 'node', runtimeVersion: '1', mode: 'client' },
        snapshot: () => ({ ...start, at: 1000, uptime: 1000 }),
        sessions: () => [],
        start,
        health: () => ({ client: true, pending: false, lastReceived: 0, silence: 79 }),
        hostCounters: () => ({ ...NO_HOST_COUNTERS }),
        listen: undefined,
        token: () => undefined,
        live: NO_LIVE,
      },
      Hono,
    )
    return (request: Request, target: string) => app.fetch(request, { target })
  }

  test.after.each(() => {
    for (const socket of others.splice(0)) socket.destroy()
    for (const server of servers.splice(0)) server.close()
  })

  test('GET returns status, headers and body, and the connection is closed after it', async () => {
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

  test('HEAD returns the headers, POST a response', async () => {
    const server = await serve()
    const head = await exchange(server, 'HEAD /stats HTTP/1.1\r\nHost: a\r\n\r\n')
    assert.match(head, /^HTTP\/1\.1 200 /)
    assert.match(head, /\r\nx-test: yes\r\n/i)
    const post = await exchange(server, 'POST /stats HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
    assert.match(post, /POST \/stats null/)
    assert.equal(seen, ['HEAD /stats', 'POST /stats'])
  })

  test('a head of 4095 bytes is served, a longer one is cut before any handler runs', async () => {
    const server = await serve()
    const request = (bytes: number): string => {
      const rest = 'GET /big HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n'
      return rest.replace('X: ', `X: ${'y'.repeat(bytes - rest.length)}`)
    }
    assert.match(await exchange(server, request(4095)), /^HTTP\/1\.1 200 /)
    for (const bytes of [4096, 4200, 20_000, 200_000]) assert.is(await exchange(server, request(bytes)), '')
    assert.equal(seen, ['GET /big'])
  })

  test('an incomplete request and a silent connection are cut after the limit', async () => {
    const server = await serve(SHORT_LIMIT_MS)
    const answers = await Promise.all([exchange(server, 'GET /slow HTTP/1.1\r\nHo'), exchange(server, '')])
    for (const answer of answers) assert.not.match(answer, /^HTTP\/1\.1 200 /)
    assert.equal(seen, [])
  })

  test('a handler that throws yields 500, and the server continues', async () => {
    const server = await serve()
    const { error } = console
    // the runtimes log the error there
    console.error = () => {}
    try {
      assert.match(await exchange(server, 'GET /broken HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 500 /)
    } finally {
      console.error = error
    }
    assert.match(await exchange(server, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 200 /)
  })

  test('MUST 75: the recorded requests yield the recorded status codes, headers and texts', async () => {
    const server = await runtime.serveHttp(LOCALHOST, application())
    servers.push(server)
    const { api } = JSON.parse(readFileSync('test/vectors/http_samples.json', 'utf8')) as { api: Sample[] }
    let compared = 0
    for (const { to, note, request, response } of api) {
      // requests that never end are cut by the limits (tested above); a server differs only in /healthy
      if (note.includes('timeout') || note.includes('too large') || to === 'server') continue
      const expected = parseAnswer(response)
      if (/GET \/healthy/.test(request) && note.includes('never heard')) continue
      const answer = parseAnswer(await exchange(server, request))
      const what = `${JSON.stringify(request)}: ${JSON.stringify(answer)}`
      assert.is(answer.status, expected.status, what)
      for (const [name, value] of expected.headers) {
        if (name === 'date')
          assert.match(answer.headers.get(name) ?? '', /^\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT$/, what)
        else assert.is(answer.headers.get(name), value, `${name} of ${what}`)
      }
      // HEAD has no body in HTTP; the figures of /stats are tested elsewhere
      const stats = expected.status.includes(' 200 ') && request.includes('/stats')
      if (!stats && !request.startsWith('HEAD')) assert.is(answer.body, expected.body, what)
      compared++
    }
    assert.ok(compared > 25, `${compared} requests`)
  })

  test('POST /stats has no Cache-Control, and a short response is not chunked', async () => {
    const server = await runtime.serveHttp(LOCALHOST, application())
    servers.push(server)
    const { headers, body } = parseAnswer(await exchange(server, 'POST /stats HTTP/1.1\r\nHost: x\r\n\r\n'))
    assert.is(headers.get('cache-control'), undefined)
    assert.is(headers.get('transfer-encoding'), undefined)
    assert.match(body, '[rx,tx] tcp: 0/s, 0/s;')
  })

  /** Opens connections that send `text` and stay open. */
  async function crowd(server: HttpServer, count: number, text: string): Promise<{ readonly ended: boolean[] }> {
    const ended = Array.from({ length: count }, () => false)
    for (const i of ended.keys()) {
      const socket = connect(server.local.port, '127.0.0.1')
      socket.on('error', () => {})
      socket.on('close', () => {
        ended[i] = true
      })
      socket.resume()
      others.push(socket)
      await new Promise((resolve) => socket.once('connect', resolve))
      socket.write(text)
    }
    return { ended }
  }

  test('at the connection limit the oldest idle connection is closed and the newest is served', async () => {
    const server = await serve()
    const busy = await crowd(server, 2, 'GET /never HTTP/1.1\r\nHost: a\r\n\r\n')
    await waitFor('their requests', () => seen.length === 2)
    // with half a request: Bun accepts no connection that sends nothing
    const idle = await crowd(server, CONNECTIONS_MAX, 'GET /slow HTTP/1.1\r\nHo')
    for (let i = 0; i < 5; i++) {
      assert.match(await exchange(server, 'GET /one HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 200 /)
    }
    await waitFor('the end of the oldest', () => idle.ended.slice(0, 2).every(Boolean))
    assert.equal(busy.ended, [false, false])
    assert.not(idle.ended.at(-1))
    assert.ok(idle.ended.filter((ended) => !ended).length <= CONNECTIONS_MAX)
  })

  test('a finished stream that is not read is cut like any other response', async () => {
    let ends = 0
    const answer = (_: Request, _target: string, connection: HttpConnection): Response => {
      connection.hold()
      const body = new ReadableStream({
        start(controller) {
          controller.enqueue(new Uint8Array(32 << 20))
          controller.close()
          connection.release?.()
        },
      })
      return new Response(body)
    }
    const server = await serveHttp(LOCALHOST, answer, SHORT_LIMIT_MS)
    servers.push(server)
    const socket = connect(server.local.port, '127.0.0.1')
    others.push(socket)
    socket.on('error', () => {})
    socket.on('close', () => ends++)
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    socket.pause()
    await new Promise((resolve) => setTimeout(resolve, 3 * SHORT_LIMIT_MS))
    socket.resume()
    await waitFor('the cut', () => ends === 1)
    assert.ok(socket.bytesRead < 32 << 20)
  })

  test('connections with unanswered requests do not block new ones, and streams stay open', async () => {
    const streams: boolean[] = []
    const answer = (_: Request, target: string, connection: HttpConnection): Response | Promise<Response> => {
      if (target === '/one') return new Response('served')
      if (target !== '/stream') return new Promise(() => {})
      connection.hold()
      assert.is(connection.remote?.replace('::ffff:', ''), '127.0.0.1')
      const i = streams.push(true) - 1
      const body = new ReadableStream({
        cancel() {
          streams[i] = false
        },
      })
      return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } })
    }
    const server = await runtime.serveHttp(LOCALHOST, answer)
    servers.push(server)
    await crowd(server, 2, 'GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
    await waitFor('the streams', () => streams.length === 2)
    await crowd(server, 2 * CONNECTIONS_MAX, 'GET /never HTTP/1.1\r\nHost: a\r\n\r\n')
    assert.match(await exchange(server, 'GET /one HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 200 /)
    assert.equal(streams, [true, true])
  })

  test('a long response arrives whole, and one that is not read is cut', async () => {
    const chunk = new Uint8Array(65536).fill(97)
    const answer = (chunks: number) => {
      let left = chunks
      return new Response(
        new ReadableStream({
          pull(controller) {
            if (left-- > 0) controller.enqueue(chunk)
            else controller.close()
          },
        }),
      )
    }
    const server = await serveHttp(LOCALHOST, () => answer(64), PATIENCE_MS)
    servers.push(server)
    const text = await exchange(server, 'GET / HTTP/1.0\r\n\r\n')
    assert.is(text.split('a'.repeat(65536)).length, 65)
    const short = await serveHttp(LOCALHOST, () => answer(Number.POSITIVE_INFINITY), SHORT_LIMIT_MS)
    servers.push(short)
    const socket = connect(short.local.port, '127.0.0.1')
    let closed = false
    socket.on('error', () => {})
    socket.on('close', () => {
      closed = true
    })
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    socket.pause()
    // the kernel's buffers fill, then nothing moves until the limit
    await new Promise((resolve) => setTimeout(resolve, 2 * SHORT_LIMIT_MS))
    socket.resume()
    await waitFor('the cut', () => closed)
  })

  test('a held response outlives the limit, waits for its reader, and ends with its connection', async () => {
    let skipped = 0
    let ended = 0
    const answer = (_: Request, target: string, connection: HttpConnection): Response => {
      if (target === '/held') connection.hold()
      let ticking: NodeJS.Timeout | undefined
      const chunk = new Uint8Array(target === '/held' ? 1 << 16 : 10)
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          ticking = setInterval(() => {
            if ((controller.desiredSize ?? 0) > 0) controller.enqueue(chunk)
            else skipped++
          }, 2)
        },
        cancel() {
          ended++
          clearInterval(ticking)
        },
      })
      return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } })
    }
    const server = await serveHttp(LOCALHOST, answer, SHORT_LIMIT_MS)
    servers.push(server)
    await exchange(server, 'GET /short HTTP/1.1\r\nHost: a\r\n\r\n')
    await waitFor('the end of the limited one', () => ended === 1)
    const begin = performance.now()
    const reader = connect(server.local.port, '127.0.0.1')
    let bytes = 0
    reader.on('error', () => {})
    reader.on('data', (data) => {
      bytes += data.length
    })
    reader.write('GET /held HTTP/1.1\r\nHost: a\r\n\r\n')
    await waitFor('bytes', () => bytes > 0)
    await waitFor('bytes after the limit', async () => {
      const before = bytes
      await new Promise((resolve) => setTimeout(resolve, 20))
      return performance.now() - begin > 2 * SHORT_LIMIT_MS && bytes > before
    })
    // the kernel's buffers fill, then chunks that cannot be sent are skipped
    reader.pause()
    skipped = 0
    await waitFor('the stream to feel it', () => skipped > 10)
    reader.resume()
    const before = bytes
    await waitFor('more bytes', () => bytes > before + (8 << 20))
    reader.destroy()
    await waitFor('the end of the held one', () => ended === 2)
  })

  test('close() ends the connections and frees the port', async () => {
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

  test('a port in use rejects with EADDRINUSE', async () => {
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
