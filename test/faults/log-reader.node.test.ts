// time limit: 240 s
/**
 * The reader of the log stops: a full pipe, a full socket (as of journald), a terminal after Ctrl-S, a pipe that the
 * process may write to but not open. Connections and signals are served all the same; the lines lost are counted and
 * the count is logged when the reader goes on.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config, Program } from '../../testkit/process.ts'
import { commandOf, freePort, start, writeConfig } from '../../testkit/process.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const LIMIT_MS = 20_000
/** Opened and closed while the log is stuck; each logs two lines. */
const CONNECTIONS = 20
/** More than a pipe or a socket holds. */
const FILLER_BYTES = 1_000_000
const CTRL_S = '\x13'
const CTRL_Q = '\x11'

const test = suite('faults: log reader')

type Kind = 'pipe' | 'socket' | 'terminal' | 'foreign pipe'

interface Stuck {
  readonly child: ChildProcess
  /** The log so far. */
  text(): string
  /** Fills what lies between the program and the reader, who has stopped. */
  stop(): Promise<void>
  /** Reads on. */
  resume(): void
  close(): void
}

const quoted = (words: readonly string[]): string => words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')

/**
 * The program as a shell runs it. Its pid and that of a filler are logged; the filler starts at each line of input. Node
 * makes standard error non-blocking when a connection ends, which would end the filler: they do not share it.
 */
function shellText(command: string, marks: string): string {
  const filler = `echo filler $$; while read go; do for i in 1 2 3; do head -c ${FILLER_BYTES} /dev/zero 2>/dev/null; sleep 0.1; done; echo >>${marks}; done`
  return `exec 3<&0; sh -c '${filler}' <&3 & echo pid $$; exec ${command} </dev/null 2>/dev/null 3<&-`
}

function launch(kind: Kind, command: readonly string[]): Stuck {
  const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const marks = join(directory, 'marks')
  writeFileSync(marks, '')
  let child: ChildProcess
  let output: Readable | null
  if (kind === 'terminal') {
    const inner = `echo pid $$; exec ${quoted(command)}`
    child = spawn('script', ['-qefc', inner, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] })
    output = child.stdout
  } else if (kind === 'socket') {
    // what Node calls a pipe is a pair of sockets
    child = spawn('sh', ['-c', `exec 2>&1; ${shellText(quoted(command), marks)}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    output = child.stdout
  } else {
    const fifo = join(directory, 'log')
    spawnSync('mkfifo', ['-m', '600', fifo])
    // root opens the pipe, an ordinary user runs the program: it cannot be opened again
    const wrapper = kind === 'pipe' ? [] : ['setpriv', '--reuid=12345', '--regid=12345', '--clear-groups']
    const text = `exec >'${fifo}' 2>&1; ${shellText(quoted([...wrapper, ...command]), marks)}`
    child = spawn('sh', ['-c', text], { stdio: ['pipe', 'ignore', 'inherit'] })
    output = createReadStream(fifo)
  }
  let text = ''
  child.stdin?.on('error', () => {})
  output?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk.replaceAll('\0', '').replaceAll('\r', '')
  })
  return {
    child,
    text: () => text,
    async stop() {
      if (kind === 'terminal') return void child.stdin?.write(CTRL_S)
      output?.pause()
      child.stdin?.write('go\n')
      const filler = Number(/^filler (\d+)/m.exec(text)?.[1])
      const marked = statSync(marks).size
      let before = -1
      await waitFor('the output is full', () => {
        const now = bytesWritten(childOf(filler))
        // a filler whose output is non-blocking ends when it is full; it runs again as the reader still takes a part
        const isFull = (now > 0 && now === before) || statSync(marks).size > marked
        before = now
        return isFull
      })
    },
    resume() {
      if (kind === 'terminal') child.stdin?.write(CTRL_Q)
      else output?.resume()
    },
    close() {
      child.kill('SIGKILL')
      output?.destroy()
      rmSync(directory, { recursive: true })
    },
  }
}

const childOf = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0])

/** Bytes that a process has written so far; 0 if it is gone. */
function bytesWritten(pid: number): number {
  try {
    return Number(/wchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1] ?? 0)
  } catch {
    return 0
  }
}

/** One connection through the tunnel: what was sent comes back. */
function exchange(port: number): Promise<void> {
  return new Promise((done, fail) => {
    let answer = ''
    const socket = connect(port, '127.0.0.1', () => socket.end('hello'))
    socket.setEncoding('utf8').on('data', (chunk) => (answer += String(chunk)))
    socket.once('error', fail)
    socket.once('close', () => (answer === 'hello' ? done() : fail(new Error(`answer ${JSON.stringify(answer)}`))))
  })
}

async function stuckReader(program: Program, kind: Kind, more: Config): Promise<void> {
  const target = createServer((socket) => socket.pipe(socket))
  await new Promise<void>((done) => target.listen(0, '127.0.0.1', done))
  const bound = target.address()
  const targetPort = typeof bound === 'object' ? bound?.port : 0
  target.on('connection', (socket) => socket.on('error', () => {}))
  const [udp, port] = [await freePort(), await freePort()]
  const server = await start('node', { kcp_bind: `127.0.0.1:${udp}`, connect: `127.0.0.1:${targetPort}` })
  const config = { listen: `127.0.0.1:${port}`, kcp_connect: `127.0.0.1:${udp}`, loglevel: 8, ...more }
  const file = writeConfig(config)
  if (kind === 'foreign pipe') spawnSync('chown', ['-R', '12345', join(file.path, '..')])
  const stuck = launch(kind, [...commandOf(program), '-c', file.path])
  const ended = new Promise<number | null>((done) => stuck.child.once('close', done))
  try {
    await waitFor('the client serves', () => / client start$/m.test(stuck.text()), LIMIT_MS, stuck.text)
    const pid = Number(/^pid (\d+)/m.exec(stuck.text())?.[1])
    await exchange(port)
    await waitFor('the log arrives', () => stuck.text().includes('session closed'), LIMIT_MS)
    await stuck.stop()
    for (let i = 0; i < CONNECTIONS; i++) await within('an exchange', LIMIT_MS, exchange(port))
    const before = stuck.text().length
    stuck.resume()
    const count = /(\d+) log lines? (?:was|were) dropped/
    await waitFor(
      'the count is logged',
      () => count.test(stuck.text()),
      LIMIT_MS,
      () => stuck.text().slice(before, 3000),
    )
    // a terminal of 4 KiB takes some lines although it is stopped
    assert.ok(Number(count.exec(stuck.text())?.[1]) >= CONNECTIONS / 2)
    for (const line of stuck.text().split('\n'))
      assert.match(line, /^([A-Z] \d{4}-\d\d-\d\dT.*|pid \d+|filler \d+|)$/, 'lines are whole')
    await stuck.stop()
    for (let i = 0; i < CONNECTIONS; i++) await within('an exchange', LIMIT_MS, exchange(port))
    process.kill(pid, 'SIGTERM')
    await waitFor('the program has ended', () => !isAlive(pid), LIMIT_MS)
    stuck.resume()
    if (kind !== 'terminal') assert.is(await within('the end', LIMIT_MS, ended), 0)
  } finally {
    stuck.close()
    file.remove()
    await server.stop()
    target.close()
  }
}

function isAlive(pid: number): boolean {
  return (
    spawnSync('sh', ['-c', `grep -q '^State:[[:space:]]*[^Z]' /proc/${pid}/status`], { stdio: 'ignore' }).status === 0
  )
}

const isRoot = process.getuid?.() === 0

for (const program of RUNTIMES) {
  for (const kind of ['pipe', 'socket', 'terminal', 'foreign pipe'] as const) {
    const name = `a log reader that stops neither stops traffic nor SIGTERM: ${kind}, ${program}`
    if (process.platform !== 'linux') skip(test, name, 'not Linux')
    else if (kind === 'foreign pipe' && !isRoot) skip(test, name, 'not root')
    else test(name, () => stuckReader(program, kind, {}))
  }
  const bare = `a log reader that stops, without native code: ${program}`
  if (process.platform !== 'linux') skip(test, bare, 'not Linux')
  else test(bare, () => stuckReader(program, 'socket', { native: false }))
  const name = `a log reader that stops, with workers: ${program}`
  if (process.platform !== 'linux') skip(test, name, 'not Linux')
  else test(name, () => stuckReader(program, 'pipe', { workers: 2 }))
}

test.run()
