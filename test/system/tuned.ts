/**
 * Conformance tests of host/runtime.ts for sockets with every option of `SocketOptions`: the runtime then adopts
 * descriptors instead of opening sockets itself.
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

/** @param opensOwn why UDP sockets in mode portable, and dialled connections, are not those of system calls */
export async function tunedConformance(runtime: Runtime, opensOwn?: string): Promise<void> {
  const test = suite('sockets with options')
  if (process.platform !== 'linux') {
    skip(test, 'sockets with options', 'not Linux')
    test.run()
    return
  }
  const refused: string[] = []
  // without reuseport, so that a port in use is still an error
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
  if (opensOwn === undefined) udpConformance(subject, hasIpv6, 'portable')
  udpConformance(subject, hasIpv6, 'fast')
  tcpConformance(subject, hasIpv6)
  tcpBoundsConformance(subject)

  test('two listeners share a port when both have reuseport', async () => {
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

  const dialled = 'a dialled connection gets its buffer sizes'
  const dialsWithBuffers = async (): Promise<void> => {
    const limit = (name: string): number => Number(readFileSync(`/proc/sys/net/core/${name}`, 'utf8'))
    const refusals: string[] = []
    const wish: SocketOptions = {
      ...socketOptions,
      netdev: '',
      sndbuf: limit('wmem_max') + 1,
      rcvbuf: limit('rmem_max') + 1,
      refused: (option, why) => refusals.push(`${option}: ${why}`),
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
    assert.is(refusals.length, 2, refusals.join('\n'))
    for (const text of refusals) assert.match(text, /^(snd|rcv)buf: the kernel granted only \d+ bytes/)
  }
  if (opensOwn === undefined) test(dialled, dialsWithBuffers)
  else skip(test, dialled, opensOwn)

  test('every option was applied', () => {
    const expected = opensOwn === undefined ? [] : ['sndbuf', 'rcvbuf'].map((option) => `${option}: ${opensOwn}`)
    assert.equal([...new Set(refused)], expected)
  })
  test.run()
}
