/**
 * `kcptun-wasm init`: writes matching configurations and prints how to use them. Missing options are prompted for on a
 * terminal; without a terminal they are an error.
 */

import { generateConfigs, type Role, randomPort, type Wishes, type Written } from '../../config/generate.ts'
import { parseConfig } from '../../config/load.ts'
import { assertStartable } from '../../config/security.ts'
import { methods } from '../../crypto/methods.ts'
import { ConfigError, codeOf, messageOf, quote } from '../../errors.ts'
import { type HostPort, isLoopbackHost, isWildcardHost, parseHostPort } from '../../net/address.ts'
import type { CommandConsole, Runtime } from '../../runtime.ts'
import { PROGRAM } from '../../version.ts'
import type { Option } from '../options.ts'
import { type Command, CommandError } from './command.ts'
import { consoleOf, invocationOf, shellWord } from './invocation.ts'
import { Prompt } from './prompt.ts'

const DEFAULT_METHOD = 'xchacha20poly1305_ietf'
const DEFAULT_SERVICE_ID = 'tunnel'
const LOOPBACK = '127.0.0.1'
/** Attempts to find a free port for a monitoring server. */
const PORT_TRIES = 32

const SERVER: Option = {
  long: '--server',
  value: '<host[:port]>',
  help: 'address of the server, as seen by the client; the\ndefault port is random',
}
const RENDEZVOUS: Option = {
  long: '--rendezvous',
  value: '<host[:port]>',
  help: 'instead of --server, if both endpoints are behind NAT:\naddress of the rendezvous server (also gets a file)',
}
const LISTEN: Option = {
  long: '--listen',
  value: '<[host:]port>',
  help: 'TCP address on which the client accepts applications;\n"1080" is 127.0.0.1:1080, ":1080" all addresses',
}
const CONNECT: Option = {
  long: '--connect',
  value: '<[host:]port>',
  help: 'TCP address of the target, as seen by the server;\n"80" is 127.0.0.1:80',
}
const METHOD: Option = {
  long: '--method',
  value: '<method>',
  help: `encryption method, default ${DEFAULT_METHOD}`,
  offers: 'methods',
}
const SERVICE_ID: Option = {
  long: '--service-id',
  value: '<name>',
  help: `with --rendezvous: service ID of client and server,\ndefault "${DEFAULT_SERVICE_ID}"`,
}
const DIR: Option = {
  long: '--dir',
  value: '<directory>',
  help: 'output directory, default is the current one; it is\ncreated where it does not exist',
  offers: 'directories',
}

/** `host:port` of a remote endpoint; a missing port is chosen at random. @throws ConfigError */
function readMeeting(text: string): HostPort {
  const whole = /^[^:]+$|\]$/.test(text) ? `${text}:${randomPort()}` : text
  const meeting = parseHostPort('', whole, 'connect')
  if (meeting.port === 0) throw new ConfigError('', quote(text), 'the port must not be 0')
  return meeting
}

/** The config value for `host:port`, or for a bare port on the loopback address. @throws ConfigError */
function readLocal(text: string, role: 'bind' | 'connect'): string {
  const whole = /^\d+$/.test(text) ? `${LOOPBACK}:${text}` : text
  if (parseHostPort('', whole, role).port === 0) throw new ConfigError('', quote(text), 'the port must not be 0')
  return whole
}

function readMethod(text: string): string {
  if (!methods.includes(text)) throw new ConfigError('', text, `unknown method, must be one of ${methods.join(', ')}`)
  return text
}

/** A TCP port that is currently free on this machine. */
async function freePort(runtime: Runtime, taken: ReadonlySet<number>): Promise<number> {
  for (let tries = 0; tries < PORT_TRIES; tries += 1) {
    const port = randomPort()
    if (taken.has(port)) continue
    const address = { family: 4, address: LOOPBACK, port, scope: 0 } as const
    try {
      const options = { nodelay: true, keepalive: false }
      const listener = await runtime.listenTcp(
        address,
        options,
        () => null,
        () => {},
      )
      listener.close()
      return port
    } catch {
      // in use
    }
  }
  throw new CommandError('no free TCP port found for the monitoring server')
}

async function readWishes(runtime: Runtime, prompt: Prompt): Promise<Wishes> {
  const rendezvous = prompt.has(RENDEZVOUS)
  if (rendezvous && prompt.has(SERVER)) throw new CommandError('--server and --rendezvous are mutually exclusive')
  if (!rendezvous && prompt.has(SERVICE_ID)) throw new CommandError('--service-id requires --rendezvous')
  // options without a prompt are checked before the first question
  const method = prompt.flag(METHOD, DEFAULT_METHOD, readMethod)
  const serviceId = prompt.flag(SERVICE_ID, DEFAULT_SERVICE_ID, (text) => text)
  prompt.expect([rendezvous ? RENDEZVOUS : SERVER, LISTEN, CONNECT])
  const meeting = await prompt.get(
    {
      option: rendezvous ? RENDEZVOUS : SERVER,
      text: 'Address of the server, as seen by the client (host or host:port)',
    },
    readMeeting,
  )
  const listen = await prompt.get(
    { option: LISTEN, text: 'TCP address on which the client accepts applications', preset: `${LOOPBACK}:1080` },
    (text) => readLocal(text, 'bind'),
  )
  const connect = await prompt.get(
    { option: CONNECT, text: 'Target, as seen by the server (host:port, or a port on 127.0.0.1)' },
    (text) => readLocal(text, 'connect'),
  )
  const taken = new Set([meeting.port, parseHostPort('', listen, 'bind').port])
  const ports: Record<Role, number> = { client: 0, server: 0, rendezvous: 0 }
  for (const role of ['client', 'server', 'rendezvous'] as const) {
    ports[role] = await freePort(runtime, taken)
    taken.add(ports[role])
  }
  return { meeting, rendezvous, serviceId, listen, connect, method, httpPorts: ports }
}

const TAKEN = 'already exists: choose another directory with --dir'

/** Checks before the first question that the files can be created. @throws CommandError */
function expectRoom(commandConsole: CommandConsole, dir: string, paths: Iterable<string>): void {
  try {
    commandConsole.fileMode(dir)
  } catch (error) {
    // it will be created
    if (codeOf(error) === 'ENOENT') return
    throw new CommandError(`--dir ${dir}: ${messageOf(error)}`)
  }
  for (const path of paths) {
    try {
      commandConsole.fileMode(path)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') continue
      throw new CommandError(`${path}: ${messageOf(error)}`)
    }
    throw new CommandError(`${path}: ${TAKEN}`)
  }
}

/** Writes all files or none. @throws CommandError */
function writeAll(
  commandConsole: CommandConsole,
  dir: string,
  files: readonly { readonly path: string; readonly text: string }[],
): void {
  const written: string[] = []
  try {
    if (dir !== '.') commandConsole.createDirectory(dir)
  } catch (error) {
    throw new CommandError(`--dir ${dir}: ${messageOf(error)}; nothing was written`)
  }
  for (const { path, text } of files) {
    try {
      commandConsole.createFile(path, text)
      written.push(path)
    } catch (error) {
      for (const done of written) commandConsole.removeFile(done)
      const why = codeOf(error) === 'EEXIST' ? TAKEN : messageOf(error)
      throw new CommandError(`${path}: ${why}; nothing was written`)
    }
  }
}

/** The instructions printed after writing. @param paths file of each role */
function instructions(wishes: Wishes, paths: ReadonlyMap<Role, string>, self: string): string {
  const { meeting, rendezvous, listen, connect, httpPorts } = wishes
  const local = isLoopbackHost(meeting.host)
  const place = (role: Role): string => shellWord(paths.get(role) ?? '')
  const nameOf = (role: Role): string => shellWord(`${role}.json`)
  const steps = (lines: readonly string[]): string => lines.map((line) => `    ${line}\n`).join('')
  const start = (role: Role): string => `\n${steps([`${self} -c ${place(role)}`])}`
  /** The commands for another machine, from a shell here and then from one there. */
  const elsewhere = (role: Role, who: string, host: string, isOpen: boolean): string => {
    const target = shellWord(host.includes(':') ? `[${host}]` : host)
    const copy = `Copy its file there:\n\n${steps([`scp ${place(role)} ${target}:`])}`
    const install = [`npm install -g ${PROGRAM}`]
    const firewall = isOpen ? [`sudo ufw allow ${meeting.port}/udp    # or open this UDP port in its firewall`] : []
    return `${who} ${host}. ${copy}\nand there:\n\n${steps([...install, ...firewall, `${PROGRAM} -c ${nameOf(role)}`])}`
  }
  const parts = [`Wrote ${[...paths.values()].join(', ')}. They contain the key: keep them secret.\n`]
  if (local) {
    if (rendezvous) parts.push(`The rendezvous server:\n${start('rendezvous')}`)
    parts.push(`The server:\n${start('server')}`)
  } else if (rendezvous) {
    parts.push(elsewhere('rendezvous', 'The rendezvous server is', meeting.host, true))
    parts.push(elsewhere('server', 'The server is', 'SERVER', false))
  } else parts.push(elsewhere('server', 'The server is', meeting.host, true))
  parts.push(`The client is this machine:\n${start('client')}`)
  const { host, port } = parseHostPort('', listen, 'bind')
  const everywhere = isWildcardHost(host)
  const entrance = everywhere ? `port ${port} of the client` : listen
  const exit = isLoopbackHost(parseHostPort('', connect, 'connect').host) ? `${connect} on the server` : connect
  const open = everywhere ? ' Any host that can reach this port can use the tunnel.' : ''
  parts.push(`Applications that connect to ${entrance} are forwarded to ${exit}.${open}
Dashboards, accessible locally: http://${LOOPBACK}:${httpPorts.client}/ (client), http://${LOOPBACK}:${httpPorts.server}/ (server)
Troubleshooting: ${self} doctor -c ${place('client')}
`)
  return parts.join('\n')
}

export const command: Command = {
  options: [SERVER, RENDEZVOUS, LISTEN, CONNECT, METHOD, SERVICE_ID, DIR],
  notes: `Missing options are prompted for on a terminal. Existing files are not overwritten. Example:
  init --server vpn.example.org:4000 --listen 1080 --connect 127.0.0.1:1080`,
  async run({ runtime }, given) {
    const commandConsole = consoleOf(runtime)
    const dir = given.values.get(DIR.long) ?? '.'
    const prompt = new Prompt(runtime, given)
    const roles: readonly Role[] = prompt.has(RENDEZVOUS) ? ['rendezvous', 'server', 'client'] : ['server', 'client']
    const paths = new Map(roles.map((role) => [role, pathOf(dir, role)]))
    expectRoom(commandConsole, dir, paths.values())
    const wishes = await readWishes(runtime, prompt)
    const files: { path: string; text: string }[] = []
    for (const [role, config] of generateConfigs(wishes)) files.push({ path: pathOf(dir, role), text: textOf(config) })
    writeAll(commandConsole, dir, files)
    runtime.print('stdout', instructions(wishes, paths, invocationOf(runtime)))
    return 0
  },
}

const pathOf = (dir: string, role: Role): string =>
  dir === '.' ? `${role}.json` : `${dir.replace(/\/+$/, '')}/${role}.json`

/** The content of a file, validated like at startup. @throws ConfigError */
function textOf(written: Written): string {
  const text = `${JSON.stringify(written, null, 2)}\n`
  assertStartable(parseConfig(new TextEncoder().encode(text)), methods)
  return text
}
