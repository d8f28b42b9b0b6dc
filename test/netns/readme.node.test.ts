// time limit: 120 s
/**
 * The commands of README.md, as they stand there, by somebody behind a NAT router: a tunnel to a server with a public
 * address, and a game between two homes. What `init` says to copy is copied, and the link it prints is pasted.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { netnsProblem } from '../../testkit/namespace.ts'
import { type Host, World } from '../../testkit/netns.ts'
import { projectRoot } from '../../testkit/process.ts'
import { digest, patternBytes } from '../../testkit/tcp.ts'
import type { ScriptedTarget } from '../../testkit/traffic.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT_MS = 60_000
const TRANSFER_BYTES = 3_000_000

const test = suite('netns: README.md')

/** The commands below a heading of README.md, without their comments. */
function commandsBelow(heading: string): string[] {
  const [, section = ''] = readFileSync(join(projectRoot, 'README.md'), 'utf8').split(`\n## ${heading}\n`)
  const [own = ''] = section.split(/\n## /)
  const blocks = [...own.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) => block)
  return blocks.flatMap((block) => block.trim().split('\n')).map((line) => line.replace(/\s+#.*/, ''))
}

/** The one command that contains a text. */
function the(commands: readonly string[], text: string): string {
  const found = commands.filter((command) => command.includes(text))
  assert.is(found.length, 1, `${text} in ${commands.join('; ')}`)
  return found[0] ?? ''
}

/** Somebody's machine: a host, a directory, and a shell that finds the program. */
class Machine {
  readonly host: Host
  readonly directory: string
  readonly #prefix: readonly string[]
  readonly #programs: string
  readonly #running: { child: ChildProcess; ended: Promise<number | null> }[] = []

  constructor(host: Host, names: HostsFile, home: string, title: string) {
    this.host = host
    this.directory = join(home, title)
    this.#prefix = ['netns', 'exec', host.namespace.name, ...names.wrapper]
    this.#programs = join(home, 'bin')
    mkdirSync(this.directory)
  }

  #shell(command: string): { child: ChildProcess; log: () => string; ended: Promise<number | null> } {
    const env = { ...process.env, PATH: `${this.#programs}:${process.env['PATH']}` }
    const child = spawn('ip', [...this.#prefix, 'sh', '-c', `exec ${command}`], { cwd: this.directory, env })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
    }
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
    const running = { child, log: () => text, ended }
    this.#running.push(running)
    return running
  }

  /** Runs a command to its end. @returns what it prints */
  async type(command: string, input = ''): Promise<string> {
    const { child, log, ended } = this.#shell(command)
    child.stdin?.end(input)
    assert.is(await within(command, LIMIT_MS, ended), 0, log())
    return log()
  }

  /** Starts a command that runs until the end of the test. @returns its log */
  start(command: string): () => string {
    return this.#shell(command).log
  }

  async close(): Promise<void> {
    for (const { child } of this.#running) child.kill('SIGTERM')
    for (const { ended } of this.#running) await within('the end of a program', LIMIT_MS, ended)
  }
}

/** Copies what the output of a command says to copy with scp. */
function copyAsPrinted(output: string, from: Machine, to: Readonly<Record<string, Machine>>): void {
  for (const [, file = '', name = ''] of output.matchAll(/^ +scp (\S+) (\S+):$/gm)) {
    const machine = to[name]
    assert.ok(machine, `scp to ${name}`)
    copyFileSync(join(from.directory, file), join(machine.directory, file))
  }
}

/** Sends bytes through the port of a client, and compares what the target gets, and what comes back. */
async function assertTransfers(client: Machine, port: number, target: ScriptedTarget): Promise<void> {
  const bytes = patternBytes(TRANSFER_BYTES, target.port)
  const accepted = target.serve(() => {})
  const app = await client.host.dial('127.0.0.1', port)
  const there = await within('a connection at the target', LIMIT_MS, accepted)
  for (const [from, to] of [
    [app, there],
    [there, app],
  ] as const) {
    await from.send(bytes)
    from.finish()
    const ending = await within('the transfer', LIMIT_MS, to.ending)
    assert.equal([ending.kind, ending.sha256], ['fin', digest(bytes)])
  }
}

if (netnsProblem !== undefined) {
  skip(test, 'all', netnsProblem)
} else {
  const world = new World()
  const home = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const names = new HostsFile()
  mkdirSync(join(home, 'bin'))
  symlinkSync(join(projectRoot, 'dist/cli.js'), join(home, 'bin/kcptun-wasm'))
  const laptop = new Machine(world.addHost('laptop', world.addRouter('cafe', 1)), names, home, 'laptop')
  const den = new Machine(world.addHost('den', world.addRouter('home', 2)), names, home, 'den')
  const server = new Machine(world.addPublicHost('server', 50), names, home, 'server')
  const third = new Machine(world.net, names, home, 'third')
  names.set('server.example', server.host.addresses[4])
  names.set('rendezvous.example', third.host.addresses[4])
  const machines = [laptop, den, server, third]
  test.after.each(async () => {
    for (const machine of machines) await machine.close()
    for (const { directory } of machines) {
      for (const file of readdirSync(directory)) rmSync(join(directory, file))
    }
  })
  test.after(() => {
    world.close()
    names.remove()
    rmSync(home, { recursive: true })
  })

  test('a tunnel in 60 seconds: a client behind a NAT reaches port 22 of the server', async () => {
    const commands = commandsBelow('A tunnel in 60 seconds')
    const printed = await laptop.type(the(commands, 'init'))
    copyAsPrinted(printed, laptop, { 'server.example': server })
    // in any order
    const log = laptop.start(the(commands, '-c client.json'))
    server.start(the(commands, '-c server.json'))
    await waitFor(
      'the client is connected',
      () => /connected: 203\.0\.113\.50:4000 answers in/.test(log()),
      LIMIT_MS,
      log,
    )
    const target = await server.host.target(22)
    await assertTransfers(laptop, 2222, target)
    const health = await laptop.type('kcptun-wasm health -c client.json')
    assert.match(health, 'healthy: server 203.0.113.50:4000 answers')
    assert.match(await laptop.type('kcptun-wasm check -c client.json'), 'client.json: valid, client')
    assert.match(await laptop.type('kcptun-wasm doctor -c client.json --seconds 1'), 'healthy: no problems found')
    await target.close()
  })

  test('both ends behind NAT: a player pastes the link and reaches the game server', async () => {
    const commands = commandsBelow('Both ends behind NAT')
    const printed = await den.type(the(commands, 'init'))
    copyAsPrinted(printed, den, { 'rendezvous.example': third })
    const [link = ''] = /^kcptun-wasm:\/\/\S+$/m.exec(printed) ?? []
    await laptop.type(the(commands, 'import'), `${link}\n`)
    // the worst order: nobody is there whom the others ask
    const log = laptop.start(the(commands, '-c client.json'))
    den.start(the(commands, '-c server.json'))
    third.start(the(commands, '-c rendezvous.json'))
    await waitFor('both meet', () => /connected: 203\.0\.113\.20:\d+ answers in/.test(log()), LIMIT_MS, log)
    const target = await den.host.target(25565)
    await assertTransfers(laptop, 25565, target)
    await target.close()
  })
}

test.run()
