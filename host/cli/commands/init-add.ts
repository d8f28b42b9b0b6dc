/** `kcptun-wasm init --add`: one more tunnel in the files of a server and its client. */

import { addTunnel } from '../../config/add-tunnel.ts'
import type { Config, ConfigFile } from '../../config/config.ts'
import { generateConfigs, serverFiles, type Wishes, type Written } from '../../config/generate.ts'
import { checkName } from '../../config/keys.ts'
import { ConfigError } from '../../errors.ts'
import { isLoopbackHost, parseHostPort } from '../../net/address.ts'
import type { Runtime } from '../../runtime.ts'
import { CommandError, readConfigFile } from './command.ts'
import { pathOf, writeAll } from './config-files.ts'
import { openings, scpHost, steps, usage } from './init-text.ts'
import { ADD, NAME, type Present, RENDEZVOUS, readWishes, SERVER, USERS } from './init-wishes.ts'
import { consoleOf, invocationOf, shellWord } from './invocation.ts'
import type { Prompt } from './prompt.ts'
import { startableFile } from './startable.ts'

/** Keys of a generated file that an entry has not. */
const OF_FILE: ReadonlySet<string> = new Set(['$schema', 'http_listen'])

const asEntry = (config: Written): Written =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !OF_FILE.has(key)))

const tunnelsOf = ({ config, tunnels = [config] }: ConfigFile): readonly Config[] => tunnels

/** Checks a file; its errors name it. @throws CommandError */
function checked(path: string, bytes: Uint8Array): ConfigFile {
  try {
    return startableFile(bytes)
  } catch (error) {
    if (error instanceof ConfigError) throw new CommandError(`${path}: ${error.message}; nothing was written`)
    throw error
  }
}

/** What is there already. */
function presentOf(client: ConfigFile, server: ConfigFile): Present {
  const [reached] = tunnelsOf(client).flatMap(({ kcp_connect }) => kcp_connect ?? [])
  const host = reached === undefined ? undefined : parseHostPort('kcp_connect', reached, 'connect').host
  const bound = tunnelsOf(server).flatMap(({ kcp_bind }) => kcp_bind ?? [])
  return { host, ports: new Set(bound.map((text) => parseHostPort('kcp_bind', text, 'bind').port)) }
}

/**
 * Adds the tunnel that the options describe, and prints what to do next.
 * @returns its client, as a file of its own would have it
 * @throws CommandError
 */
export async function addToFiles(runtime: Runtime, prompt: Prompt, dir: string, isUdp: boolean): Promise<Written> {
  for (const option of [RENDEZVOUS, USERS])
    if (prompt.has(option)) throw new CommandError(`${option.long} conflicts with ${ADD.long}`)
  const name = prompt.has(NAME) ? prompt.flag(NAME, '', checkedName) : undefined
  const roles = ['server', 'client'] as const
  const paths = { server: pathOf(dir, 'server'), client: pathOf(dir, 'client') }
  const read = async (path: string): Promise<Uint8Array> => readConfigFile(runtime, path)
  const before = { server: await read(paths.server), client: await read(paths.client) }
  const present = presentOf(checked(paths.client, before.client), checked(paths.server, before.server))
  const wishes = await readWishes(runtime, prompt, isUdp, present)
  if (serverFiles(wishes).length > 1) {
    throw new CommandError(`${SERVER.long}: the servers need one port, as they share ${paths.server}`)
  }
  const configs = generateConfigs(wishes)
  const changed = roles.map((role) => {
    const entry = asEntry(configs.get(role) ?? {})
    const { text, isConverted } = addTunnel(before[role], name === undefined ? entry : { name, ...entry })
    const file = checked(paths[role], new TextEncoder().encode(text))
    return { path: paths[role], text, isConverted, name: file.tunnels?.at(-1)?.name ?? '' }
  })
  writeAll(consoleOf(runtime), { dir: '.', isForced: true, isChange: true, remedy: '' }, changed)
  const converted = changed.filter(({ isConverted }) => isConverted).map(({ path }) => path)
  const names = changed.map((each) => each.name)
  runtime.print('stdout', textOf(wishes, paths, [...new Set(names)], converted, invocationOf(runtime)))
  return configs.get('client') ?? {}
}

function checkedName(text: string): string {
  checkName(text, '')
  return text
}

/** What is printed. @param names of the tunnel at the server and at the client */
function textOf(
  wishes: Wishes,
  paths: { readonly server: string; readonly client: string },
  names: readonly string[],
  converted: readonly string[],
  self: string,
): string {
  const hosts = [wishes.meeting, ...(wishes.others ?? [])].map(({ host }) => host)
  const parts = [`Added the tunnel ${names.join(', ')} to ${paths.server} and ${paths.client}.\n`]
  if (!hosts.every(isLoopbackHost)) {
    const file = shellWord(paths.server.split('/').at(-1) ?? '')
    const copy = hosts.map((host) => `scp ${shellWord(paths.server)} ${scpHost(host)}:`)
    parts.push(`Copy the file of the server there:\n\n${steps(copy)}`)
    parts.push(`and there:\n\n${steps(openings(wishes.meeting, file))}`)
  }
  const reload = 'reload it where it runs (kill -HUP, systemctl reload)'
  const restart = `${converted.join(' and ')} had one tunnel, which is the first of several now: start ${converted.length === 1 ? 'that program' : 'both programs'} again`
  parts.push(
    converted.length === 0
      ? `Then ${reload}, at both ends.\n`
      : `${restart}. From then on a reload (kill -HUP) takes further ones.\n`,
  )
  parts.push(`${usage(wishes)}Troubleshooting: ${self} doctor --tunnel ${names.at(-1)} -c ${shellWord(paths.client)}\n`)
  return parts.join('\n')
}
