// time limit: 120 s
/**
 * The setup of a tunnel by a new user: `init`, `check`, the commands that `init` prints, `doctor`, a transfer.
 * Everything on this machine, through a shell, as printed.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, freePort, httpGet, type Program, projectRoot, run } from '../../testkit/process.ts'
import { dial, echoTarget, type Target } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const STEP_TIMEOUT_MS = 30_000
const SENT_BYTES = 200_000

const test = suite('setup')

/** Processes that a failed test would leave behind. */
const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

/** A command that runs until it is stopped. */
interface Service {
  log(): string
  /** Sends SIGTERM and returns the exit status. */
  stop(): Promise<number | null>
}

/** Runs a shell command in the directory where `init` ran. */
function shell(line: string): { child: ChildProcess; log(): string; ended: Promise<number | null> } {
  const child = spawn('/bin/sh', ['-c', line], { cwd: projectRoot, stdio: ['pipe', 'pipe', 'pipe'] })
  living.add(child)
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
  }
  const ended = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      living.delete(child)
      resolve(code)
    })
  })
  return { child, log: () => text, ended }
}

async function startService(line: string): Promise<Service> {
  const { child, log, ended } = shell(`exec ${line}`)
  let over = false
  void ended.then(() => {
    over = true
  })
  await waitFor(`${line} serves`, () => over || / start$/m.test(log()), STEP_TIMEOUT_MS, log)
  assert.not.ok(over, log())
  return {
    log,
    async stop() {
      child.kill('SIGTERM')
      return within(`${line} ends`, STEP_TIMEOUT_MS, ended)
    },
  }
}

/** The files and the output of `init`. */
interface Setup {
  readonly program: Program
  readonly dir: string
  readonly listenPort: number
  /** The printed command that starts an endpoint. */
  readonly command: Readonly<Record<'server' | 'client', string>>
  readonly config: Readonly<Record<'server' | 'client', Record<string, unknown>>>
}

async function init(program: Program, dir: string, target: Target): Promise<Setup> {
  const listenPort = await freePort()
  const words = ['--listen', String(listenPort), '--connect', target.address, '--dir', dir]
  const before = process.umask(0)
  const { code, stdout, stderr } = await run(program, [
    'init',
    '--server',
    `127.0.0.1:${await freePort()}`,
    ...words,
  ]).finally(() => process.umask(before))
  assert.is(code, 0, stderr)
  assert.equal(readdirSync(dir).sort(), ['client.json', 'server.json'])
  const command = (end: string): string => {
    const line = stdout.split('\n').find((text) => text.startsWith('    ') && text.endsWith(`${end}.json`))
    if (line === undefined) throw new Error(`no command for the ${end}: ${stdout}`)
    return line.trim()
  }
  const config = (end: string): Record<string, unknown> => {
    const path = join(dir, `${end}.json`)
    assert.is(statSync(path).mode & 0o777, 0o600, 'its owner alone can read it')
    return JSON.parse(readFileSync(path, 'utf8'))
  }
  const [server, client] = [config('server'), config('client')]
  assert.not.ok(stdout.includes(String(client['psk'])), 'the key is not shown')
  for (const { http_listen } of [server, client]) assert.match(stdout, `http://${http_listen}/`)
  return {
    program,
    dir,
    listenPort,
    command: { server: command('server'), client: command('client') },
    config: { server, client },
  }
}

async function check({ program, dir }: Setup): Promise<void> {
  for (const end of ['server', 'client']) {
    const { code, stdout, stderr } = await run(program, ['check', '-c', join(dir, `${end}.json`), '--json'])
    assert.is(code, 0, stderr)
    const { valid, mode, warnings } = JSON.parse(stdout)
    assert.equal({ valid, mode, warnings }, { valid: true, mode: end, warnings: [] })
  }
}

async function transfer({ listenPort, config }: Setup): Promise<void> {
  const app = await dial('127.0.0.1', listenPort, { keep: SENT_BYTES })
  await app.pour(SENT_BYTES, 1)
  app.finish()
  const ending = await within('everything to come back', STEP_TIMEOUT_MS, app.ending)
  assert.equal([ending.kind, ending.bytes], ['fin', SENT_BYTES])
  for (const { http_listen } of [config.server, config.client]) {
    assert.match(await httpGet(`http://${http_listen}/healthy`), /^healthy/)
  }
}

/** Asserts that the doctor finds both endpoints healthy. */
async function examine({ program, dir }: Setup): Promise<void> {
  for (const end of ['server', 'client']) {
    const { code, stdout } = await run(program, ['doctor', '-c', join(dir, `${end}.json`), '--json', '--seconds', '1'])
    assert.equal([code, JSON.parse(stdout).verdict], [0, 'healthy'], stdout)
  }
}

for (const program of RUNTIMES) {
  test(`init, check, the two printed commands and doctor set up a tunnel: ${program}`, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const target = await echoTarget()
    const services: Service[] = []
    try {
      const setup = await init(program, dir, target)
      await check(setup)
      services.push(await startService(setup.command.server))
      services.push(await startService(setup.command.client))
      await examine(setup)
      await transfer(setup)
      for (const service of services) assert.is(await service.stop(), 0, service.log())
    } finally {
      await target.close()
      for (const service of services) await service.stop()
      rmSync(dir, { recursive: true })
    }
  })

  const asks = `init prompts on a terminal for missing flags: ${program}`
  if (process.platform !== 'linux' || !existsSync('/usr/bin/script')) {
    skip(test, asks, 'needs /usr/bin/script of util-linux for a terminal')
    continue
  }
  test(asks, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    const { child, log, ended } = shell(
      `exec script -qec '${commandOf(program).join(' ')} init --dir ${dir} --connect 80' /dev/null`,
    )
    try {
      for (const [question, answer] of [
        ['Address of the server', 'vpn.example:0'],
        ['port must not be 0', 'vpn.example:4000'],
        ['accepts applications', ''],
      ] as const) {
        await waitFor(question, () => log().includes(question), STEP_TIMEOUT_MS, log)
        child.stdin?.write(`${answer}\n`)
      }
      assert.is(await within('the end', STEP_TIMEOUT_MS, ended), 0, log())
      const { listen, kcp_connect } = JSON.parse(readFileSync(join(dir, 'client.json'), 'utf8'))
      assert.equal({ listen, kcp_connect }, { listen: '127.0.0.1:1080', kcp_connect: 'vpn.example:4000' })
    } finally {
      child.kill('SIGKILL')
      rmSync(dir, { recursive: true })
    }
  })
}

test.run()
