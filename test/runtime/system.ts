/** Clock, name resolution, files and signals of an adapter. */

import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { sleep, waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'
import type { Subject } from './subject.ts'

export function systemConformance({ runtime }: Subject): void {
  const test = suite(`${runtime.name}: system`)

  test('the clock advances in milliseconds with a fraction', async () => {
    const start = runtime.clock.monotonic()
    await sleep(20)
    const passed = runtime.clock.monotonic() - start
    assert.ok(passed > 15, `${passed} ms`)
    const fractions = Array.from({ length: 20 }, () => runtime.clock.monotonic() % 1)
    assert.ok(fractions.some((fraction) => fraction !== 0))
  })

  test('IP literals resolve to themselves', async () => {
    assert.equal(await runtime.resolve('192.0.2.7'), [{ family: 4, address: '192.0.2.7', scope: 0 }])
    assert.equal(await runtime.resolve('2001:db8::7'), [{ family: 6, address: '2001:db8::7', scope: 0 }])
    assert.equal(await runtime.resolve('fe80::1%3'), [{ family: 6, address: 'fe80::1', scope: 3 }])
  })

  test('localhost resolves to distinct loopback addresses', async () => {
    const found = await runtime.resolve('localhost')
    assert.ok(found.length > 0)
    for (const { family, address } of found) {
      assert.ok(family === 4 ? address.startsWith('127.') : address === '::1', address)
    }
    assert.is(new Set(found.map(({ address }) => address)).size, found.length)
  })

  test('an unknown name and an unknown zone reject with a code', async () => {
    for (const host of ['no-such-host.invalid', 'fe80::1%no-such-interface']) {
      const code = await runtime.resolve(host).then(
        () => 'resolved',
        (error: NodeJS.ErrnoException) => error.code,
      )
      assert.type(code, 'string', host)
      assert.is.not(code, 'resolved', host)
    }
  })

  test('a new file is readable by its owner only, and never replaces an existing one', async () => {
    const { commandConsole: tools } = runtime
    if (tools === undefined) throw new Error('no console')
    const directory = await mkdtemp(join(tmpdir(), 'kcptun-wasm-'))
    try {
      const codeOf = (action: () => unknown): string | undefined => {
        try {
          action()
          return undefined
        } catch (error) {
          return error instanceof Error && 'code' in error ? String(error.code) : String(error)
        }
      }
      const path = join(directory, 'new')
      const link = join(directory, 'link')
      tools.createFile(path, 'ü\n')
      assert.is(await readFile(path, 'utf8'), 'ü\n')
      assert.is(tools.fileMode(path), process.platform === 'win32' ? undefined : 0o600)
      assert.is(
        codeOf(() => tools.createFile(path, 'other')),
        'EEXIST',
      )
      assert.is(await readFile(path, 'utf8'), 'ü\n')
      tools.removeFile(path)
      assert.is(
        codeOf(() => tools.fileMode(path)),
        'ENOENT',
      )
      await symlink(path, link)
      assert.is(
        codeOf(() => tools.createFile(link, 'elsewhere')),
        'EEXIST',
        'through a link',
      )
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  test('a file is read byte by byte; a missing one rejects with ENOENT', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kcptun-wasm-'))
    try {
      const path = join(directory, 'bytes')
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
      await writeFile(path, bytes)
      assert.equal(Array.from(await runtime.readFile(path)), Array.from(bytes))
      const code = await runtime.readFile(`${path}.missing`).catch((error: NodeJS.ErrnoException) => error.code)
      assert.is(code, 'ENOENT')
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  const signals = 'SIGINT and SIGTERM are reported'
  if (process.platform === 'win32') {
    skip(test, signals, 'Windows has no signals to send')
  } else {
    test(signals, async () => {
      const seen: string[] = []
      runtime.onTerminate((signal) => seen.push(signal))
      process.kill(process.pid, 'SIGTERM')
      await waitFor('SIGTERM', () => seen.includes('SIGTERM'))
      process.kill(process.pid, 'SIGINT')
      await waitFor('SIGINT', () => seen.includes('SIGINT'))
      assert.equal(seen, ['SIGTERM', 'SIGINT'])
    })

    test('every SIGHUP is reported', async () => {
      let hangups = 0
      runtime.onReload(() => hangups++)
      for (const count of [1, 2]) {
        process.kill(process.pid, 'SIGHUP')
        await waitFor('SIGHUP', () => hangups === count)
      }
    })
  }

  test.run()
}
