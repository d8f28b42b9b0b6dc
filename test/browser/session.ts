/**
 * Creates docs/session.svg (`npm run docs:record`): the terminals of somebody who follows "A tunnel in 60 seconds" of
 * README.md, recorded from a real run. A laptop behind a NAT router and a server in network namespaces, between them an
 * emulated link with delay and loss, real OpenSSH. Needs root, tmux, OpenSSH's client and server, and koffi.
 */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runEmulator, startTunLink } from '../../testkit/emulator.ts'
import { HostsFile } from '../../testkit/hosts-file.ts'
import { Namespace, netnsProblem } from '../../testkit/namespace.ts'
import { Terminal, terminalProblem } from '../../testkit/terminal.ts'
import { type Frame, svgOf } from '../../testkit/terminal-svg.ts'
import { TUN_DEVICE } from '../../testkit/tun-link.ts'
import { sleep } from '../../testkit/wait.ts'

const OUTPUT = 'docs/session.svg'
const COLUMNS = 98
const ROWS = 23
const LINK = { delay: 26, loss: 0.01, rate: 100e6, queue: 512 << 10 }
const FILE_BYTES = 40e6
/** Characters that are typed at once, and the pause after them, ms. */
const TYPED = 3
const TYPED_MS = 60
/** Interval of the pictures, and the longest time for which nothing changes in the recording, ms. */
const FRAME_MS = 80
const STILL_MS = 2000
const LIMIT_MS = 60_000

const LAPTOP = 'laptop, behind a NAT'
const SERVER = 'server.example'
const SECOND = 'laptop, a second terminal'

/** The network, and what a shell there needs. */
async function openWorld(home: string) {
  const [laptop, router, server] = ['laptop', 'router', 'server'].map((title) => new Namespace(title))
  if (laptop === undefined || router === undefined || server === undefined) throw new Error('no namespaces')
  const link = await startTunLink({ left: router.name, right: server.name, up: LINK, down: LINK, seed: 5 })
  router.forward()
  router.ip(
    `link add lan type veth peer name eth0 netns ${laptop.name}
     addr add 192.168.1.1/24 dev lan
     link set lan up
     addr add 203.0.113.20/24 dev ${TUN_DEVICE}
     link set ${TUN_DEVICE} up`,
  )
  router.run(
    ['nft', '-f', '-'],
    `table ip nat {
       chain postrouting {
         type nat hook postrouting priority srcnat
         oifname "${TUN_DEVICE}" masquerade
       }
     }`,
  )
  laptop.ip('addr add 192.168.1.20/24 dev eth0\nlink set eth0 up\nroute add default via 192.168.1.1')
  server.ip(`addr add 203.0.113.9/24 dev ${TUN_DEVICE}\nlink set ${TUN_DEVICE} up\nroute add default via 203.0.113.20`)
  const names = new HostsFile()
  names.set('localhost', '127.0.0.1')
  names.set('server.example', '203.0.113.9')
  mkdirSync(join(home, 'bin'))
  symlinkSync(join(process.cwd(), 'dist/cli.js'), join(home, 'bin/kcptun-wasm'))
  /** The words that run a shell script on a machine whose /root is a directory here. */
  const on = (namespace: Namespace, title: string, script: string): string[] => {
    const inside = `mount --bind ${join(home, title)} /root && cd /root && HOME=/root PATH=${join(home, 'bin')}:$PATH exec ${script}`
    return ['ip', 'netns', 'exec', namespace.name, ...names.wrapper, 'sh', '-c', inside]
  }
  const close = async (): Promise<void> => {
    await link.close()
    for (const namespace of [laptop, router, server]) namespace.remove()
    names.remove()
  }
  return { laptop, server, on, close }
}

/** Keys of both machines, as after an earlier login; and the file that is sent. */
function prepare(home: string): void {
  for (const title of ['laptop', 'server']) mkdirSync(join(home, title, '.ssh'), { recursive: true, mode: 0o700 })
  const key = (path: string): void => {
    const { status, stderr } = spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', path])
    if (status !== 0) throw new Error(`ssh-keygen: ${stderr}`)
  }
  key(join(home, 'laptop/.ssh/id_ed25519'))
  key(join(home, 'host_key'))
  spawnSync('cp', [join(home, 'laptop/.ssh/id_ed25519.pub'), join(home, 'server/.ssh/authorized_keys')])
  writeFileSync(join(home, 'laptop/.ssh/config'), 'StrictHostKeyChecking accept-new\nLogLevel ERROR\n')
  writeFileSync(join(home, 'laptop/photos.tar'), Buffer.alloc(FILE_BYTES, 'kcptun-wasm'))
  writeFileSync(
    join(home, 'sshd_config'),
    `HostKey ${join(home, 'host_key')}\nPidFile none\nStrictModes no\nPermitRootLogin yes\nUsePAM no\nSubsystem sftp internal-sftp\n`,
  )
  chmodSync(join(home, 'laptop/.ssh/config'), 0o600)
}

/** A terminal in which somebody types, and the pictures of it. */
class Recorder {
  readonly frames: Frame[] = []
  readonly #terminals = new Map<string, Terminal>()
  #shown = ''
  #at = 0
  #takenAt = performance.now()

  open(title: string, shell: readonly string[]): void {
    const quoted = shell.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
    this.#terminals.set(title, new Terminal(COLUMNS, ROWS, quoted))
  }

  get #terminal(): Terminal {
    const terminal = this.#terminals.get(this.#shown)
    if (terminal === undefined) throw new Error(`no terminal ${this.#shown}`)
    return terminal
  }

  show(title: string): void {
    this.#shown = title
  }

  /** Takes a picture. Time in which nothing changes passes at most STILL_MS long. */
  #take(): void {
    const screen = this.#terminal.styled()
    const last = this.frames.at(-1)
    const now = performance.now()
    this.#at = Math.min(this.#at + now - this.#takenAt, (last?.at ?? 0) + STILL_MS)
    this.#takenAt = now
    const frame = { at: this.#at, title: this.#shown, screen }
    if (last?.title === frame.title && JSON.stringify(last.screen) === JSON.stringify(screen)) return
    this.frames.push(frame)
  }

  get length(): number {
    return this.#at
  }

  async wait(ms: number): Promise<void> {
    for (const end = performance.now() + ms; performance.now() < end; await sleep(FRAME_MS)) this.#take()
    this.#take()
  }

  /** Types a command and waits until the terminal shows what is expected after it. */
  async type(command: string, expected: RegExp): Promise<void> {
    for (let at = 0; at < command.length; at += TYPED) {
      this.#terminal.type(command.slice(at, at + TYPED))
      await this.wait(TYPED_MS)
    }
    await this.wait(300)
    this.#terminal.key('Enter')
    await this.expect(expected)
  }

  async expect(expected: RegExp): Promise<void> {
    for (const end = performance.now() + LIMIT_MS; !expected.test(this.#terminal.screen()); await sleep(FRAME_MS)) {
      this.#take()
      if (performance.now() > end) throw new Error(`${expected} is not shown:\n${this.#terminal.screen()}`)
    }
    this.#take()
  }

  key(name: string): void {
    this.#terminal.key(name)
  }

  close(): void {
    for (const terminal of this.#terminals.values()) terminal.close()
  }
}

/** What is typed, terminal by terminal. */
async function story(recorder: Recorder): Promise<void> {
  const through = '-P 2222 -o HostKeyAlias=server.example photos.tar 127.0.0.1:'
  recorder.show(LAPTOP)
  await recorder.expect(/^\$$/m)
  await recorder.wait(800)
  await recorder.type(
    'kcptun-wasm init --server server.example:4000 --listen 2222 --connect 22',
    /Troubleshooting.*\n+\$$/m,
  )
  await recorder.wait(STILL_MS)
  await recorder.type('scp server.json server.example:', /100%.*\n+\$$/m)
  await recorder.wait(1000)
  recorder.show(SERVER)
  await recorder.wait(800)
  await recorder.type('kcptun-wasm -c server.json', /server start/)
  await recorder.wait(1500)
  recorder.show(LAPTOP)
  recorder.key('C-l')
  await recorder.wait(600)
  await recorder.type('kcptun-wasm -c client.json', /connected: /)
  await recorder.wait(STILL_MS)
  recorder.show(SECOND)
  await recorder.wait(600)
  await recorder.type(`scp ${through}`, /100%.*\n+\$$/m)
  await recorder.wait(1500)
  await recorder.type('kcptun-wasm doctor -c client.json', /^(healthy|degraded|broken): /m)
  await recorder.wait(STILL_MS)
  recorder.key('C-l')
  await recorder.type(`scp -q ${through} &`, /^\[1\]/m)
  await recorder.wait(300)
  await recorder.type('kcptun-wasm top -c client.json', /sessions: /)
  // while the transfer runs
  await recorder.wait(2200)
}

async function record(): Promise<void> {
  const sshd = '/usr/sbin/sshd'
  const problem =
    netnsProblem ?? terminalProblem ?? (existsSync(sshd) ? undefined : `there is no ${sshd}: install openssh-server`)
  if (problem !== undefined) throw new Error(problem)
  const home = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const recorder = new Recorder()
  const world = await openWorld(home)
  prepare(home)
  const [program = '', ...words] = world.on(
    world.server,
    'server',
    `sh -c 'mkdir -p /run/sshd && exec ${sshd} -D -e -f ${join(home, 'sshd_config')}'`,
  )
  const daemon = spawn(program, words, { stdio: 'ignore' })
  try {
    const shell = `env TERM=tmux-256color LC_ALL=C.UTF-8 PS1='$ ' HISTFILE= bash --norc --noprofile`
    recorder.open(LAPTOP, world.on(world.laptop, 'laptop', shell))
    recorder.open(SERVER, world.on(world.server, 'server', shell))
    recorder.open(SECOND, world.on(world.laptop, 'laptop', shell))
    await story(recorder)
  } finally {
    daemon.kill()
    recorder.close()
    await world.close()
    rmSync(home, { recursive: true, force: true })
  }
  const { frames, length } = recorder
  const svg = svgOf({
    columns: COLUMNS,
    rows: ROWS,
    titles: [LAPTOP, SERVER, SECOND],
    frames,
    length,
    description: 'kcptun-wasm init, scp of server.json, both ends started, a file sent through the tunnel, doctor, top',
  })
  for (const secret of [home, process.cwd()]) if (svg.includes(secret)) throw new Error(`the recording shows ${secret}`)
  writeFileSync(OUTPUT, svg)
  console.log(`${OUTPUT}: ${svg.length} bytes, ${frames.length} frames, ${Math.round(length / 1000)} s`)
}

if (process.argv[2] === 'emulator') await runEmulator(process.argv.slice(3))
else await record()
