/**
 * `kcptun-wasm rotate`: makes a new key for a server and prints the steps that replace the old one without interrupting
 * anybody. It changes no file: those of servers may belong to other users, and clients are elsewhere.
 */

import { type Config, type KeyConfig, MODE_CLIENT, MODE_RENDEZVOUS } from '../../config/config.ts'
import { readJson } from '../../config/json.ts'
import { KEYS_MAX } from '../../config/keys.ts'
import { SESSIONS_MAX } from '../../config/security.ts'
import { entriesOf, parseFile, pathIn, tunnelOf } from '../../config/tunnels.ts'
import { readValues } from '../../config/validate.ts'
import { generatePsk } from '../../crypto/key.ts'
import { messageOf } from '../../errors.ts'
import { formatAddress } from '../../net/address.ts'
import type { Runtime } from '../../runtime.ts'
import { resolveKey } from '../../transport/resolver.ts'
import { onLoopback } from '../doctor/ports.ts'
import { fetchStatistics } from '../top/feed.ts'
import { formatAge } from '../top/frame.ts'
import { readSample } from '../top/sample.ts'
import { type Command, CommandError, configPath, readConfigFile, TUNNEL } from './command.ts'
import { invocationOf, shellWord } from './invocation.ts'

/** Name of a key that has none, in the list that takes the place of psk. */
const DEFAULT_NAME = 'default'
const NAME_MAX = 64
/** The date that an earlier rotation appended to a name. */
const DATED = /-\d{4}-\d{2}(?:-\d{2})?(?:\.\d+)?$/

const RELOAD = 'kill -HUP PID    # or: systemctl reload kcptun-wasm'

/** What is to be replaced. */
interface Rotation {
  /** File of the server. */
  readonly file: string
  /** Where the keys stand in it, such as `tunnels[1].`. */
  readonly place: string
  /** Entries of `keys`; none: the file has psk or password. */
  readonly keys: readonly KeyConfig[]
  readonly old: KeyConfig
  readonly fresh: { readonly name: string; readonly psk: string; readonly max_sessions?: number }
  /** Name of the tunnel, if there are several. */
  readonly tunnel: string | undefined
}

/** A name for the new key: that of the old one with this month, or what else is free. */
function freshName(old: string, taken: ReadonlySet<string>, now: Date): string {
  const day = now.toISOString().slice(0, 10)
  for (let number = 0; ; number++) {
    const suffix = number === 0 ? `-${day.slice(0, 7)}` : number === 1 ? `-${day}` : `-${day}.${number}`
    const name = `${old.replace(DATED, '').slice(0, NAME_MAX - suffix.length)}${suffix}`
    if (!taken.has(name)) return name
  }
}

/** @throws CommandError */
function chosen({ keys, psk, password }: Config, name: string | undefined): KeyConfig {
  const names = keys.map((key) => key.name).join(', ')
  if (keys.length === 0) {
    if (name !== undefined) throw new CommandError(`the file has one key, without a name, and none of ${name}`)
    return { name: DEFAULT_NAME, psk, password, not_after: undefined, max_sessions: SESSIONS_MAX }
  }
  if (name === undefined && keys.length > 1) throw new CommandError(`name the key to replace: ${names}`)
  const found = name === undefined ? keys[0] : keys.find((key) => key.name === name)
  if (found === undefined) throw new CommandError(`there is no key ${JSON.stringify(name)}: ${names}`)
  if (keys.length === KEYS_MAX) throw new CommandError(`the file has ${KEYS_MAX} keys, the most: remove one first`)
  return found
}

/** Where the keys of a tunnel stand: its own, or those beside `tunnels`. */
function placeOf(bytes: Uint8Array, config: Config, tunnels: readonly Config[] | undefined): string {
  const index = tunnels?.indexOf(config) ?? -1
  const entry = entriesOf(readJson(bytes))?.[index]
  if (entry === undefined) return ''
  const own = readValues(entry)
  return ['psk', 'password', 'keys'].some((key) => own.has(key)) ? `${pathIn(index, '')}.` : ''
}

/** An entry of `keys` on one line. */
function entryText({ name, psk, password, max_sessions = SESSIONS_MAX }: Partial<KeyConfig>): string {
  const limit = max_sessions === SESSIONS_MAX ? {} : { max_sessions }
  const pairs = Object.entries({ name, psk, password, ...limit }).filter(([, value]) => value !== undefined)
  return `{ ${pairs.map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(', ')} }`
}

const listText = (entries: readonly Partial<KeyConfig>[]): string[] => [
  '"keys": [',
  ...entries.map((entry, index) => `  ${entryText(entry)}${index === entries.length - 1 ? '' : ','}`),
  ']',
]

const block = (lines: readonly string[]): string => `\n${lines.map((line) => `       ${line}\n`).join('')}\n`

/** The steps. @param self the command that starts this program */
function steps({ file, place, keys, old, fresh, tunnel }: Rotation, self: string): string {
  const oldKind = old.psk === undefined ? 'password' : 'psk'
  const clientKeys = [fresh.name, old.name].map((name) =>
    name === old.name ? { name, psk: old.psk, password: old.password } : { name, psk: fresh.psk },
  )
  const add =
    keys.length > 0
      ? `add this entry to ${place}keys, after that of ${old.name}:${block([entryText(fresh)])}`
      : `replace ${place}${oldKind} by:${block(listText([old, fresh]))}`
  const option = tunnel === undefined ? '' : ` --tunnel ${shellWord(tunnel)}`
  return `Steps that replace the key ${old.name} of ${file} while connections stay. They contain keys: keep them secret.

1. On the server, in ${file}, ${add}   and have the running server read the file:
${block([RELOAD])}   From now on it accepts both keys.

2. At each client with the old key, replace ${oldKind} in its file by:
${block(listText(clientKeys))}   or, if it has keys already, put the first of these two entries first in them. Reload it in the same way:
   new connections have the new key, open ones go on with the old one.
   kcptun-libev has one key, as psk: write the new one there and restart it. Its connections break, once.

3. Wait until nobody uses the old key. Who uses which is shown by:
${block([`${self} rotate -c ${shellWord(file)}${option} --status`])}   ${old.name} must have 0 sessions, and not have been seen for a while (clients ping every 25 s).

4. On the server, remove the entry ${old.name} from ${place}keys, and reload as in step 1. What still uses the old key ends.

5. At each client, remove the entry ${old.name} from keys, and reload.

Nothing is changed yet, and this key is printed only once: another call makes another one.
`
}

/** Prints who uses which key of the running server. @throws CommandError */
async function printStatus(runtime: Runtime, path: string, access: Config, tunnel: string | undefined): Promise<void> {
  const { http_listen, http_token } = access
  if (http_listen === undefined)
    throw new CommandError(`config file ${path}: http_listen is missing, so the running server cannot be asked`)
  const address = await resolveKey(runtime, 'http_listen', http_listen, 'bind')
  const url = `http://${formatAddress(onLoopback(address))}/stats.json`
  const document = await fetchStatistics({ url, token: http_token, tunnel }).catch((error) => {
    throw new CommandError(`no answer from ${url}: ${messageOf(error)}`)
  })
  const { users } = readSample(document)
  if (users.length === 0) throw new CommandError('the running server has one key: reload it when the file has two')
  const width = Math.max(...users.map(({ name }) => name.length))
  for (const { name, sessions, seenSeconds } of users) {
    const seen = seenSeconds === undefined ? 'not seen' : `seen ${formatAge(seenSeconds)} ago`
    runtime.print('stdout', `${name.padEnd(width)}  ${sessions} session${sessions === 1 ? '' : 's'}, ${seen}\n`)
  }
}

export const command: Command = {
  options: [
    { long: '--config', short: '-c', value: '<file>', help: 'config file of the server', offers: 'files' },
    TUNNEL,
    { long: '--status', help: 'print who uses which key of the running server\n(requires http_listen)' },
  ],
  operand: { name: '[name]', offers: [], most: 2 },
  notes: `Makes a new key and prints the steps that replace the one with this name, for files with psk or keys.
No file is changed.`,
  async run({ runtime }, given) {
    const file = configPath(given)
    const name = given.operands[given.values.has('--config') ? 0 : 1]
    const stray = given.operands[given.values.has('--config') ? 1 : 2]
    if (stray !== undefined) throw new CommandError(`unexpected argument: ${JSON.stringify(stray)}`)
    const bytes = await readConfigFile(runtime, file)
    const parsed = parseFile(bytes)
    const wanted = given.values.get(TUNNEL.long)
    const config = tunnelOf(parsed, wanted)
    if (given.flags.has('--status')) {
      await printStatus(runtime, file, parsed.config, config.name)
      return 0
    }
    if (config.method === undefined) throw new CommandError('the file sets no method: there is no key')
    if ((config.mode & MODE_RENDEZVOUS) !== 0)
      throw new CommandError('with rendezvous_server all ends have one key, and change it together')
    if ((config.mode & MODE_CLIENT) !== 0)
      throw new CommandError('this is a client: the steps begin at its server, with the file of that')
    const old = chosen(config, name)
    const taken = new Set(config.keys.map((key) => key.name)).add(old.name)
    const { max_sessions } = old
    const now = new Date(runtime.clock.wall())
    const fresh = { name: freshName(old.name, taken, now), psk: generatePsk(), max_sessions }
    const place = placeOf(bytes, config, parsed.tunnels)
    const rotation = { file, place, keys: config.keys, old, fresh, tunnel: wanted }
    runtime.print('stdout', steps(rotation, invocationOf(runtime)))
    return 0
  },
}
