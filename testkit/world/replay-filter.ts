/** A smaller replay filter for the engines of simulated worlds. */
import { Core } from '../../host/engine/core.ts'

/**
 * Nonces of a generation. A server's own filter (host/engine/config-block.ts) holds a million, so that no seed would fill a
 * generation; and its memory is new for each engine, which takes a sixth of the time of a seed.
 */
const NONCES = 1 << 11

const { configure } = Core.prototype

/** Limits the filter of every engine that this process configures from now on. */
export function limitReplayFilter(): void {
  Core.prototype.configure = function (config, now) {
    configure.call(this, { ...config, replayCapacity: Math.min(config.replayCapacity, NONCES) }, now)
  }
}
