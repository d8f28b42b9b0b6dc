/** `npm run bench -- NAME`: runs a benchmark by name. */
import { runAgent } from '../testkit/agent.ts'
import { runEmulator } from '../testkit/emulator.ts'
import { runCalibration } from './calibration.ts'
import { benchCore } from './core.ts'
import { benchDatagrams } from './datagrams.ts'
import { benchIp } from './ip.ts'
import { benchLibrary, runLibraryEnd } from './library.ts'
import { benchLinks } from './links.ts'
import { benchLatency, benchLoopback } from './loopback.ts'
import { benchMemory, benchOpen } from './many.ts'
import { benchNative } from './native.ts'
import { benchObfs } from './obfs.ts'
import { benchPaths } from './paths.ts'
import { benchSim } from './sim.ts'
import { benchTunnels } from './tunnels.ts'

const benches: ReadonlyMap<string, () => void | Promise<void>> = new Map([
  ['core', () => benchCore(process.argv.slice(3))],
  ['sim', () => benchSim(process.argv.slice(3))],
  ['links', () => benchLinks(process.argv.slice(3))],
  ['ip', () => benchIp(process.argv.slice(3))],
  ['paths', () => benchPaths(process.argv.slice(3))],
  ['loopback', () => benchLoopback(process.argv.slice(3))],
  ['latency', () => benchLatency(process.argv.slice(3))],
  ['open', () => benchOpen(process.argv.slice(3))],
  ['memory', () => benchMemory(process.argv.slice(3))],
  ['datagrams', () => benchDatagrams(process.argv.slice(3))],
  ['obfs', () => benchObfs(process.argv.slice(3))],
  ['library', () => benchLibrary(process.argv.slice(3))],
  ['tunnels', () => benchTunnels(process.argv.slice(3))],
  ['native', () => benchNative(process.argv.slice(3))],
])

const name = process.argv[2]
// internal: this process started again as the link emulator or in another place
const parts: ReadonlyMap<string, () => void | Promise<void>> = new Map([
  ['emulator', () => runEmulator(process.argv.slice(3))],
  ['agent', () => runAgent()],
  ['calibrate', () => runCalibration(process.argv.slice(3))],
  ['library-end', () => runLibraryEnd(process.argv.slice(3))],
])
const bench = parts.get(name ?? '') ?? benches.get(name ?? '')
if (!bench) {
  console.error(`usage: npm run bench -- NAME\n  NAME: ${[...benches.keys()].join(', ')}`)
  process.exit(1)
}
try {
  await bench()
} catch (error) {
  const { code, message } = error as { readonly code?: unknown; readonly message: string }
  if (typeof code !== 'string' || !code.startsWith('ERR_PARSE_ARGS')) throw error
  console.error(`bench ${name}: ${message}\nIts options are described in bench/RECORD.md.`)
  process.exit(1)
}
