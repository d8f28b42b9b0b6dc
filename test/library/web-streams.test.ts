/** Streams as browsers have them at both ends, where every stream is a WHATWG pair. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { WebStream } from '../../host/library/api.ts'
import { Channel, Scratch } from '../../host/library/channel.ts'
import { makeLibrary } from '../../host/library/library.ts'
import { webStreamOf } from '../../host/library/web-stream.ts'
import type { Runtime } from '../../host/runtime.ts'
import { crypto } from '../../runtime-browser/crypto.ts'
import { clock } from '../../runtime-shared/clock.ts'
import { MemoryLink } from './memory-link.ts'
import { psk, soon } from './pair.ts'

const test = suite('library/web-streams')

const library = makeLibrary<WebStream>({
  runtime: () => ({ name: 'browser', version: '', clock, cpuTime: () => 0 }) as unknown as Runtime,
  crypto,
  sharesMemory: false,
  noSockets: 'there are none',
  streamOf: webStreamOf,
})

/** Rejects in place of waiting for ever. */
async function soonOf<Value>(promise: Promise<Value>): Promise<Value> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('not within 20 s')), 20_000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

test('`opened` is fulfilled for a stream of connect(), and for that of a handler', async () => {
  const link = new MemoryLink()
  let serve: (stream: WebStream) => void = () => {}
  const served = new Promise<WebStream>((resolve) => {
    serve = resolve
  })
  await using server = await library.createServer({ transport: link.server, psk }, (stream) => serve(stream))
  await using client = await library.createClient({ transport: link.client('alice'), psk })
  const stream = await client.connect(soon())
  await soonOf(stream.opened)
  const { opened } = await soonOf(served)
  assert.equal(await soonOf(opened), { remoteAddress: 'alice' })
  assert.ok(server.stats().ready)
})

test('a stream that ends in the turn in which the peer answers was opened', async () => {
  const channel = new Channel(undefined, new Scratch(false), () => {})
  const { opened, closed, readable, writable } = webStreamOf(channel, 'peer')
  const handlers = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }
  channel.attach(handlers)
  await (writable as WritableStream).close()
  // the engine reports the end of a session in place of what it has not reported yet
  channel.write(new Uint8Array([1, 2, 3]), 3)
  channel.close()
  assert.equal(await soonOf(opened), { remoteAddress: 'peer' })
  assert.equal(new Uint8Array(await new Response(readable as ReadableStream).arrayBuffer()), new Uint8Array([1, 2, 3]))
  await closed
})

test.run()
