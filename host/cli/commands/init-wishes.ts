/** The options of `init`, and the answers to its questions. */

import { STRATEGIES, type Strategy } from '../../config/config.ts'
import { type Role, randomPort, type Wishes } from '../../config/generate.ts'
import { checkName, KEYS_MAX } from '../../config/keys.ts'
import { DEFAULT_METHOD, methods } from '../../crypto/methods.ts'
import { ConfigError } from '../../errors.ts'
import { parseHostPort } from '../../net/address.ts'
import { isUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import type { Option } from '../options.ts'
import { CommandError } from './command.ts'
import { freePort, LOOPBACK, readLocal, readMeeting } from './places.ts'
import type { Prompt } from './prompt.ts'

const DEFAULT_SERVICE_ID = 'tunnel'

export const SERVER: Option = {
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
export const RENDEZVOUS: Option = {
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
export const UDP: Option = {
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
export const USERS: Option = {
  long: '--users',
  value: '<name,...>',
  help: 'with --server: a key and a client file for each of\nthese users; the server tells them apart',
}

export const ADD: Option = {
  long: '--add',
  help: 'add a tunnel to client.json and server.json, as an\nentry of tunnels; without --server to the same server',
}
export const NAME: Option = { long: '--name', value: '<name>', help: 'with --add: the name of the tunnel' }

export const OPTIONS: readonly Option[] = [
  SERVER,
  STRATEGY,
  RENDEZVOUS,
  LISTEN,
  CONNECT,
  UDP,
  METHOD,
  SERVICE_ID,
  USERS,
  ADD,
  NAME,
]

/** @throws CommandError, ConfigError */
export function readUsers(prompt: Prompt): readonly string[] {
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

/** What a new tunnel joins. */
export interface Present {
  /** The host of its server, without brackets. */
  readonly host: string | undefined
  /** UDP ports of the server that are in use. */
  readonly ports: ReadonlySet<number>
}

/** @param present set for an addition */
export async function readWishes(runtime: Runtime, prompt: Prompt, isUdp: boolean, present?: Present): Promise<Wishes> {
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
  const meetingOption = rendezvous ? RENDEZVOUS : SERVER
  const known = prompt.has(meetingOption) ? undefined : present?.host
  prompt.expect([...(known === undefined ? [meetingOption] : []), LISTEN, CONNECT])
  let port = randomPort()
  while (present?.ports.has(port)) port = randomPort()
  const [meeting, ...others] =
    known !== undefined
      ? [{ host: known, port }]
      : await prompt.several(
          { option: meetingOption, text: 'Address of the server, as seen by the client (host or host:port)' },
          (text) => readMeeting(text, port, !rendezvous),
        )
  const listen = await prompt.get(
    {
      option: LISTEN,
      text: `${isUdp ? 'UDP' : 'TCP'} address on which the client accepts applications`,
      ...(present === undefined && { preset: `${LOOPBACK}:1080` }),
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
