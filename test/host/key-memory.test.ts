// time limit: 120 s
/**
 * No key is left in the memory of a process after its endpoints closed. The process is this file started again; its
 * memory is read from outside through /proc, because a search of its own memory would find the needle itself.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { parsePsk } from '../../host/config/security.ts'
import { passwordKey } from '../../host/crypto/key.ts'
import { type Endpoint, startEndpoint } from '../../host/endpoint/endpoint.ts'
import { Log } from '../../host/log/log.ts'
import { variants } from '../../testkit/crypto-variants.ts'
import { skip } from '../skip.ts'
import { MemoryNetwork } from './memory-runtime.ts'

const MARK = 'KCPTUN_WASM_TEST_KEYS'
const PAGE_BYTES = 4096
/** Pages read at a time. */
const PAGES = 4096
/** Bits of a pagemap entry: in memory, or swapped out. */
const PRESENT = 0b11n << 62n
/** The sources of the keys. The child receives these texts; the derived keys exist only in this process. */
const PSK = 'KYLbNI3mP5jxSqP8Va4HYLkSa8Qdds8ogdozjOU+l/A='
const PASSWORD = 'the password of a test'

/** The child: opens an endpoint for each method, library and key source, and closes all on request. */
async function hold(): Promise<void> {
  const network = new MemoryNetwork()
  const endpoints: Endpoint[] = []
  const wanted = JSON.parse(process.env[MARK] ?? '[]') as object[]
  let port = 5000
  for (const { method, crypto } of variants) {
    for (const source of wanted) {
      const text = JSON.stringify({ kcp_bind: `127.0.0.1:${port++}`, connect: '127.0.0.1:9', method, ...source })
      const config = parseConfig(new TextEncoder().encode(text))
      endpoints.push(await startEndpoint(network.runtime(), config, new Log(() => {}), crypto))
    }
  }
  process.stdout.write('open\n')
  process.stdin.once('data', () => {
    for (const endpoint of endpoints) endpoint.close()
    process.stdout.write('closed\n')
  })
}

/** Counts the occurrences of each needle in the writable memory of a process. */
function search(pid: number, needles: readonly Uint8Array[]): number[] {
  const found = needles.map(() => 0)
  const [memory, pages] = [openSync(`/proc/${pid}/mem`, 'r'), openSync(`/proc/${pid}/pagemap`, 'r')]
  const entries = new BigUint64Array(PAGES)
  const chunk = Buffer.alloc(PAGES * PAGE_BYTES)
  /** Searches consecutive present pages. */
  const look = (first: number, count: number): void => {
    let length = 0
    try {
      length = readSync(memory, chunk, 0, count * PAGE_BYTES, first * PAGE_BYTES)
    } catch {
      // unmapped meanwhile
    }
    const bytes = chunk.subarray(0, length)
    for (const [i, needle] of needles.entries()) {
      for (let at = bytes.indexOf(needle); at >= 0; at = bytes.indexOf(needle, at + 1)) found[i] = (found[i] ?? 0) + 1
    }
  }
  for (const [, start = '', end = ''] of readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^(\w+)-(\w+) rw/gm)) {
    const last = Number.parseInt(end, 16) / PAGE_BYTES
    for (let page = Number.parseInt(start, 16) / PAGE_BYTES; page < last; page += PAGES) {
      const count = Math.min(PAGES, last - page)
      readSync(pages, new Uint8Array(entries.buffer), 0, count * 8, page * 8)
      for (let i = 0, from = -1; i <= count; i++) {
        const isThere = i < count && ((entries[i] ?? 0n) & PRESENT) !== 0n
        if (isThere && from < 0) from = i
        if (isThere || from < 0) continue
        look(page + from, i - from)
        from = -1
      }
    }
  }
  closeSync(memory)
  closeSync(pages)
  return found
}

/** The output of a child, line by line. */
async function* linesOf(child: ChildProcess): AsyncGenerator<string> {
  if (child.stdout !== null) for await (const line of createInterface({ input: child.stdout })) yield line
}

const test = suite('keys in memory')

function problem(): string | undefined {
  if (process.platform !== 'linux') return 'only Linux shows the memory of another process'
  try {
    closeSync(openSync(`/proc/${process.pid}/pagemap`, 'r'))
    return undefined
  } catch (error) {
    return `the memory of a process cannot be read: ${String(error)}`
  }
}

if (process.env[MARK] !== undefined) await hold()
else {
  const why = problem()
  if (why !== undefined) skip(test, 'all', why)
  else {
    test('keys are in memory while endpoints are open, and nowhere after they closed', async () => {
      const sources = [{ psk: PSK }, { password: PASSWORD }]
      const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? ''], {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: { ...process.env, [MARK]: JSON.stringify(sources) },
      })
      try {
        // the second half: an allocator may overwrite the first half of freed memory
        const keys = [parsePsk(PSK), await passwordKey(PASSWORD)].map((key) => key.subarray(16))
        const lines = linesOf(child)
        assert.is((await lines.next()).value, 'open')
        const open = search(child.pid ?? 0, keys)
        assert.ok(
          open.every((count) => count > 0),
          `the search finds what is there: ${open}`,
        )
        child.stdin?.write('close\n')
        assert.is((await lines.next()).value, 'closed')
        assert.equal(search(child.pid ?? 0, keys), [0, 0])
      } finally {
        child.kill('SIGKILL')
      }
    })
  }
  test.run()
}
