/**
 * `kcptun-wasm init`: writes matching configurations and prints how to use them. Missing options are prompted for on a
 * terminal; without a terminal they are an error.
 */

import {
  generateConfigs,
  type Role,
  type UserConfigs,
  type Wishes,
  type Written,
  withUsers,
} from '../../config/generate.ts'
import { checkName, KEYS_MAX } from '../../config/keys.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { DEFAULT_METHOD, methods } from '../../crypto/methods.ts'
import { ConfigError } from '../../errors.ts'
import { isLoopbackHost, isWildcardHost, parseHostPort } from '../../net/address.ts'
import { isUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import { PROGRAM } from '../../version.ts'
import type { Option } from '../options.ts'
import { type Command, CommandError } from './command.ts'
import { DIR, expectRoom, pathOf, textOf, writeAll } from './config-files.ts'
import { consoleOf, invocationOf, shellWord } from './invocation.ts'
import { LINK, linkText, QR } from './link-text.ts'
import { freePort, LOOPBACK, readLocal, readMeeting } from './places.ts'
import { Prompt } from './prompt.ts'

const DEFAULT_SERVICE_ID = 'tunnel'

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
  help: 'TCP address of the target, as seen by the server;\n"80" is 127.0.0.1:80; socks5 or http: the server\nis a proxy',
}
const UDP: Option = {
  long: '--udp',
  help: 'forward UDP in place of TCP: --listen and --connect are\nUDP addresses',
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
const USERS: Option = {
  long: '--users',
  value: '<name,...>',
  help: 'with --server: a key and a client file for each of\nthese users; the server tells them apart',
}

/** @throws CommandError, ConfigError */
function readUsers(prompt: Prompt): readonly string[] {
  if (!prompt.has(USERS)) return []
  if (prompt.has(RENDEZVOUS)) throw new CommandError(`${USERS.long} conflicts with ${RENDEZVOUS.long}`)
  return prompt.flag(USERS, '', (text) => {
    const names = text.split(',').map((name) => name.trim())
    for (const name of names) checkName(name, '')
    const twice = names.find((name, index) => names.indexOf(name) !== index)
    if (twice !== undefined) throw new ConfigError('', twice, 'is there twice')
    if (names.length > KEYS_MAX) throw new ConfigError('', '', `at most ${KEYS_MAX} users`)
    return names
  })
}

function readMethod(text: string): string {
  if (!methods.includes(text)) throw new ConfigError('', text, `unknown method, must be one of ${methods.join(', ')}`)
  return text
}

async function readWishes(runtime: Runtime, prompt: Prompt, isUdp: boolean): Promise<Wishes> {
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
    {
      option: LISTEN,
      text: `${isUdp ? 'UDP' : 'TCP'} address on which the client accepts applications`,
      preset: `${LOOPBACK}:1080`,
    },
    (text) => readLocal(text, 'bind', isUdp),
  )
  const connect = await prompt.get(
    { option: CONNECT, text: 'Target, as seen by the server (host:port, or a port on 127.0.0.1)' },
    (text) => readLocal(text, 'connect', isUdp),
  )
  const taken = new Set([meeting.port, isUnix(listen) ? 0 : parseHostPort('', listen, 'bind').port])
  const ports: Record<Role, number> = { client: 0, server: 0, rendezvous: 0 }
  for (const role of ['client', 'server', 'rendezvous'] as const) {
    ports[role] = await freePort(runtime, taken)
    taken.add(ports[role])
  }
  return { meeting, rendezvous, serviceId, isUdp, listen, connect, method, httpPorts: ports }
}

/**
 * The instructions printed after writing.
 * @param paths file of each role; with users that of one of them is the client's
 * @param clients files of users; none: there is one client
 * @param isLinked whether the client is given away as a link
 */
function instructions(
  wishes: Wishes,
  paths: ReadonlyMap<Role, string>,
  clients: readonly string[],
  self: string,
  isLinked: boolean,
): string {
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
  // behind a NAT the server cannot be reached from elsewhere: who gives the client away is there
  const isServer = rendezvous && isLinked && !local
  const wrote = new Set([...paths.values(), ...clients])
  const parts = [`Wrote ${[...wrote].join(', ')}. They contain the key${clients[1] ? 's' : ''}: keep them secret.\n`]
  if (local) {
    if (rendezvous) parts.push(`The rendezvous server:\n${start('rendezvous')}`)
    parts.push(`The server:\n${start('server')}`)
  } else if (rendezvous) {
    parts.push(elsewhere('rendezvous', 'The rendezvous server is', meeting.host, true))
    if (isServer) parts.push(`The server is this machine:\n${start('server')}`)
    else parts.push(elsewhere('server', 'The server is', 'SERVER', false))
  } else parts.push(elsewhere('server', 'The server is', meeting.host, true))
  if (clients.length > 0) parts.push(userText(clients, paths.get('server') ?? ''))
  else if (!isServer) parts.push(`The client is this machine:\n${start('client')}`)
  const { host, port } = isUnix(listen) ? { host: '', port: 0 } : parseHostPort('', listen, 'bind')
  const everywhere = isWildcardHost(host)
  const entrance = everywhere ? `port ${port} of the client` : listen
  const isThere = isUnix(connect) || (!isProxy(connect) && isLoopbackHost(parseHostPort('', connect, 'connect').host))
  const exit = isProxy(connect)
    ? `the targets that they name to the ${connect} proxy of the server`
    : isThere
      ? `${connect} on the server`
      : connect
  const open = everywhere ? ' Any host that can reach this port can use the tunnel.' : ''
  const doing = wishes.isUdp === true ? 'send UDP' : 'connect'
  parts.push(`Applications that ${doing} to ${entrance} are forwarded to ${exit}.${open}
Dashboards, accessible locally: http://${LOOPBACK}:${httpPorts.client}/ (client), http://${LOOPBACK}:${httpPorts.server}/ (server)
Troubleshooting: ${self} doctor -c ${place(isServer ? 'server' : 'client')}
`)
  return parts.join('\n')
}

function userText(clients: readonly string[], server: string): string {
  const name = shellWord(clients[0]?.split('/').at(-1) ?? '')
  return `The clients: give each user the file with his name, which contains his key, and no other one; there:

    npm install -g ${PROGRAM}
    ${PROGRAM} -c ${name}

To add or remove a user later, change keys in ${server} and reload the server (kill -HUP).
`
}

/** All files, by path. */
function contentOf(
  dir: string,
  configs: ReadonlyMap<Role, Written>,
  users: UserConfigs | undefined,
): Map<string, Written> {
  if (users === undefined) return new Map([...configs].map(([role, config]) => [pathOf(dir, role), config]))
  const clients = [...users.clients].map(([name, config]) => [pathOf(dir, `client-${name}`), config] as const)
  return new Map([[pathOf(dir, 'server'), users.server], ...clients])
}

export const command: Command = {
  options: [SERVER, RENDEZVOUS, LISTEN, CONNECT, UDP, METHOD, SERVICE_ID, USERS, DIR, LINK, QR],
  notes: `Missing options are prompted for on a terminal. Existing files are not overwritten. Example:
  init --server vpn.example.org:4000 --listen 1080 --connect 127.0.0.1:1080`,
  async run({ runtime }, given) {
    const commandConsole = consoleOf(runtime)
    const dir = given.values.get(DIR.long) ?? '.'
    const to = { dir, isForced: false, remedy: `choose another directory with ${DIR.long}` }
    const prompt = new Prompt(runtime, given)
    const names = readUsers(prompt)
    const roles: readonly Role[] = prompt.has(RENDEZVOUS) ? ['rendezvous', 'server', 'client'] : ['server', 'client']
    const clients = names.map((name) => pathOf(dir, `client-${name}`))
    const paths = new Map(roles.map((role) => [role, (role === 'client' && clients[0]) || pathOf(dir, role)]))
    expectRoom(commandConsole, to, new Set([...paths.values(), ...clients]))
    const wishes = await readWishes(runtime, prompt, given.flags.has(UDP.long))
    const configs = generateConfigs(wishes)
    const users = names.length > 0 ? withUsers(configs, names) : undefined
    const files = [...contentOf(dir, configs, users)].map(([path, config]) => ({ path, text: textOf(config) }))
    writeAll(commandConsole, to, files)
    const [isLinkWanted, isCodeWanted] = [given.flags.has(LINK.long), given.flags.has(QR.long)]
    const isLinked = isLinkWanted || isCodeWanted
    runtime.print('stdout', instructions(wishes, paths, clients, invocationOf(runtime), isLinked))
    if (!isLinked) return 0
    const columns = commandConsole.isTerminal('stdout') ? runtime.terminal?.size().columns : undefined
    const linked = users?.clients ?? new Map([['', configs.get('client') ?? {}]])
    runtime.print('stdout', await linkText(linked, isLinkWanted, isCodeWanted, columns))
    return 0
  },
}
