/** Obfuscated transports without a network: where a server captures after reloads and look-ups, when a client redials. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Config } from '../../host/config/config.ts'
import { parseConfig } from '../../host/config/load.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Obfs } from '../../host/engine/core.ts'
import { SO_RCVBUF, SO_SNDBUF } from '../../host/linux/libc.ts'
import { Log } from '../../host/log/log.ts'
import type { Libc, OperatingSystem, Runtime } from '../../host/runtime.ts'
import { MemoryNetwork, NO_CIPHERS, settle } from './memory-runtime.ts'

const test = suite('obfs: server')

/** The address of all memory. */
const BASE = 4096

/** System calls that succeed and do nothing; binding to an interface can fail. */
class Calls {
  /** Calls of bind that fail. */
  failures = 0
  /** RSTs that the kernel has sent. */
  resets = 0
  /** Socket options that were set, and their values. */
  readonly options: (readonly [name: number, value: number])[] = []
  /** The memory of the calls: the first whose address is asked for. */
  #memory: ArrayBuffer | undefined
  /** Callbacks of watched descriptors, that of the packet socket first. */
  readonly watched: ((packet?: Uint8Array) => void)[] = []
  readonly libc: Libc = {
    pointerBytes: 8,
    address: (memory) => {
      this.#memory ??= memory
      return BASE
    },
    socket: () => 3,
    bind: () => (this.failures-- > 0 ? -1 : 0),
    connect: () => 0,
    listen: () => 0,
    setsockopt: (_fd, _level, name, value) => {
      this.options.push([name, new Int32Array(this.#memory ?? new ArrayBuffer(0))[(value - BASE) >>> 2] ?? 0])
      return 0
    },
    getsockopt: () => 0,
    getsockname: () => 0,
    send: () => 0,
    recv: () => -1,
    recvmmsg: () => -1,
    sendmmsg: (_fd, _messages, count) => count,
    if_nametoindex: () => 1,
    timerfd_create: () => 4,
    timerfd_settime: () => 0,
    pidfd_open: () => 0,
    fcntl: () => 0,
    poll: () => 1,
    close: () => 0,
    monotonic: () => 0n,
    errno: () => 19,
    errorName: () => 'ENODEV',
  }
}

const PSK = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
const CONFIG = {
  connect: '127.0.0.1:9000',
  kcp_bind: '127.0.0.1:5000',
  obfs: 'dpi/tcp',
  method: 'xchacha20poly1305_ietf',
  psk: PSK,
}

const configuration = (changes: object = {}): Config =>
  parseConfig(new TextEncoder().encode(JSON.stringify({ ...CONFIG, ...changes })))

/** A dpi/tcp server on system calls of its own. */
async function start(changes: object = {}) {
  const network = new MemoryNetwork()
  network.hosts.set('server.example', '127.0.0.1')
  const calls = new Calls()
  const os: Partial<OperatingSystem> = {
    libc: () => calls.libc,
    watch: (_fd, onReadable) => {
      calls.watched.push(onReadable)
      return { close() {} }
    },
    readText: () => `Tcp: InErrs OutRsts\nTcp: 0 ${calls.resets}\n`,
  }
  const runtime: Runtime = Object.assign(network.runtime(), { os: os as OperatingSystem })
  const log = new Log((stream, text) => runtime.print(stream, text))
  const endpoint = await startEndpoint(runtime, configuration(changes), log, NO_CIPHERS)
  return { network, calls, endpoint }
}

/** The address that the engine takes packets for. */
function captured({ driver }: Endpoint): string {
  const { u8, calls } = driver.core
  const at = (calls.obfs_ptr() >>> 0) + Obfs.local
  return `${u8.subarray(at + 8, at + 12).join('.')}:${new DataView(u8.buffer).getUint16(at + 2, true)}`
}

test('the sockets of packets have the configured buffers; a burst of a window fits into the default', async () => {
  const buffers = async (udp: object) => {
    const { calls, endpoint } = await start({ udp })
    endpoint.close()
    return calls.options.filter(([name]) => name === SO_RCVBUF || name === SO_SNDBUF)
  }
  assert.equal(await buffers({}), [[SO_RCVBUF, 4 << 20]])
  assert.equal(await buffers({ rcvbuf: 65_536, sndbuf: 131_072 }), [
    [SO_RCVBUF, 65_536],
    [SO_SNDBUF, 131_072],
  ])
})

test('a server that moved by a reload stays there when names are looked up again', async () => {
  const { endpoint } = await start()
  assert.is(captured(endpoint), '127.0.0.1:5000')
  await endpoint.reload(configuration({ kcp_bind: '127.0.0.1:6000' }))
  assert.is(captured(endpoint), '127.0.0.1:6000')
  endpoint.transport?.onResolve()
  await settle()
  assert.is(captured(endpoint), '127.0.0.1:6000')
  endpoint.close()
})

test('a reload that cannot capture at the new address goes back to the one before', async () => {
  const { calls, endpoint } = await start()
  calls.failures = 1
  let error: unknown
  await endpoint.reload(configuration({ kcp_bind: '127.0.0.1:6000' })).catch((thrown) => {
    error = thrown
  })
  assert.match(String(error), /ENODEV/)
  assert.is(captured(endpoint), '127.0.0.1:5000')
  endpoint.transport?.onResolve()
  await settle()
  assert.is(captured(endpoint), '127.0.0.1:5000')
  endpoint.close()
})

test('a look-up that leads where nothing can be captured changes nothing, the next one moves', async () => {
  const { calls, network, endpoint } = await start({ kcp_bind: 'server.example:5000' })
  network.hosts.set('server.example', '127.0.0.2')
  calls.failures = 1
  endpoint.transport?.onResolve()
  await settle()
  assert.is(calls.failures < 1, true)
  assert.is(captured(endpoint), '127.0.0.1:5000')
  endpoint.transport?.onResolve()
  await settle()
  assert.is(captured(endpoint), '127.0.0.2:5000')
  endpoint.close()
})

test('a dpi/tcp server whose kernel answers the packets that it captures names the firewall rule', async () => {
  const { calls, network, endpoint } = await start()
  for (let i = 0; i < 100; i++) {
    calls.resets++
    calls.watched[0]?.(new Uint8Array(40))
  }
  const warning = /W .*answers the tunnel's packets with RST.*iptables -I INPUT .*--dport 5000/
  assert.is(network.printed.filter((line) => warning.test(line)).length, 1)
  endpoint.close()
})

test('a client redials when its server is silent after a suspension, but not for silence alone', async () => {
  const own = { connect: undefined, kcp_bind: undefined, listen: '127.0.0.1:7000', kcp_connect: '127.0.0.1:5000' }
  const { network, endpoint } = await start(own)
  const { transport } = endpoint
  // whichever context the engine has made
  for (let context = 1; context < 100_000; context++) transport?.onObfsReady?.(context)
  const redials = (): number => network.printed.filter((line) => line.includes('no answer after a suspension')).length
  assert.is(network.printed.filter((line) => line.includes('obfs ready')).length, 1)
  transport?.onResolve()
  assert.is(redials(), 0)
  transport?.onResume()
  transport?.onResolve()
  assert.is(redials(), 1)
  endpoint.close()
})

test('a client whose tunnel is not answered any more names what may drop its packets', async () => {
  const own = { connect: undefined, kcp_bind: undefined, listen: '127.0.0.1:7000', kcp_connect: '127.0.0.1:5000' }
  const { network, endpoint } = await start(own)
  // whichever context the engine has made
  for (let context = 1; context < 100_000; context++) endpoint.transport?.onObfsEnded?.(context)
  assert.is(network.printed.filter((line) => /W .*127.0.0.1:5000: no answer: .*state INVALID/.test(line)).length, 1)
  endpoint.close()
})

test.run()
