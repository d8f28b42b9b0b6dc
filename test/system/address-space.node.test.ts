// time limit: 120 s
/** A limit of the address space (ulimit -v): V8's reservation for the engine's memory does not fit. */
import { spawnSync } from 'node:child_process'
import { createServer, type Server } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config } from '../../testkit/process.ts'
import { commandOf, freePort, start, writeConfig } from '../../testkit/process.ts'
import { dial } from '../../testkit/tcp.ts'
import { skip } from '../skip.ts'

const LIMIT_KIB = 4_000_000
const LIMITED = ['sh', '-c', `ulimit -v ${LIMIT_KIB}; exec "$@"`, 'sh']

const test = suite('address space')

function openEcho(): Promise<Server> {
  const server = createServer((socket) => socket.on('error', () => {}).pipe(socket))
  return new Promise((done) => server.listen(0, '127.0.0.1', () => done(server)))
}

for (const program of RUNTIMES) {
  for (const [title, more] of [
    ['one process', {}],
    ['workers', { workers: 2 }],
  ] as const) {
    const name = `with ${LIMIT_KIB} KiB of address space a tunnel starts and carries data: ${program}, ${title}`
    if (process.platform !== 'linux') {
      skip(test, name, 'not Linux')
      continue
    }
    test(name, async () => {
      const target = await openEcho()
      const bound = target.address()
      const [udp, tcp] = [await freePort(), await freePort()]
      const key: Config = { method: 'xchacha20poly1305_ietf', psk: Buffer.alloc(32, 5).toString('base64'), ...more }
      const to = typeof bound === 'object' ? bound?.port : 0
      const options = { wrapper: LIMITED }
      const server = await start(program, { ...key, kcp_bind: `127.0.0.1:${udp}`, connect: `127.0.0.1:${to}` }, options)
      const client = await start(
        program,
        { ...key, listen: `127.0.0.1:${tcp}`, kcp_connect: `127.0.0.1:${udp}` },
        options,
      )
      try {
        const end = await dial('127.0.0.1', tcp, { keep: 100 })
        end.socket.end('hello')
        assert.is((await end.ending).kind, 'fin')
        assert.is(end.received, 'hello'.length)
        assert.not.match(server.log() + client.log(), /^[FE] /m)
      } finally {
        // the process that was started still is the one to signal
        assert.is((await client.stop()).code, 0)
        assert.is((await server.stop()).code, 0)
        target.close()
      }
    })
  }
}

const name = 'where Node cannot be started again with another option, one line names the limit and the remedy'
if (process.platform !== 'linux') skip(test, name, 'not Linux')
else {
  test(name, () => {
    const file = writeConfig({ listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9' })
    const [command = '', ...words] = [...LIMITED, 'env', 'KCPTUN_NATIVE=0', ...commandOf('node'), '-c', file.path]
    const { status, stdout, stderr } = spawnSync(command, words, { encoding: 'utf8' })
    file.remove()
    assert.is(status, 1)
    const fatal = (stdout + stderr).split('\n').filter((line) => line.startsWith('F '))
    assert.is(fatal.length, 1, stdout + stderr)
    assert.match(fatal[0] ?? '', new RegExp(`raise the limit of ${LIMIT_KIB} KiB .* NODE_OPTIONS=`))
  })
}

/** Node starts with it, and may abort when it runs the program; with 900 000 it does so in a third of all starts before it runs any of it. */
const SCANT_KIB = 950_000

for (const [title, more, words] of [
  ['one process', {}, []],
  ['workers', { workers: 2 }, []],
  ['a daemon', {}, ['-d']],
] as const) {
  const short = `with ${SCANT_KIB} KiB of address space it starts, or a line names the limit and the remedy: node, ${title}`
  if (process.platform !== 'linux') {
    skip(test, short, 'not Linux')
    continue
  }
  test(short, () => {
    const file = writeConfig({ listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9', ...more })
    const command = ['-c', `ulimit -v ${SCANT_KIB}; exec "$@"`, 'sh', ...commandOf('node'), ...words, '-c', file.path]
    const { stdout, stderr } = spawnSync('sh', command, { encoding: 'utf8', timeout: 20_000 })
    file.remove()
    const lines = (stdout + stderr).split('\n')
    const pid = Number(/daemon started, pid (\d+)/.exec(stdout + stderr)?.[1] ?? 0)
    if (pid !== 0) process.kill(pid)
    const named = lines.filter((line) => new RegExp(`^[WF] .*limited to ${SCANT_KIB} KiB.*raise the limit`).test(line))
    assert.ok(named.length > 0, stdout + stderr)
  })
}

test.run()
