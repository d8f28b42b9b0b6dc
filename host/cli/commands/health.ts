/**
 * `kcptun-wasm health`: whether the tunnel of a configuration works, as an exit status for supervisors and containers.
 * Ports and key are those of the file. The questions are PINGs from a port of its own (protocol.md 7.1), sealed with the
 * key, which neither end takes for a session.
 */

import { type Config, MODE_CLIENT, MODE_SERVER } from '../../config/config.ts'
import { checkStart } from '../../config/security.ts'
import { parseFile, tunnelOf } from '../../config/tunnels.ts'
import { withKey } from '../../crypto/key.ts'
import { methods } from '../../crypto/methods.ts'
import { openAead } from '../../crypto/open.ts'
import { messageOf } from '../../errors.ts'
import { formatAddress, parseHostPort, type SocketAddress } from '../../net/address.ts'
import { isUnix, parseUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import { NO_ADDRESSES, resolveAll } from '../../transport/resolver.ts'
import { Refusals } from '../doctor/host-checks.ts'
import { firstAnswer, Pinger } from '../doctor/pings.ts'
import { askMonitoring, listensUnix, onLoopback } from '../doctor/ports.ts'
import { Probe } from '../doctor/probe.ts'
import { ephemeral, round } from '../doctor/reachability.ts'
import { type Cipher, cipherOf, PLAIN } from '../doctor/voice.ts'
import { type Command, type CommandContext, configPath, readConfigFile, TUNNEL } from './command.ts'

const HTTP_WAIT_MS = 3000
/** State of a listening socket in /proc/net/tcp. */
const TCP_LISTEN = '0A'

interface Examined {
  readonly runtime: Runtime
  readonly config: Config
  readonly own: Cipher
}

/** Why the tunnel does not work. */
class Unhealthy extends Error {}

/** Local ports in use, from /proc/net; undefined where it cannot be read. */
function portsInUse(runtime: Runtime, kind: 'tcp' | 'udp'): ReadonlySet<number> | undefined {
  const ports = new Set<number>()
  let tables = 0
  for (const table of [kind, `${kind}6`]) {
    try {
      const lines = runtime.os?.readText(`/proc/net/${table}`).split('\n') ?? []
      tables += lines.length
      for (const line of lines) {
        const [, local = '', , state] = line.trim().split(/\s+/)
        const [, port] = /:([0-9A-F]{4})$/.exec(local) ?? []
        if (port !== undefined && (kind === 'udp' || state === TCP_LISTEN)) ports.add(Number.parseInt(port, 16))
      }
    } catch {
      // not Linux, or a kernel without IPv6
    }
  }
  return tables === 0 ? undefined : ports
}

/** @throws Unhealthy if no socket has the port of an address */
function expectPort(
  runtime: Runtime,
  key: 'listen' | 'udp_listen' | 'kcp_bind',
  text: string | undefined,
  kind: 'tcp' | 'udp',
): void {
  if (text === undefined) return
  const { port } = parseHostPort(key, text, 'bind')
  if (port === 0 || portsInUse(runtime, kind)?.has(port) !== false) return
  throw new Unhealthy(`no program has ${kind.toUpperCase()} port ${port} (${key}): the tunnel is not running`)
}

/** @throws Unhealthy if no program listens on a Unix socket; a connection to it would open a session */
function expectSocket(runtime: Runtime, listen: string): void {
  if (listensUnix(runtime, parseUnix('listen', listen)) === false)
    throw new Unhealthy(`no program listens on ${listen} (listen): the tunnel is not running`)
}

/** @throws Unhealthy, or an error naming the address, if the monitoring server does not answer with success */
async function expectHttp(runtime: Runtime, config: Config, path: string): Promise<void> {
  const answer = await askMonitoring(runtime, config, path, HTTP_WAIT_MS)
  if (answer?.ok === false) throw new Unhealthy(`${answer.url}: status ${answer.status}`)
}

/** @param isLocal the address is one of this host @returns the round trip time in ms; undefined without an answer */
async function ping(examined: Examined, to: SocketAddress, isLocal: boolean): Promise<number | undefined> {
  const { runtime, own } = examined
  // loopback is not reached from a configured interface; a name may have addresses of other machines
  const config = isLocal ? { ...examined.config, netdev: undefined } : examined.config
  const { kcp_bind } = config
  let binds: readonly SocketAddress[] = isLocal ? [to] : []
  if (!isLocal && kcp_bind !== undefined) binds = await resolveAll(runtime, 'kcp_bind', kcp_bind, 'bind')
  const addresses = { ...NO_ADDRESSES, bind: binds[0], binds }
  const options = ephemeral({ config, addresses, refusals: new Refusals() }, to)
  const probe = await Probe.open(runtime, config, { ...options, connect: to }, [own])
  try {
    const pinger = new Pinger(probe)
    probe.onAnswer = (answer) => void pinger.take(answer)
    return await firstAnswer(probe, pinger, to)
  } finally {
    probe.close()
  }
}

/** Pings all addresses at once. @returns text about the first answer @throws Unhealthy without one */
async function expectAnswer(
  examined: Examined,
  what: string,
  to: readonly SocketAddress[],
  isLocal = false,
): Promise<string> {
  const answers = to.map(async (address) => {
    const rtt = await ping(examined, address, isLocal)
    if (rtt === undefined) throw new Unhealthy('no answer')
    return `${what} ${formatAddress(address)} answers after ${round(rtt)} ms`
  })
  return Promise.any(answers).catch((error) => {
    const [first] = error instanceof AggregateError ? error.errors : [error]
    const why = first instanceof Unhealthy ? 'no answer with the key of this file' : messageOf(first)
    throw new Unhealthy(`${what} ${to.map(formatAddress).join(', ')}: ${why}`)
  })
}

/** @returns text about what works @throws Unhealthy, or an error of a name or socket */
async function examine(examined: Examined): Promise<string> {
  const { runtime, config } = examined
  const { mode, obfs, kcp_bind, kcp_connect, rendezvous_server, netdev } = config
  const isClient = (mode & MODE_CLIENT) !== 0
  if (isClient && isUnix(config.listen ?? '')) expectSocket(runtime, config.listen ?? '')
  else if (isClient) expectPort(runtime, 'listen', config.listen, 'tcp')
  if (isClient) expectPort(runtime, 'udp_listen', config.udp_listen, 'udp')
  if (!isClient || obfs === undefined) expectPort(runtime, 'kcp_bind', kcp_bind, obfs === undefined ? 'udp' : 'tcp')
  // an obfuscator has no UDP port to ask
  await expectHttp(runtime, config, obfs === undefined ? '/healthy' : '/ready')
  if (obfs !== undefined) return `running with obfs${config.http_listen === undefined ? ', peer not asked' : ''}`
  if (!isClient && kcp_bind !== undefined && (netdev ?? '') === '') {
    const binds = await resolveAll(runtime, 'kcp_bind', kcp_bind, 'bind')
    if (binds[0].port !== 0) return expectAnswer(examined, 'this endpoint', binds.map(onLoopback), true)
  }
  if (rendezvous_server !== undefined && (mode & (MODE_CLIENT | MODE_SERVER)) !== 0) {
    const all = await resolveAll(runtime, 'rendezvous_server', rendezvous_server, 'connect')
    return expectAnswer(examined, 'rendezvous server', all)
  }
  if (isClient && kcp_connect !== undefined) {
    const servers = config.servers.length > 0 ? config.servers : [kcp_connect]
    const found = servers.map((server) => resolveAll(runtime, 'kcp_connect', server, 'connect'))
    // one that answers is enough; a name without address is reported if there is no other
    await Promise.any(found).catch(() => found[0])
    const known = (await Promise.allSettled(found)).flatMap((each) => (each.status === 'fulfilled' ? each.value : []))
    return expectAnswer(examined, 'server', known)
  }
  return 'running'
}

async function cipher({ crypto }: CommandContext, config: Config): Promise<Cipher> {
  const security = checkStart(config, methods)
  return security === undefined
    ? PLAIN
    : cipherOf(await withKey(security, (key) => openAead(security.method, key, crypto)))
}

/** Prints one line. @returns exit status */
async function report(context: CommandContext, config: Config, who: string): Promise<number> {
  const { runtime } = context
  const own = await cipher(context, config)
  try {
    runtime.print('stdout', `${who}healthy: ${await examine({ runtime, config, own })}\n`)
    return 0
  } catch (error) {
    runtime.print('stdout', `${who}unhealthy: ${messageOf(error)}\n`)
    return 1
  } finally {
    own.wipe()
  }
}

export const command: Command = {
  options: [
    { long: '--config', short: '-c', value: '<file>', help: 'JSON config file of this endpoint', offers: 'files' },
    TUNNEL,
  ],
  notes: `Prints one line, for several tunnels one for each. Takes at most 4 s if names resolve. A client asks the
server (or the rendezvous server), a server itself; http_listen is not needed, but asked too if set.

exit status: 0 healthy, 1 not`,
  async run(context, given) {
    const path = configPath(given)
    const bytes = await readConfigFile(context.runtime, path)
    const file = parseFile(bytes)
    if (!file.config.native) context.runtime.os?.native?.forbid('native is false')
    const name = given.values.get(TUNNEL.long)
    if (name !== undefined || file.tunnels === undefined) return report(context, tunnelOf(file, name), '')
    const all = file.tunnels.map((config) => report(context, config, `${config.name}: `))
    return Math.max(...(await Promise.all(all)))
  },
}
