/** `kcptun-wasm doctor`: diagnoses the path to the peer and the local machine. The tests are in `doctor/`. */

import { parseFile, tunnelOf } from '../../config/tunnels.ts'
import { EXIT_STATUS, reportJson, reportText } from '../doctor/report.ts'
import { examine } from '../doctor/run.ts'
import { type Command, CommandError, configPath, readConfigFile, TUNNEL } from './command.ts'

/** Duration of the ping train, s. */
const SECONDS_DEFAULT = 5
const SECONDS_MAX = 3600

export const command: Command = {
  options: [
    { long: '--config', short: '-c', value: '<file>', help: 'JSON config file of this endpoint', offers: 'files' },
    TUNNEL,
    { long: '--json', help: 'print the report as JSON' },
    { long: '--seconds', value: '<n>', help: `duration of the ping test in s, default ${SECONDS_DEFAULT}` },
  ],
  notes: `Uses a separate UDP port and does not disturb a running tunnel. The server connects to its target
once; no data is sent to the target.

exit status: 0 healthy, 1 broken, 2 degraded`,
  async run({ runtime, crypto }, given) {
    const path = configPath(given)
    const text = given.values.get('--seconds') ?? String(SECONDS_DEFAULT)
    const seconds = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (!(seconds >= 1 && seconds <= SECONDS_MAX)) {
      throw new CommandError(`option --seconds ${JSON.stringify(text)}: must be an integer from 1 to ${SECONDS_MAX}`)
    }
    const bytes = await readConfigFile(runtime, path)
    const config = tunnelOf(parseFile(bytes), given.values.get(TUNNEL.long))
    if (!config.native) runtime.os?.native?.forbid('native is false')
    const shown = runtime.commandConsole?.isTerminal('stderr') === true
    const progress = (what: string): void => {
      if (shown) runtime.print('stderr', `\r\x1b[K${what}`)
    }
    const report = await examine({ runtime, config, crypto, seconds, progress })
    progress('')
    const print = given.flags.has('--json') ? reportJson : reportText
    runtime.print('stdout', print(report, path, config))
    return EXIT_STATUS[report.verdict]
  },
}
