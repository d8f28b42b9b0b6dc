/**
 * `kcptun-wasm init`: writes matching configurations and prints how to use them. Missing options are prompted for on a
 * terminal; without a terminal they are an error.
 */

import {
  generateConfigs,
  type Role,
  type ServerFile,
  serverFiles,
  type UserConfigs,
  type Wishes,
  type Written,
  withUsers,
} from '../../config/generate.ts'
import type { Runtime } from '../../runtime.ts'
import { type Command, CommandError } from './command.ts'
import { DIR, expectRoom, pathOf, textOf, writeAll } from './config-files.ts'
import { instructions } from './init-text.ts'
import { ADD, NAME, OPTIONS, RENDEZVOUS, readUsers, readWishes, UDP } from './init-wishes.ts'
import { consoleOf, invocationOf } from './invocation.ts'
import { LINK, linkText, QR } from './link-text.ts'
import { freePort, LOOPBACK } from './places.ts'
import { Prompt } from './prompt.ts'

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
  options: [...OPTIONS, DIR, LINK, QR],
  notes: `Missing options are prompted for on a terminal. Existing files are not overwritten. Example:
  init --server vpn.example.org:4000 --listen 1080 --connect 127.0.0.1:1080`,
  async run({ runtime }, given) {
    const commandConsole = consoleOf(runtime)
    const dir = given.values.get(DIR.long) ?? '.'
    const to = { dir, isForced: false, remedy: `choose another directory with ${DIR.long}` }
    const prompt = new Prompt(runtime, given)
    const [isLinkWanted, isCodeWanted] = [given.flags.has(LINK.long), given.flags.has(QR.long)]
    const isLinked = isLinkWanted || isCodeWanted
    const printLinks = async (linked: ReadonlyMap<string, Written>): Promise<void> => {
      if (!isLinked) return
      const columns = commandConsole.isTerminal('stdout') ? runtime.terminal?.size().columns : undefined
      runtime.print('stdout', await linkText(linked, isLinkWanted, isCodeWanted, columns))
    }
    const isUdp = given.flags.has(UDP.long)
    if (given.flags.has(ADD.long)) {
      const { addToFiles } = await import('./init-add.ts')
      await printLinks(new Map([['', await addToFiles(runtime, prompt, dir, isUdp)]]))
      return 0
    }
    if (prompt.has(NAME)) throw new CommandError(`${NAME.long} requires ${ADD.long}`)
    const names = readUsers(prompt)
    const clients = names.map((name) => pathOf(dir, `client-${name}`))
    const roles: readonly Role[] = prompt.has(RENDEZVOUS) ? ['rendezvous', 'server'] : ['server']
    const expected = [...roles.map((role) => pathOf(dir, role)), ...(clients[0] ? clients : [pathOf(dir, 'client')])]
    expectRoom(commandConsole, to, expected)
    const wishes = await readWishes(runtime, prompt, isUdp)
    const files = serverFiles(wishes)
    const httpPorts = await portsOf(runtime, wishes, files.length)
    const configs = generateConfigs(wishes)
    const users = names.length > 0 ? withUsers(configs, names) : undefined
    const content = contentOf(dir, configs, users, files, httpPorts)
    const written = [...content].map(([path, config]) => ({ path, text: textOf(config) }))
    writeAll(commandConsole, to, written)
    const servers = files.map(({ name }) => pathOf(dir, name))
    const paths = { client: pathOf(dir, 'client'), servers, rendezvous: pathOf(dir, 'rendezvous') }
    const self = invocationOf(runtime)
    runtime.print('stdout', instructions({ wishes, paths, files, httpPorts, clients, self, isLinked }))
    await printLinks(users?.clients ?? new Map([['', configs.get('client') ?? {}]]))
    return 0
  },
}
