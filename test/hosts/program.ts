/** PROGRAM SCRIPT OUTPUT: replays a script under Node, Bun or Deno. */
import { readFileSync, writeFileSync } from 'node:fs'
import { instantiate } from '../../host/engine/core.ts'
import { replay } from '../../testkit/replay.ts'

const [script = '', output = ''] = process.argv.slice(2)
writeFileSync(output, replay(readFileSync(script, 'utf8'), instantiate()))
