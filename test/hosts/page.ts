/** Replays scripts in a page. */
import { instantiate } from '../../host/engine/core.ts'
import { replay } from '../../testkit/replay.ts'

Object.assign(globalThis, { replayScript: (script: string) => replay(script, instantiate()) })
