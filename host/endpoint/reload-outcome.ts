/** What a reload changed, by the names of keys. */

import type { Config, ConfigFile } from '../config/config.ts'
import { PROCESS_KEYS } from '../config/tunnels.ts'
import type { ReloadOutcome, TunnelChange } from '../monitoring/source.ts'

/** Members of Config that are no keys, and the key that they are read from. */
const NAMES: ReadonlyMap<string, string> = new Map([
  ['mode', ''],
  ['name', ''],
  ['servers', 'kcp_connect'],
])

/** Values by member, those of groups of keys by dotted ones. */
function flat(config: Config): Map<string, string> {
  const values = new Map<string, string>()
  for (const [name, value] of Object.entries(config)) {
    const isGroup = name === 'kcp' || name === 'tcp' || name === 'udp' || name === 'rate'
    if (!isGroup) values.set(name, JSON.stringify(value))
    else for (const [part, inner] of Object.entries(value)) values.set(`${name}.${part}`, JSON.stringify(inner))
  }
  return values
}

/** Keys whose values differ. */
function differing(one: Config, other: Config, isCounted: (key: string) => boolean = () => true): string[] {
  const values = flat(other)
  const names = [...flat(one)].flatMap(([name, value]) => (values.get(name) === value ? [] : [name]))
  const keys = names.map((name) => NAMES.get(name) ?? name)
  return [...new Set(keys)].filter((key) => key !== '' && isCounted(key))
}

const isOfProcess = (key: string): boolean => PROCESS_KEYS.has(key)

function tunnelChanges(before: readonly Config[], after: readonly Config[]): TunnelChange[] {
  const named = (list: readonly Config[], name: string | undefined): Config | undefined =>
    list.find((config) => config.name === name)
  const kept = after.flatMap((config): TunnelChange[] => {
    const { name: tunnel = '' } = config
    const old = named(before, tunnel)
    if (old === undefined) return [{ tunnel, change: 'opened', changed: [] }]
    const changed = differing(old, config, (key) => !isOfProcess(key))
    return changed.length === 0 ? [] : [{ tunnel, change: 'changed', changed }]
  })
  const closed = before.filter(({ name }) => named(after, name) === undefined)
  return [...kept, ...closed.map(({ name = '' }) => ({ tunnel: name, change: 'closed' as const, changed: [] }))]
}

/**
 * The outcome of a reload that was accepted.
 * @param before what was in force
 * @param after what is
 * @param wanted the file
 */
export function reloadedOutcome(before: ConfigFile, after: ConfigFile, wanted: ConfigFile): ReloadOutcome {
  const isCounted = after.tunnels === undefined ? undefined : isOfProcess
  const result = {
    outcome: 'reloaded',
    changed: differing(before.config, after.config, isCounted),
    needs_restart: differing(after.config, wanted.config, isCounted),
  } as const
  return after.tunnels === undefined
    ? result
    : { ...result, tunnels: tunnelChanges(before.tunnels ?? [], after.tunnels) }
}
