/**
 * `npm run demo`: a complete tunnel on one machine. A server (Node) and a client (Bun) run as separate processes with a
 * new key, connected by an emulated link (50 ms round trip, 2 % loss each way), with a file service behind the server.
 * The demo downloads a file through the tunnel, verifies it, and prints the cost. `--keep` leaves everything running
 * for experiments.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, get, type IncomingMessage } from 'node:http'
import { createServer as createTcpServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type LinkCounters, openLink } from '../../testkit/link.ts'

const FILE_BYTES = 32 << 20
const METHOD = 'xchacha20poly1305_ietf'
const LINK = { delay: 25, loss: 0.02, seed: 20 }
const START_TIMEOUT_MS = 20_000
/** The download is aborted after this time without data. */
const STALL_TIMEOUT_MS = 30_000
/** Bytes of IP and UDP headers of a datagram on the wire. */
const HEADER_BYTES = 28
/** Size of a full datagram with the default kcp.mtu of 1400, and its stream bytes with this method (protocol.md 4). */
const FULL_DATAGRAM_BYTES = 1372
const SEGMENT_BYTES = 1308
const MIB = 1 << 20

const root = fileURLToPath(new URL('..', import.meta.url))
const nodeCli = join(root, 'dist/node/cli.js')
const bunCli = join(root, 'dist/bun/cli.js')
const keep = process.argv.includes('--keep')
const children: ChildProcess[] = []
const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-demo-'))

process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(directory, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(keep ? 0 : 1))

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

function giveUp(reason: string): never {
  process.stderr.write(`demo: ${reason}\n`)
  process.exit(1)
}

/** Different ports that were free at the time of the check. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createTcpServer())
  const ports = await Promise.all(servers.map(listenLocally))
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
  return ports
}

/** Binds to a free port of the loopback interface and returns the port. */
function listenLocally(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      if (address !== null && typeof address === 'object') resolve(address.port)
      else reject(new Error('no port'))
    })
  })
}

/** Starts one endpoint of the tunnel; prints its log if it ends too early. */
function startEnd(name: string, command: string, cli: string, config: object): void {
  const file = join(directory, `${name}.json`)
  writeFileSync(file, JSON.stringify(config, null, 2), { mode: 0o600 })
  const child = spawn(command, [cli, '-c', file], { stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  let log = ''
  const collect = (chunk: Buffer): void => {
    log = (log + chunk.toString()).slice(-4000)
  }
  child.stdout.on('data', collect)
  child.stderr.on('data', collect)
  child.on('error', (error) => giveUp(`cannot start the ${name}: ${error.message}`))
  child.on('exit', (code, signal) => giveUp(`the ${name} ended unexpectedly (${code ?? signal})\n${log}`))
}

function request(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, resolve).once('error', reject)
  })
}

async function textOf(url: string): Promise<string> {
  const response = await request(url)
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += String(chunk)
  if (response.statusCode !== 200) throw new Error(`${url}: status ${response.statusCode}`)
  return text
}

/** Waits until the monitoring server of a program answers. */
async function ready(name: string, stats: string): Promise<void> {
  const end = performance.now() + START_TIMEOUT_MS
  for (;;) {
    try {
      await textOf(stats)
      return
    } catch (error) {
      if (performance.now() > end) giveUp(`the ${name} does not answer at ${stats}: ${String(error)}`)
      await new Promise((done) => setTimeout(done, 50))
    }
  }
}

/** The file: seeded pseudo-random bytes (an AES-CTR key stream). */
const file = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16)).update(Buffer.alloc(FILE_BYTES))
const expected = createHash('sha256').update(file).digest('hex')

/** Serves the file at every path; returns the port. */
function startFileService(): Promise<number> {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': FILE_BYTES })
    response.end(file)
  })
  return listenLocally(server)
}

/** Shows the progress of the download: a bar on a terminal, else a line for each eighth. */
function progress(startedAt: number): (bytes: number) => void {
  const terminal = process.stdout.isTTY
  let shown = 0
  return (bytes) => {
    const now = performance.now()
    const done = bytes === FILE_BYTES
    const due = terminal ? now - shown > 100 : bytes >= shown + FILE_BYTES / 8
    if (!due && !done) return
    shown = terminal ? now : bytes - (bytes % (FILE_BYTES / 8))
    const rate = bytes / MIB / ((now - startedAt) / 1000)
    const text = `${(bytes / MIB).toFixed(1).padStart(5)} of ${FILE_BYTES / MIB} MiB  ${rate.toFixed(2)} MiB/s`
    if (!terminal) return say(text)
    const width = 40
    const filled = Math.round((bytes / FILE_BYTES) * width)
    process.stdout.write(`\r[${'#'.repeat(filled)}${'.'.repeat(width - filled)}] ${text} ${done ? '\n' : ''}`)
  }
}

async function download(url: string): Promise<{ seconds: number; sha256: string; bytes: number }> {
  const startedAt = performance.now()
  const show = progress(startedAt)
  const response = await request(url)
  response.setTimeout(STALL_TIMEOUT_MS, () => giveUp(`no data for ${STALL_TIMEOUT_MS / 1000} s`))
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of response) {
    if (!(chunk instanceof Uint8Array)) continue
    hash.update(chunk)
    bytes += chunk.length
    show(bytes)
  }
  return { seconds: (performance.now() - startedAt) / 1000, sha256: hash.digest('hex'), bytes }
}

const onWire = (counters: LinkCounters): number => counters.bytes + counters.packets * HEADER_BYTES

for (const cli of [nodeCli, bunCli]) if (!existsSync(cli)) giveUp(`${cli} is missing: run npm run build`)
const bun = join(root, 'node_modules/bun/bin/bun.exe')
const psk = execFileSync(process.execPath, [nodeCli, '--genpsk', METHOD], { encoding: 'utf8' }).trim()
const filePort = await startFileService()
const [udpPort = 0, listenPort = 0, serverHttp = 0, clientHttp = 0] = await freePorts(4)
// Sealed datagrams are opaque, but nearly every one with file data is full and never padded.
let fullDatagrams = 0
const link = await openLink({
  ...LINK,
  target: { host: '127.0.0.1', port: udpPort },
  tap: (direction, datagram) => {
    if (direction === 'down' && datagram.length === FULL_DATAGRAM_BYTES) fullDatagrams++
    return true
  },
})
const serverStats = `http://127.0.0.1:${serverHttp}/stats`
const clientStats = `http://127.0.0.1:${clientHttp}/stats`
const common = { method: METHOD, psk, loglevel: 4 }
startEnd('server', process.execPath, nodeCli, {
  ...common,
  kcp_bind: `127.0.0.1:${udpPort}`,
  connect: `127.0.0.1:${filePort}`,
  http_listen: `127.0.0.1:${serverHttp}`,
})
startEnd('client', existsSync(bun) ? bun : 'bun', bunCli, {
  ...common,
  listen: `127.0.0.1:${listenPort}`,
  kcp_connect: `127.0.0.1:${link.port}`,
  http_listen: `127.0.0.1:${clientHttp}`,
})
await Promise.all([ready('server', serverStats), ready('client', clientStats)])

const url = `http://127.0.0.1:${listenPort}/file`
say(
  `client (Bun) -> link: ${2 * LINK.delay} ms round trip, ${LINK.loss * 100} % loss each way -> server (Node), ${METHOD}`,
)
say(`downloading ${FILE_BYTES / MIB} MiB through the tunnel from ${url}`)
const result = await download(url).catch((error: Error) => giveUp(`the download failed: ${error.message}`))
if (result.bytes !== FILE_BYTES) giveUp(`received ${result.bytes} bytes instead of ${FILE_BYTES}`)
if (result.sha256 !== expected) giveUp(`SHA-256 is ${result.sha256}, expected ${expected}`)

const { up, down } = link.counters
const total = onWire(up) + onWire(down)
const needed = Math.ceil(FILE_BYTES / SEGMENT_BYTES)
const again = Math.max(0, fullDatagrams - needed)
const percent = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(1)} %`
say(`SHA-256          ${result.sha256} (as expected)`)
say(`goodput          ${(result.bytes / MIB / result.seconds).toFixed(2)} MiB/s in ${result.seconds.toFixed(1)} s`)
say(
  `lost on the link ${down.lost} of ${down.packets} datagrams down (${percent(down.lost, down.packets)}), ${up.lost} of ${up.packets} up`,
)
say(`retransmissions  about ${again} of ${fullDatagrams} full datagrams (${percent(again, fullDatagrams)})`)
say(
  `overhead         ${percent(total - result.bytes, result.bytes)}: ${(total / MIB).toFixed(1)} MiB on the wire with all headers, both ways`,
)

if (keep) {
  say(`\nstill running; Ctrl-C ends it. Try:\n  curl -o /dev/null ${url}\n  curl ${serverStats}\n  curl ${clientStats}`)
} else {
  for (const child of children) child.removeAllListeners('exit')
  process.exit(0)
}
