/** `kcptun-wasm top`: displays live statistics from a monitoring server. Display and update loop are in `top/`. */

import { parseFile, tunnelOf } from '../../config/tunnels.ts'
import { messageOf } from '../../errors.ts'
import { formatAddress } from '../../net/address.ts'
import type { Runtime } from '../../runtime.ts'
import { resolveKey } from '../../transport/resolver.ts'
import { onLoopback } from '../doctor/ports.ts'
import type { Given } from '../options.ts'
import type { Source } from '../top/feed.ts'
import { show, showOnce } from '../top/top.ts'
import { type Command, CommandError, readConfigFile, TUNNEL } from './command.ts'

/** Environment variable with the token for a URL. Command line arguments are visible to all users. */
const TOKEN_VARIABLE = 'KCPTUN_HTTP_TOKEN'

const STATS_PATH = '/stats.json'

async function sourceOf(runtime: Runtime, given: Given): Promise<Source> {
  const path = given.values.get('--config')
  const [url] = given.operands
  const token = runtime.os?.env(TOKEN_VARIABLE)
  if ((path === undefined) === (url === undefined)) throw new CommandError('specify either a config file (-c) or a URL')
  const tunnel = given.values.get(TUNNEL.long)
  if (path === undefined) return { url: statsUrl(url ?? ''), token, tunnel }
  const bytes = await readConfigFile(runtime, path)
  const file = parseFile(bytes)
  // without the option all of several are shown
  const config = tunnel === undefined ? file.config : tunnelOf(file, tunnel)
  if (config.http_listen === undefined) {
    throw new CommandError(`config file ${path}: http_listen is missing`)
  }
  const address = await resolveKey(runtime, 'http_listen', config.http_listen, 'bind')
  return { url: `http://${formatAddress(onLoopback(address))}${STATS_PATH}`, token: config.http_token ?? token, tunnel }
}

/** The URL of /stats.json for `host:port` or `http://host:port`, with or without a path. */
function statsUrl(text: string): string {
  const url = tryUrl(text.includes('://') ? text : `http://${text}`)
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new CommandError(`URL ${JSON.stringify(text)}: must have the form http://127.0.0.1:8080`)
  }
  return `${url.origin}${url.pathname.endsWith(STATS_PATH) ? url.pathname : url.pathname.replace(/\/$/, '') + STATS_PATH}`
}

function tryUrl(text: string): URL | null {
  try {
    return new URL(text)
  } catch {
    return null
  }
}

export const command: Command = {
  options: [
    {
      long: '--config',
      short: '-c',
      value: '<file>',
      help: 'config file of the program to watch',
      offers: 'files',
    },
    TUNNEL,
    { long: '--once', help: 'print one frame and exit (default without a terminal)' },
  ],
  operand: { name: '[URL]', offers: [] },
  notes: `Requires http_listen. A URL (http://127.0.0.1:8080) can be given instead of a config file; the
environment variable ${TOKEN_VARIABLE} provides the token (http_token), if required.

keys: q quit; s change the sort order; arrows, page up, page down scroll`,
  async run({ runtime }, given) {
    const source = await sourceOf(runtime, given)
    const { terminal, commandConsole } = runtime
    const isScreen = commandConsole?.isTerminal('stdout') === true && commandConsole.isTerminal('stdin')
    const dumb = runtime.os?.env('TERM') === 'dumb'
    if (terminal === undefined || !isScreen || dumb || given.flags.has('--once')) {
      await showOnce(runtime, source).catch((error) => {
        throw new CommandError(messageOf(error))
      })
    } else await show(runtime, terminal, source)
    return 0
  },
}
