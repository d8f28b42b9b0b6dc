/**
 * The HTTP cover of dpi/tcp-wnd: its texts, compared with samples of kcptun-libev, and both endpoints of a connection.
 */

import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { SocketAddress } from '../../host/net/address.ts'
import type { TcpConnection, TcpHandlers } from '../../host/runtime.ts'
import { answerText, HEAD_BYTES, HeadReader, judgeRequest, requestText } from '../../host/transport/obfs/cover.ts'
import { CoverClient } from '../../host/transport/obfs/cover-client.ts'
import { CoverServer } from '../../host/transport/obfs/cover-server.ts'

const test = suite('obfs: cover')

const REMOTE: SocketAddress = { family: 4, address: '192.0.2.1', port: 40000, scope: 0 }
const NO_HANDLERS: TcpHandlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }
const bytes = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0))

/** A connection whose other endpoint is the test. */
class Connection implements TcpConnection {
  readonly remote: SocketAddress | undefined = REMOTE
  handlers: TcpHandlers = NO_HANDLERS
  written = ''
  writes = 0
  paused = true
  ended: '' | 'fin' | 'closed' | 'reset' = ''
  #buffer = new Uint8Array(65536)

  attach(handlers: TcpHandlers): void {
    this.handlers = handlers
  }
  writeBuffer(): Uint8Array {
    return this.#buffer
  }
  write(buffer: Uint8Array, length: number): number {
    this.writes++
    this.written += String.fromCharCode(...buffer.subarray(0, length))
    return length
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
  }
  end(): void {
    this.ended = 'fin'
  }
  reset(): void {
    this.ended = 'reset'
  }
  close(): void {
    this.ended = 'closed'
  }
  /** Delivers bytes, unless reading is paused. */
  arrive(text: string): void {
    if (!this.paused && this.ended === '') this.handlers.onData(bytes(text))
  }
}

class Contexts {
  next = 1
  full = false
  readonly released: number[] = []
  accept(): number {
    return this.full ? 0 : this.next++
  }
  release(context: number): void {
    this.released.push(context)
  }
}

function served(date = new Date(0)): {
  server: CoverServer
  contexts: Contexts
  connect: () => Connection
} {
  const contexts = new Contexts()
  const server = new CoverServer(contexts, () => date)
  const connect = (): Connection => {
    const connection = new Connection()
    const handlers = server.accept(connection)
    if (handlers === null) connection.close()
    else connection.handlers = handlers
    return connection
  }
  return { server, contexts, connect }
}

interface Sample {
  readonly name: string
  readonly request: string
  readonly response: string
  readonly end: string
}
const samples: readonly Sample[] = JSON.parse(readFileSync('test/vectors/http_samples.json', 'utf8')).cover

for (const { name, request, response, end } of samples) {
  test(`MUST 62: an unknown client gets the same response as from kcptun-libev: ${name}`, () => {
    const date = new Date(/Date: (.*)\r\n/.exec(response)?.[1] ?? 0)
    for (const inBytes of [false, true]) {
      const { connect, server, contexts } = served(date)
      const connection = connect()
      for (const part of request.split(' <then> ')) {
        if (inBytes) for (const char of part) connection.arrive(char)
        else connection.arrive(part)
      }
      assert.is(connection.written, response)
      const open = end.startsWith('still open')
      assert.is(connection.ended, open ? '' : 'closed')
      assert.equal(contexts.released, open ? [] : [1])
      assert.is(server.size, open ? 1 : 0)
    }
  })
}

test('MUST 62: a head of 4095 bytes is answered, a longer one is cut with RST', () => {
  const head = 'GET /generate_204 HTTP/1.1\r\nX: '
  const filled = (length: number): string => `${head}${'x'.repeat(length - head.length - 4)}\r\n\r\n`
  const { connect } = served()
  const good = connect()
  good.arrive(filled(HEAD_BYTES))
  assert.ok(good.written.startsWith('HTTP/1.1 204 No Content\r\n'))
  const long = connect()
  long.arrive(filled(HEAD_BYTES + 1))
  assert.is(long.written, '')
  assert.is(long.ended, 'reset')
})

test('MUST 62: an invalid head closes the connection without a response', () => {
  const cases = [
    '',
    'GET',
    'GET /generate_204',
    'GET /generate_204 HTTP/1.0',
    'GET /generate_204 HTTP/1.1 ',
    'GET /generate_204 http/1.1',
    'GET  /generate_204 HTTP/1.1',
    'GET /gen\terate_204 HTTP/1.1',
    'GET /generate_204 HTTP/1.1\r\nHost',
    'GET /generate_204 HTTP/1.1\r\n: x',
    'GET /generate_204 HTTP/1.1\r\nA b: x',
    'GET /generate_204 HTTP/1.1\r\nHost: x\r\n folded: y',
  ]
  assert.equal(
    cases.filter((head) => judgeRequest(head) !== 'close'),
    [],
  )
  assert.is(judgeRequest('GET /generate_204 HTTP/1.1\r\nA:'), 204)
  assert.is(judgeRequest('get /generate_204 HTTP/1.1'), 400)
  assert.is(judgeRequest('GET /generate_204/ HTTP/1.1'), 404)
})

test('MUST 62: after the answered request further data, FIN or RST do not end the context; the engine does', () => {
  const { connect, server, contexts } = served()
  const connection = connect()
  connection.arrive(`${requestText('a:1')}GET / HTTP/1.1\r\n\r\n`)
  const answer = connection.written
  connection.arrive('GET / HTTP/1.1\r\n\r\n')
  assert.is(connection.written, answer)
  connection.handlers.onEnd()
  assert.is(connection.ended, '')
  server.end(1)
  assert.is(connection.ended, 'closed')
  assert.equal(contexts.released, [])
  const broken = connect()
  broken.arrive(requestText('a:1'))
  broken.handlers.onClose(new Error('reset'))
  assert.equal(contexts.released, [])
})

test('MUST 68: a connection above the limits is closed, and one that ends before its request releases its context', () => {
  const { connect, server, contexts } = served()
  contexts.full = true
  assert.is(connect().ended, 'closed')
  contexts.full = false
  const silent = connect()
  silent.handlers.onEnd()
  const broken = connect()
  broken.handlers.onClose(new Error('reset'))
  assert.equal(contexts.released, [1, 2])
  assert.is(silent.ended, 'closed')
  const waiting = connect()
  server.end(3)
  assert.is(waiting.ended, 'closed')
  const last = connect()
  server.resetAll()
  assert.is(last.ended, 'reset')
  assert.equal(contexts.released, [1, 2])
})

// Client

function dialled(): { connection: Connection; events: string[]; client: CoverClient; open: () => void } {
  const connection = new Connection()
  const events: string[] = []
  let open = (): void => {}
  const client = new CoverClient(
    (handlers, onOpen) => {
      connection.handlers = handlers
      open = onOpen
      return connection
    },
    '10.77.0.2:8080',
    { onReady: () => events.push('ready'), onFailed: (reason) => events.push(`failed: ${reason}`) },
  )
  return { connection, events, client, open: () => open() }
}
/** The recorded request. */
const REQUEST = [
  'GET /generate_204 HTTP/1.1',
  'Host: 10.77.0.2:8080',
  'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0.3112.32 Safari/537.36',
  'Accept-Encoding: gzip',
  'Connection: keep-alive',
  '',
  '',
].join('\r\n')
const GOOD = answerText(204, new Date(0))

test('MUST 61: the client sends the request of kcptun-libev in one write', () => {
  const { connection, open } = dialled()
  assert.is(connection.written, '')
  open()
  assert.is(connection.written, REQUEST)
  assert.is(connection.writes, 1)
})

test('MUST 61: a client becomes ready on HTTP/1.1 204, in pieces or whole, and on nothing else', () => {
  for (const parts of [[GOOD], [...GOOD]]) {
    const { connection, events, open } = dialled()
    open()
    for (const part of parts) connection.arrive(part)
    assert.equal(events, ['ready'])
    assert.is(connection.ended, '')
  }
  for (const answer of [
    GOOD.replace('1.1', '1.0'),
    GOOD.replace('204', '200'),
    GOOD.replace('Server: nginx', 'Server'),
    `${GOOD}x`,
    answerText(404, new Date(0)),
    'garbage\r\n\r\n',
    'x'.repeat(HEAD_BYTES + 1),
  ]) {
    const { connection, events, open } = dialled()
    open()
    connection.arrive(answer)
    assert.is(events.length, 1)
    assert.match(events[0] ?? '', 'failed: ')
    assert.is(connection.ended, 'closed')
  }
  assert.is(new HeadReader().read(bytes('HTTP/1.1 204 No Content\r\n')), undefined)
})

test('MUST 61: any event on the connection after the response is reported as a failure, once', () => {
  const happenings: readonly ((handlers: TcpHandlers) => void)[] = [
    (handlers) => handlers.onData(bytes('x')),
    (handlers) => handlers.onEnd(),
    (handlers) => handlers.onClose(new Error('reset')),
  ]
  for (const happening of happenings) {
    const { connection, events, open } = dialled()
    open()
    connection.arrive(GOOD)
    happening(connection.handlers)
    happening(connection.handlers)
    assert.is(events.length, 2)
    assert.match(events[1] ?? '', 'failed: ')
  }
})

test('a closed client reports nothing more, and a refused dial is a failure', () => {
  const closed = dialled()
  closed.client.close()
  closed.open()
  closed.connection.handlers.onClose(new Error('late'))
  assert.equal(closed.events, [])
  assert.is(closed.connection.written, '')
  const refused = dialled()
  refused.connection.handlers.onClose(new Error('connect ECONNREFUSED'))
  assert.equal(refused.events, ['failed: connect ECONNREFUSED'])
})

test.run()
