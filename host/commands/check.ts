/** `kcptun-wasm check`: not there yet. */

import { type Command, CommandError } from './command.ts'

export const command: Command = {
  options: [],
  async run() {
    throw new CommandError('not there yet in this version')
  },
}
