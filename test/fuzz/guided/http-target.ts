/**
 * The monitoring server as a target: raw bytes of a connection, through the server of node:http, its limits and the routes.
 * The connections are streams in memory.
 */

import { channel } from 'node:diagnostics_channel'
import type { Server } from 'node:http'
import { Duplex } from 'node:stream'
import { Hono } from 'hono'
import { NO_HOST_COUNTERS } from '../../../host/driver/diagnostics.ts'
import { createHttpApp } from '../../../host/monitoring/app.ts'
import { NO_COUNTERS, type Snapshot } from '../../../host/monitoring/stats.ts'
import { serveHttp } from '../../../runtime-shared/http.ts'
import { utf8 } from '../../../testkit/sim/wire.ts'
import { NO_LIVE } from '../../host/live-source.ts'
import { fault } from '../pattern.ts'
import { hostCounters } from './coverage.ts'
import type { Subject, Target } from './loop.ts'

const STATUSES = new Set(['200', '400', '401', '403', '404', '405', '417', '421', '503'])
/** /ready without a peer, and /events when there is no room. */
const MAY_BE_503 = /ready|events/
const RESPONSE = /^HTTP\/1\.1 (\d{3}) [\w ]*\r\n(?:[A-Za-z-]+: [^\r\n]*\r\n)*\r\n/
/** What certainly gets an answer. */
const REQUEST =
  /^(?:GET|HEAD|PUT|DELETE) \/[\w/.?=&%-]* HTTP\/1\.1\r\nHost: [\w.]+\r\n(?:(?:Origin|Accept|Authorization|Sec-Fetch-Site|Accept-Encoding): [\w .:/]*\r\n)*\r\n$/
const TOKEN = 'token-of-the-test'
/** Turns of the event loop after which an answer must have begun. */
const TURNS_MAX = 30

const snapshot = (): Snapshot => ({ at: 1, uptime: 1, cpu: 0, date: new Date(0), counters: NO_COUNTERS })

function app(token: string | undefined) {
  return createHttpApp(
    {
      program: { name: 'NAME', version: '1', note: 'NOTE', runtime: 'node', runtimeVersion: '20', mode: 'client' },
      snapshot,
      sessions: () => [],
      start: snapshot(),
      health: () => ({ client: true, pending: false, lastReceived: undefined, silence: 79 }),
      hostCounters: () => NO_HOST_COUNTERS,
      listen: 'name.example:80',
      token: () => token,
      live: NO_LIVE,
    },
    Hono,
  )
}

/** The node:http server of serveHttp, which only a request shows. */
async function serverOf(token: string | undefined): Promise<Server> {
  const { fetch } = app(token)
  const http = await serveHttp({ family: 4, address: '127.0.0.1', port: 0, scope: 0 }, (request, target, connection) =>
    fetch(request, { target, connection }),
  )
  let server: Server | undefined
  const started = (message: unknown): void => {
    server = (message as { server: Server }).server
  }
  const requests = channel('http.server.request.start')
  requests.subscribe(started)
  await (await globalThis.fetch(`http://127.0.0.1:${http.local.port}/healthy`)).text()
  requests.unsubscribe(started)
  return server ?? fault('no HTTP server')
}

/** A connection whose client sends `bytes`. */
function connect(bytes: Uint8Array): { stream: Duplex; answer: () => string; isOver: () => boolean } {
  let answer = ''
  let isOver = false
  const stream = new Duplex({
    read() {},
    write(chunk: Uint8Array, _encoding, done) {
      answer += new TextDecoder('latin1').decode(chunk)
      done()
    },
    final(done) {
      isOver = true
      done()
    },
  })
  stream.on('close', () => {
    isOver = true
  })
  stream.on('error', () => {})
  stream.push(bytes)
  return { stream, answer: () => answer, isOver: () => isOver }
}

async function make(): Promise<Subject> {
  const servers = [await serverOf(undefined), await serverOf(TOKEN)] as const
  return {
    counters: hostCounters,
    async run(input) {
      // the first byte chooses whether a token is set
      const [first = 0] = input
      const bytes = input.subarray(1)
      const { stream, answer, isOver } = connect(bytes)
      servers[first & 1]?.emit('connection', stream)
      for (let turn = 0; turn < TURNS_MAX && !isOver(); turn++) {
        await new Promise((resolve) => setImmediate(resolve))
        // a stream of events goes on, and an incomplete request waits
        if (turn > 6 && (answer() !== '' || !REQUEST.test(new TextDecoder('latin1').decode(bytes)))) break
      }
      stream.destroy()
      await new Promise((resolve) => setImmediate(resolve))
      judge(new TextDecoder('latin1').decode(bytes), answer())
    },
  }
}

function judge(request: string, text: string): void {
  // an interim response of node:http
  const answer = text.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, '')
  if (answer === '') {
    if (request.length < 4000 && REQUEST.test(request)) fault('a good request got no answer')
    return
  }
  const [, status = ''] = RESPONSE.exec(answer) ?? fault(`a malformed response: ${answer.slice(0, 200)}`)
  if (!STATUSES.has(status)) fault(`status ${status}`)
  if (status === '503' && !MAY_BE_503.test(decodeURIComponent(request.replace(/%(?![\da-f]{2})|%[89a-f]./gi, ''))))
    fault('503 for another path')
}

const HEAD = 'Host: 127.0.0.1\r\n\r\n'
const SEEDS = [
  `\0GET /stats?sessions=all HTTP/1.1\r\n${HEAD}`,
  `\0POST /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc`,
  `\0GET / HTTP/1.1\r\nAccept-Encoding: gzip\r\nSec-Fetch-Site: none\r\n${HEAD}`,
  `\x01GET /ready HTTP/1.0\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`,
  `\0GET /metrics HTTP/1.1\r\nOrigin: http://evil\r\n${HEAD}`,
  `\0GET /stats.json HTTP/1.1\r\nTransfer-Encoding: chunked\r\n${HEAD}2\r\nab\r\n0\r\n\r\n`,
  `\x01GET http://h/healthy HTTP/1.1\r\nExpect: 100-continue\r\n${HEAD}`,
  `\0GET /events HTTP/1.1\r\n${HEAD}`,
]
const WORDS = `GET|HEAD|POST|PUT|OPTIONS|CONNECT|/|//|/stats|/stats.json|/ready|/healthy|/metrics|/events|?sessions=|&nobanner|%2f|%00|%|#| HTTP/1.1\r\n| HTTP/1.0\r\n| HTTP/2.0\r\n|\r\n|\r\n\r\n|Host: |localhost|[::1]:80|name.example|Origin: |Authorization: Bearer |${TOKEN}|Accept-Encoding: gzip\r\n|Sec-Fetch-Site: cross-site\r\n|Content-Length: |Transfer-Encoding: chunked\r\n|Upgrade: websocket\r\nConnection: upgrade\r\n|Expect: 100-continue\r\n|x-kcptun-page: 1\r\n`

export const HTTP_TARGET: Target = {
  name: 'http',
  seeds: SEEDS.map(utf8),
  dictionary: WORDS.split('|').map(utf8),
  bytesMax: 5000,
  inputsEach: 1,
  make,
}
