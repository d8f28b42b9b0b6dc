/**
 * The promises of host/runtime.ts for sockets with every option of `SocketOptions`: the runtime adopts descriptors then
 * instead of opening sockets itself.
 */

import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Runtime, SocketOptions } from '../../host/runtime.ts'
import { LOCALHOST, LOCALHOST6 } from '../runtime/subject.ts'
import { tcpConformance } from '../runtime/tcp.ts'
import { tcpBoundsConformance } from '../runtime/tcp-bounds.ts'
import { udpConformance } from '../runtime/udp.ts'
import { skip } from '../skip.ts'

const BUFFER_BYTES = 131_072

export async function tunedConformance(runtime: Runtime): Promise<void> {
  const test = suite('tuned sockets')
  if (process.platform !== 'linux') {
    skip(test, 'tuned sockets', 'not Linux')
    test.run()
    return
  }
  const refused: string[] = []
  // not reuseport: a port in use would be no error any more
  const socketOptions: SocketOptions = {
    reuseport: false,
    netdev: 'lo',
    sndbuf: BUFFER_BYTES,
    rcvbuf: BUFFER_BYTES,
    refused: (option, why) => refused.push(`${option}: ${why}`),
  }
  const tuned: Runtime = {
    ...runtime,
    openUdp: (options, handlers) => runtime.openUdp({ ...options, socketOptions }, handlers),
    listenTcp: (address, options, accept, onError) =>
      runtime.listenTcp(address, { ...options, socketOptions: { ...socketOptions, netdev: '' } }, accept, onError),
    dialTcp: (address, options, handlers, onOpen) =>
      runtime.dialTcp(address, { ...options, socketOptions: { ...socketOptions, netdev: '' } }, handlers, onOpen),
  }
  const hasIpv6 = await runtime
    .openUdp(
      { bind: LOCALHOST6 },
      { onDatagram: () => {}, onBatchEnd: () => {}, onWritable: () => {}, onError: () => {} },
    )
    .then(
      (socket) => {
        socket.close()
        return true
      },
      () => false,
    )
  const subject = { runtime: tuned, serveHttp: runtime.serveHttp }
  udpConformance(subject, hasIpv6, 'portable')
  udpConformance(subject, hasIpv6, 'fast')
  tcpConformance(subject, hasIpv6)
  tcpBoundsConformance(subject)

  test('two listeners share a port when both ask for it', async () => {
    const shared = { nodelay: true, keepalive: false, socketOptions: { ...socketOptions, netdev: '', reuseport: true } }
    const open = (port: number) =>
      runtime.listenTcp(
        { ...LOCALHOST, port },
        shared,
        () => null,
        () => {},
      )
    const first = await open(0)
    const second = await open(first.local.port)
    assert.is(second.local.port, first.local.port)
    first.close()
    second.close()
  })

  test('a dialled connection gets its buffers too', async () => {
    const limit = (name: string): number => Number(readFileSync(`/proc/sys/net/core/${name}`, 'utf8'))
    const told: string[] = []
    const wish: SocketOptions = {
      ...socketOptions,
      netdev: '',
      sndbuf: limit('wmem_max') + 1,
      rcvbuf: limit('rmem_max') + 1,
      refused: (option, why) => told.push(`${option}: ${why}`),
    }
    const plain = { nodelay: true, keepalive: false }
    const listener = await runtime.listenTcp(
      LOCALHOST,
      plain,
      () => null,
      () => {},
    )
    const ignore = (): void => {}
    const handlers = { onData: ignore, onEnd: ignore, onDrain: ignore, onClose: ignore }
    await new Promise<void>((open) => {
      const connection = runtime.dialTcp(listener.local, { ...plain, socketOptions: wish }, handlers, () => {
        connection.reset()
        open()
      })
    })
    listener.close()
    assert.is(told.length, 2, told.join('\n'))
    for (const text of told) assert.match(text, /^(snd|rcv)buf: the kernel granted only \d+ bytes/)
  })

  test('every option was in force', () => {
    assert.equal([...new Set(refused)], [])
  })
  test.run()
}
