/** Several tunnels on an in-memory network in virtual time: one whose engine fails does not concern the others. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseFile } from '../../host/config/tunnels.ts'
import { Log } from '../../host/log/log.ts'
import { openTunnels } from '../../host/tunnels/tunnels.ts'
import { NO_CIPHERS } from './memory-runtime.ts'
import { trapNow, wrapEngines } from './traps.ts'
import { printed, VirtualNetwork } from './virtual-network.ts'

const test = suite('tunnels')

test('a tunnel whose engine fails repeatedly is started again, with growing pauses, until it works', async () => {
  let isBroken = (_engine: number): boolean => false
  let engines = 0
  const wrapped = wrapEngines((exports) => {
    const engine = engines++
    return {
      ...exports,
      poll_events() {
        if (isBroken(engine)) trapNow()
        return exports.poll_events()
      },
    }
  })
  const network = new VirtualNetwork()
  const log = new Log((stream, text) => network.runtime().print(stream, text))
  const file = {
    http_listen: '127.0.0.1:80',
    tunnels: [
      { name: 'server', kcp_bind: '127.0.0.1:5000', connect: '127.0.0.1:9000' },
      { name: 'client', listen: '127.0.0.1:1', kcp_connect: '127.0.0.1:5000', keepalive: 5 },
    ],
  }
  const bytes = new TextEncoder().encode(JSON.stringify(file))
  const tunnels = await openTunnels(network.runtime(), parseFile(bytes), log, NO_CIPHERS)
  const statuses: string[] = []
  tunnels.onStatus = (status) => statuses.push(status)
  await tunnels.start()
  const get = async (path: string): Promise<string> => {
    const answer = await network.http.get('127.0.0.1:80')?.(new Request('http://127.0.0.1'), path, undefined as never)
    return (await answer?.text()) ?? ''
  }
  try {
    await network.pass(10_000)
    assert.match(await get('/ready'), /^server: healthy\nclient: healthy/)
    // the engine of the server is the first one
    isBroken = (engine) => engine !== 0
    await network.until(() => printed(network, 'starting the tunnel again in 1') > 0, 'the client failed')
    assert.match(await get('/ready'), /^server: healthy\nclient: waiting for restart\n$/)
    assert.match(tunnels.status, /^client: .*3 times/)
    await network.pass(20_000)
    const attempts = printed(network, 'starting the tunnel again')
    assert.ok(attempts >= 4 && attempts <= 6, `${attempts} attempts in 20 s`)
    assert.match(await get('/stats'), 'tunnel client, client: waiting for restart')
    isBroken = () => false
    await network.until(() => tunnels.status === '', 'the client is started')
    await network.pass(5000)
    assert.match(await get('/ready'), /^server: healthy\nclient: healthy/)
    assert.is(statuses.at(-1), '')
    assert.is(printed(network, '[server] server start'), 1)
  } finally {
    wrapped.restore()
    await tunnels.close()
  }
  assert.is(network.udp.size + network.listeners.size + network.http.size, 0, 'nothing is left open')
})

test.run()
