// time limit: 180 s
/** The demo program. */

import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { get } from 'node:http'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { projectRoot } from '../../testkit/process.ts'
import { waitFor, within } from '../../testkit/wait.ts'

const TIMEOUT_MS = 120_000
const FILE_BYTES = 32 << 20

const test = suite('demo')

interface Demo {
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
  output: string
}

function startDemo(args: readonly string[]): Demo {
  const child = spawn(process.execPath, [join(projectRoot, 'dist/demo.js'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const demo: Demo = { child, output: '', exited: new Promise((done) => child.once('close', done)) }
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      demo.output += text
    })
  }
  return demo
}

function digestOf(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, (response) => {
      const hash = createHash('sha256')
      response.on('data', (chunk: Buffer) => hash.update(chunk))
      response.once('end', () => resolve(hash.digest('hex')))
      response.once('error', reject)
    }).once('error', reject)
  })
}

test('the demo downloads a file, verifies it, reports the cost and exits with 0', async () => {
  const demo = startDemo([])
  assert.is(await within('the end of the demo', TIMEOUT_MS, demo.exited), 0, demo.output)
  for (const pattern of [
    /32\.0 of 32 MiB/,
    /SHA-256 +[0-9a-f]{64} \(as expected\)/,
    /goodput +\d/,
    /retransmissions/,
    /overhead +\d/,
  ]) {
    assert.match(demo.output, pattern)
  }
  assert.not.ok(demo.output.includes('\r'), 'plain lines when it is not a terminal')
})

test('with --keep the tunnel stays open for the printed curl command until a signal', async () => {
  const demo = startDemo(['--keep'])
  await waitFor(
    'the curl line',
    () => /curl -o \/dev\/null (\S+)/.test(demo.output),
    TIMEOUT_MS,
    () => demo.output,
  )
  const url = /curl -o \/dev\/null (\S+)/.exec(demo.output)?.[1] ?? ''
  const expected = /SHA-256 +([0-9a-f]{64})/.exec(demo.output)?.[1]
  assert.is(await within(`${FILE_BYTES} bytes from ${url}`, TIMEOUT_MS, digestOf(url)), expected)
  const statsUrl = /curl (\S+\/stats)/.exec(demo.output)?.[1] ?? ''
  demo.child.kill('SIGINT')
  assert.is(await within('the end of the demo', TIMEOUT_MS, demo.exited), 0, demo.output)
  await waitFor(
    'its server has gone',
    () =>
      digestOf(statsUrl).then(
        () => false,
        () => true,
      ),
    TIMEOUT_MS,
  )
})

test.run()
