/**
 * `kcptun-wasm init`: writes matching configurations and prints how to use them. Missing options are prompted for on a
 * terminal; without a terminal they are an error.
 */

import { STRATEGIES, type Strategy } from '../../config/config.ts'
import {
  generateConfigs,
  type Role,
  randomPort,
  type ServerFile,
  serverFiles,
  type UserConfigs,
  type Wishes,
  type Written,
  withUsers,
} from '../../config/generate.ts'
import { checkName, KEYS_MAX } from '../../config/keys.ts'
import { DEFAULT_METHOD, methods } from '../../crypto/methods.ts'
import { ConfigError } from '../../errors.ts'
import { parseHostPort } from '../../net/address.ts'
import { isUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import type { Option } from '../options.ts'
import { type Command, CommandError } from './command.ts'
import { DIR, expectRoom, pathOf, textOf, writeAll } from './config-files.ts'
import { instructions, LINK, linkText, QR } from './init-text.ts'
import { consoleOf, invocationOf } from './invocation.ts'
import { freePort, LOOPBACK, readLocal, readMeeting } from './places.ts'
import { Prompt } from './prompt.ts'

const DEFAULT_SERVICE_ID = 'tunnel'

const SERVER: Option = {
  long: '--server',
  value: '<host[:port]>',
  help: 'address of the server, as seen by the client; the\ndefault port is random, a range as 4000-4999: the\nclient hops; repeated: several servers',
}
const STRATEGY: Option = {
  long: '--strategy',
  value: '<strategy>',
  help: 'with several servers: the one of a new connection',
  offers: STRATEGIES,
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

function readStrategy(text: string): Strategy {
  const strategy = STRATEGIES.find((name) => name === text)
  if (strategy === undefined) throw new ConfigError('', text, `must be one of ${STRATEGIES.join(', ')}`)
  return strategy
}

async function readWishes(runtime: Runtime, prompt: Prompt, isUdp: boolean): Promise<Wishes> {
  const rendezvous = prompt.has(RENDEZVOUS)
  if (rendezvous && prompt.has(SERVER)) throw new CommandError('--server and --rendezvous are mutually exclusive')
  if (!rendezvous && prompt.has(SERVICE_ID)) throw new CommandError('--service-id requires --rendezvous')
  // options without a prompt are checked before the first question
  const method = prompt.flag(METHOD, DEFAULT_METHOD, readMethod)
  const serviceId = prompt.flag(SERVICE_ID, DEFAULT_SERVICE_ID, (text) => text)
  const strategy = prompt.has(STRATEGY) ? prompt.flag(STRATEGY, '', readStrategy) : undefined
  if (strategy !== undefined && prompt.count(SERVER) < 2)
    throw new CommandError(`${STRATEGY.long} requires several servers: repeat ${SERVER.long}`)
  if (prompt.count(RENDEZVOUS) > 1) throw new CommandError(`${RENDEZVOUS.long}: there is one rendezvous server`)
  prompt.expect([rendezvous ? RENDEZVOUS : SERVER, LISTEN, CONNECT])
  const port = randomPort()
  const [meeting, ...others] = await prompt.several(
    {
      option: rendezvous ? RENDEZVOUS : SERVER,
      text: 'Address of the server, as seen by the client (host or host:port)',
    },
    (text) => readMeeting(text, port, !rendezvous),
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
  return { meeting, others, strategy, rendezvous, serviceId, isUdp, listen, connect, method, httpPorts: ports }
}

/** Ports of the monitoring servers of all server files. */
async function portsOf(runtime: Runtime, { httpPorts }: Wishes, count: number): Promise<readonly number[]> {
  const ports = [httpPorts.server]
  while (ports.length < count) ports.push(await freePort(runtime, new Set([...ports, httpPorts.client])))
  return ports
}

/** Everything that is written, by path. */
function contentOf(
  dir: string,
  configs: ReadonlyMap<Role, Written>,
  users: UserConfigs | undefined,
  files: readonly ServerFile[],
  httpPorts: readonly number[],
): Map<string, Written> {
  const relay = configs.get('rendezvous')
  const content = new Map<string, Written>()
  if (relay !== undefined) content.set(pathOf(dir, 'rendezvous'), relay)
  const server = users?.server ?? configs.get('server') ?? {}
  for (const [index, { name, bind }] of files.entries()) {
    const other = { ...server, kcp_bind: bind, http_listen: `${LOOPBACK}:${httpPorts[index]}` }
    content.set(pathOf(dir, name), index === 0 ? server : other)
  }
  if (users === undefined) return content.set(pathOf(dir, 'client'), configs.get('client') ?? {})
  for (const [name, client] of users.clients) content.set(pathOf(dir, `client-${name}`), client)
  return content
}

export const command: Command = {
  options: [SERVER, STRATEGY, RENDEZVOUS, LISTEN, CONNECT, UDP, METHOD, SERVICE_ID, USERS, DIR, LINK, QR],
  notes: `Missing options are prompted for on a terminal. Existing files are not overwritten. Example:
  init --server vpn.example.org:4000 --listen 1080 --connect 127.0.0.1:1080`,
  async run({ runtime }, given) {
    const commandConsole = consoleOf(runtime)
    const dir = given.values.get(DIR.long) ?? '.'
    const to = { dir, isForced: false, remedy: `choose another directory with ${DIR.long}` }
    const prompt = new Prompt(runtime, given)
    const names = readUsers(prompt)
    const clients = names.map((name) => pathOf(dir, `client-${name}`))
    const roles: readonly Role[] = prompt.has(RENDEZVOUS) ? ['rendezvous', 'server'] : ['server']
    const expected = [...roles.map((role) => pathOf(dir, role)), ...(clients[0] ? clients : [pathOf(dir, 'client')])]
    expectRoom(commandConsole, to, expected)
    const wishes = await readWishes(runtime, prompt, given.flags.has(UDP.long))
    const files = serverFiles(wishes)
    const httpPorts = await portsOf(runtime, wishes, files.length)
    const configs = generateConfigs(wishes)
    const users = names.length > 0 ? withUsers(configs, names) : undefined
    const content = contentOf(dir, configs, users, files, httpPorts)
    const written = [...content].map(([path, config]) => ({ path, text: textOf(config) }))
    writeAll(commandConsole, to, written)
    const [isLinkWanted, isCodeWanted] = [given.flags.has(LINK.long), given.flags.has(QR.long)]
    const isLinked = isLinkWanted || isCodeWanted
    const servers = files.map(({ name }) => pathOf(dir, name))
    const paths = { client: pathOf(dir, 'client'), servers, rendezvous: pathOf(dir, 'rendezvous') }
    const self = invocationOf(runtime)
    runtime.print('stdout', instructions({ wishes, paths, files, httpPorts, clients, self, isLinked }))
    if (!isLinked) return 0
    const columns = commandConsole.isTerminal('stdout') ? runtime.terminal?.size().columns : undefined
    const linked = users?.clients ?? new Map([['', configs.get('client') ?? {}]])
    runtime.print('stdout', await linkText(linked, isLinkWanted, isCodeWanted, columns))
    return 0
  },
}
