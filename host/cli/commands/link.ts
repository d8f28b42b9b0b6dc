/**
 * `kcptun-wasm link`: prints a configuration as a link. For a server that is one of its clients, with the key of a user:
 * so he gets what he needs when the server runs already.
 */

import { type Config, MODE_CLIENT, MODE_RENDEZVOUS } from '../../config/config.ts'
import { parseFile, tunnelOf } from '../../config/tunnels.ts'
import { ConfigError } from '../../errors.ts'
import { parseHostPort } from '../../net/address.ts'
import type { Given, Option } from '../options.ts'
import { type Command, CommandError, configPath, readConfigFile, TUNNEL } from './command.ts'
import { consoleOf } from './invocation.ts'
import { linkText, QR } from './link-text.ts'
import { readLocal } from './places.ts'

const SERVER: Option = {
  long: '--server',
  value: '<host[:port]>',
  help: 'for a server: its address, as seen by the client; the\ndefault port is that of kcp_bind',
}
const LISTEN: Option = {
  long: '--listen',
  value: '<[host:]port>',
  help: 'for a server: where the client accepts applications,\ndefault 1080',
}
const DEFAULT_LISTEN = '1080'

/** The value of an option. @throws CommandError */
function read<Result>({ long }: Option, text: string, parse: (text: string) => Result): Result {
  try {
    return parse(text)
  } catch (error) {
    if (error instanceof ConfigError) throw new CommandError(`${long} ${text}: ${error.reason}`)
    throw error
  }
}

/** The key for a user of a server. @throws CommandError */
function keyFor({ keys, psk, password }: Config, name: string | undefined): object {
  if (keys.length === 0) {
    if (name !== undefined) throw new CommandError(`the file has one key, without a name, and none of ${name}`)
    return { psk, password }
  }
  const names = keys.map((key) => key.name).join(', ')
  if (name === undefined && keys.length > 1) throw new CommandError(`name the user whose key it gets: ${names}`)
  const found = name === undefined ? keys[0] : keys.find((key) => key.name === name)
  if (found === undefined) throw new CommandError(`there is no key ${JSON.stringify(name)}: ${names}`)
  return { psk: found.psk, password: found.password }
}

/** A client of a server. @throws CommandError */
function clientOf(config: Config, given: Given, name: string | undefined): Record<string, unknown> {
  if (config.connect === undefined && config.udp_connect === undefined)
    throw new CommandError('a rendezvous server has no clients of its own: use the file of a client')
  const { method, obfs, kcp, kcp_bind = '', rendezvous_server, service_id } = config
  const isUdp = config.udp_connect !== undefined
  const listen = read(LISTEN, given.values.get(LISTEN.long) ?? DEFAULT_LISTEN, (text) => readLocal(text, 'bind', isUdp))
  const isMet = (config.mode & MODE_RENDEZVOUS) !== 0
  const server = given.values.get(SERVER.long)
  if (!isMet && server === undefined) throw new CommandError(`${SERVER.long} is missing: ${SERVER.help.split(';')[0]}`)
  const connect = (text: string): string => {
    // what follows the host in kcp_bind: a port, or a range of them
    const port = kcp_bind.slice(kcp_bind.lastIndexOf(':') + 1)
    const whole = /^[^:]+$|\]$/.test(text) ? `${text}:${port}` : text
    parseHostPort('', whole, 'connect')
    return whole
  }
  return {
    [isUdp ? 'udp_listen' : 'listen']: listen,
    ...(isMet ? { rendezvous_server, service_id } : { kcp_connect: read(SERVER, server ?? '', connect) }),
    method,
    ...(method === undefined ? {} : keyFor(config, name)),
    obfs,
    ...(kcp.mtu === undefined ? {} : { kcp: { mtu: kcp.mtu } }),
  }
}

export const command: Command = {
  options: [
    { long: '--config', short: '-c', value: '<file>', help: 'config file of a client or a server', offers: 'files' },
    TUNNEL,
    SERVER,
    LISTEN,
    QR,
  ],
  operand: { name: '[user]', offers: [], most: 2 },
  notes: `A link contains the key: whoever has it can use the tunnel. Example, for a user in keys of a server:
  link -c server.json alice --server vpn.example.org --listen 1080`,
  async run({ runtime }, given) {
    const path = configPath(given)
    const [name, stray] = given.operands.slice(given.values.has('--config') ? 0 : 1)
    if (stray !== undefined) throw new CommandError(`unexpected argument: ${JSON.stringify(stray)}`)
    const bytes = await readConfigFile(runtime, path)
    const file = parseFile(bytes)
    const tunnel = given.values.get(TUNNEL.long)
    const isWhole =
      tunnel === undefined && (file.tunnels ?? [file.config]).every(({ mode }) => (mode & MODE_CLIENT) !== 0)
    if (isWhole) {
      const other = [name, ...[SERVER, LISTEN].filter(({ long }) => given.values.has(long))].find((each) => each)
      if (other !== undefined)
        throw new CommandError(`${typeof other === 'string' ? other : other.long} is for a server, this is a client`)
    }
    const config = isWhole ? undefined : tunnelOf(file, tunnel)
    if (config !== undefined && (config.mode & MODE_CLIENT) !== 0)
      throw new CommandError('a link has a whole file: leave out --tunnel')
    const client: Record<string, unknown> =
      config === undefined ? JSON.parse(new TextDecoder().decode(bytes)) : clientOf(config, given, name)
    const columns = consoleOf(runtime).isTerminal('stdout') ? runtime.terminal?.size().columns : undefined
    const text = await linkText(new Map([['', client]]), true, given.flags.has(QR.long), columns)
    runtime.print('stdout', text.trimStart())
    return 0
  },
}
