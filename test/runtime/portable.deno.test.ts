/** Deno's own UDP sockets: what they cost, and what they cannot do. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NotAvailable } from '../../host/errors.ts'
import type { SocketOptions, UdpHandlers } from '../../host/runtime.ts'
import { denoRuntime } from '../../runtime-deno/runtime.ts'
import { waitFor } from '../../testkit/wait.ts'
import { LOCALHOST } from './subject.ts'

/** Much less than the buffer of the socket, which is megabytes. */
const DATAGRAM_BYTES = 16384
const RCVBUF_BYTES = 4 << 20

const ignore = (): void => {}
const handlers: UdpHandlers = { onDatagram: ignore, onBatchEnd: ignore, onWritable: ignore, onError: ignore }
const OPTIONS = { reuseport: true, netdev: 'lo', fwmark: 1, dscp: 46, sndbuf: RCVBUF_BYTES, rcvbuf: RCVBUF_BYTES }

function recorded(fd?: number): { socketOptions: SocketOptions; refused: Map<string, string> } {
  const refused = new Map<string, string>()
  return { socketOptions: { ...OPTIONS, fd, refused: (option, why) => refused.set(option, why) }, refused }
}

const test = suite('portable UDP of Deno')
const { openUdp } = denoRuntime()

test('the memory for a datagram is not that of the socket buffer', async () => {
  const sizes: number[] = []
  const server = await openUdp(
    { bind: LOCALHOST, path: 'portable', socketOptions: recorded().socketOptions },
    { ...handlers, onDatagram: (data) => sizes.push(data.buffer.byteLength) },
  )
  const client = await openUdp({ bind: LOCALHOST, path: 'portable' }, handlers)
  try {
    // for the first one it was allocated when the socket was bound
    for (let i = 0; i < 2; i++) {
      const buffer = client.acquire()
      if (buffer === null) throw new Error('no buffer')
      client.send(buffer, 1, server.local)
      await waitFor('the datagram', () => sizes.length === i + 1)
    }
    assert.ok((sizes[1] ?? 0) <= DATAGRAM_BYTES, `${sizes[1]} bytes`)
  } finally {
    server.close()
    client.close()
  }
})

test('every option is refused with the mode that has it, and the socket opens', async () => {
  const { socketOptions, refused } = recorded()
  const socket = await openUdp({ bind: LOCALHOST, path: 'portable', socketOptions }, handlers)
  socket.close()
  assert.equal([...refused.keys()].sort(), Object.keys(OPTIONS).sort())
  for (const why of refused.values()) assert.match(why, /not available: only with udp.path "fast"/)
})

test('a descriptor is refused, with the reason', async () => {
  const { socketOptions } = recorded(0)
  const failure = await openUdp({ bind: LOCALHOST, path: 'portable', socketOptions }, handlers).catch((error) => error)
  assert.instance(failure, NotAvailable)
})

test.run()
