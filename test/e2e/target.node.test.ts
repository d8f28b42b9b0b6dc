// time limit: 180 s
/** A target whose name has several addresses and moves, as seen by an application (the real resolver of each runtime). */
import { randomBytes } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { type Config, freePort, type Running, start } from '../../testkit/process.ts'
import { dial, listen, type Target } from '../../testkit/tcp.ts'
import { within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT_MS = 30_000

const test = suite('target')

/** A target that sends its own address. */
const open = (host: string, port: number): Promise<Target> =>
  listen((end) => void end.send(host).then(() => end.finish()), { host, port })

for (const program of RUNTIMES) {
  for (const workers of [1, 2]) {
    const name = `a client listens on every address of its name that this machine has: ${program}, ${workers} workers`
    if (process.platform !== 'linux' || process.getuid?.() !== 0) {
      skip(test, name, 'a hosts file of its own needs Linux and root')
      continue
    }
    test(name, async () => {
      const names = new HostsFile()
      // TEST-NET-1: no interface has it
      names.set('entry.test', '127.0.0.2', '192.0.2.1', '127.0.0.3')
      const target = await open('127.0.0.1', await freePort())
      const kcp_bind = `127.0.0.1:${await freePort()}`
      const port = await freePort()
      const running: Running[] = []
      try {
        running.push(await start(program, { kcp_bind, connect: `127.0.0.1:${target.port}` }))
        const client = { listen: `entry.test:${port}`, kcp_connect: kcp_bind, workers }
        running.push(await start(program, client, { wrapper: names.wrapper }))
        for (const host of ['127.0.0.2', '127.0.0.3']) {
          const app = await dial(host, port, { keep: 100 })
          app.finish()
          assert.is((await within(`an answer by ${host}`, LIMIT_MS, app.ending)).kind, 'fin')
          assert.is(app.text(), '127.0.0.1')
        }
        assert.match(running[1]?.log() ?? '', /cannot (open|listen on) 192\.0\.2\.1/)
      } finally {
        for (const end of running) assert.is((await end.stop()).code, 0, end.log())
        await target.close()
        names.remove()
      }
    })
  }
}

for (const program of RUNTIMES) {
  for (const workers of [1, 2]) {
    const name = `the next address is tried, and a name that moved is found at once: ${program}, ${workers} workers`
    if (process.platform !== 'linux' || process.getuid?.() !== 0) {
      skip(test, name, 'a hosts file of its own needs Linux and root')
      continue
    }
    test(name, async () => {
      const names = new HostsFile()
      const port = await freePort()
      const key: Config = { method: 'xchacha20poly1305_ietf', psk: randomBytes(32).toString('base64') }
      const kcp_bind = `127.0.0.1:${await freePort()}`
      const listenPort = await freePort()
      const running: Running[] = []
      const targets: Target[] = []
      const answer = async (what: string): Promise<string> => {
        const app = await dial('127.0.0.1', listenPort, { keep: 100 })
        app.finish()
        const { kind } = await within(what, LIMIT_MS, app.ending)
        assert.is(kind, 'fin', `${what}: ${running.map((one) => one.log()).join('')}`)
        return app.text()
      }
      // nothing listens at the first two
      names.set('target.test', '::1', '127.0.0.2', '127.0.0.3')
      try {
        targets.push(await open('127.0.0.3', port))
        const config = { ...key, kcp_bind, connect: `target.test:${port}`, workers }
        running.push(await start(program, config, { wrapper: names.wrapper }))
        const listen = `127.0.0.1:${listenPort}`
        running.push(await start(program, { ...key, listen, kcp_connect: kcp_bind }))
        assert.is(await answer('an address that accepts'), '127.0.0.3')
        assert.is(await answer('the same one again'), '127.0.0.3')
        await targets[0]?.close()
        targets.push(await open('127.0.0.4', port))
        names.set('target.test', '127.0.0.4')
        assert.is(await answer('the address that the name has now'), '127.0.0.4')
      } finally {
        for (const end of running) assert.is((await end.stop()).code, 0, end.log())
        for (const target of targets) await target.close()
        names.remove()
      }
    })
  }
}

test.run()
