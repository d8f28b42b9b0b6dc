// time limit: 120 s
/** Notifications to a service manager through $NOTIFY_SOCKET (sd_notify(3)). */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AF_UNIX, SOCK_DGRAM } from '../../host/linux/libc.ts'
import { syscallsOf } from '../../host/linux/syscalls.ts'
import { os } from '../../runtime-node/os.ts'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { start } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const test = suite('service manager')

for (const program of RUNTIMES) {
  const name = `readiness, reload and stop are notified: ${program}`
  if (process.platform !== 'linux') {
    skip(test, name, 'not Linux')
    continue
  }
  test(name, async () => {
    const syscalls = syscallsOf(os)
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    try {
      for (const path of [join(directory, 'notify'), `@kcptun-wasm-${process.pid}-${program}`]) {
        const inbox = syscalls.socket(AF_UNIX, SOCK_DGRAM)
        syscalls.bindUnix(inbox, path)
        const received: string[] = []
        const arrived = (count: number): Promise<void> =>
          waitFor(
            `${count} notifications`,
            () => {
              for (let text = syscalls.receive(inbox); text !== undefined; text = syscalls.receive(inbox)) {
                received.push(new TextDecoder().decode(text))
              }
              return received.length >= count
            },
            20_000,
            () => received.join('\n\n'),
          )
        process.env['NOTIFY_SOCKET'] = path
        // not an address of this machine (RFC 5737)
        const running = await start(program, { connect: '127.0.0.1:9', kcp_bind: '203.0.113.9:9' })
        delete process.env['NOTIFY_SOCKET']
        const ready = `READY=1\nMAINPID=${running.pid}`
        await arrived(1)
        running.reload({ kcp_bind: '127.0.0.1:0' })
        await arrived(4)
        process.kill(running.pid, 'SIGHUP')
        await arrived(6)
        assert.is((await running.stop()).code, 0)
        await arrived(7)
        const retrying = /^READY=1\nSTATUS=retrying: udp: cannot open 203\.0\.113\.9:9: .*EADDRNOTAVAIL.*\nMAINPID=\d+$/
        assert.match(received[0] ?? '', retrying)
        const reloading = /^RELOADING=1\nMONOTONIC_USEC=\d+$/
        assert.match(received[1] ?? '', reloading)
        assert.equal(received.slice(2, 4), ['STATUS=running', ready])
        assert.match(received[4] ?? '', reloading)
        assert.equal(received.slice(5), [ready, 'STOPPING=1'])
        syscalls.close(inbox)
      }
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
}

test.run()
