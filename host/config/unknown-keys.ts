/**
 * Finds keys of a configuration file that are unknown, duplicate, or specific to this program. `validate.ts` silently
 * accepts all of them, as protocol.md 10.1 requires.
 */

import { goWarnings, isAnnotation } from './foreign-keys.ts'
import type { JsonNode } from './json.ts'
import { PROPERTIES, type Properties, type PropertySchema } from './validate.ts'

/** Maximum edit distance between a known key and a misspelling; the limit is also a third of the length of the key. */
const EDITS_MAX = 3

/** All keys of kcptun-libev 2.3.5 (protocol.md 10.2), including objects. */
const ORIGINAL: ReadonlySet<string> = new Set(
  (
    'listen connect kcp_bind kcp_connect rendezvous_server service_id http_listen netdev method psk password obfs ' +
    'kcp kcp.mtu kcp.sndwnd kcp.rcvwnd kcp.nodelay kcp.interval kcp.resend kcp.nc kcp.flush ' +
    'tcp tcp.reuseport tcp.keepalive tcp.nodelay tcp.sndbuf tcp.rcvbuf udp udp.reuseport udp.sndbuf udp.rcvbuf ' +
    'timeout linger keepalive time_wait loglevel log user'
  ).split(' '),
)

/** Keys of the Go kcptun and other common names, with the equivalent key. */
const ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ['localaddr', 'listen'],
  ['remoteaddr', 'kcp_connect'],
  ['target', 'connect'],
  ['key', 'psk'],
  ['crypt', 'method'],
  ['cipher', 'method'],
  ['server', 'kcp_connect'],
  ['bind', 'kcp_bind'],
])

function flatten(prefix: string, properties: Properties): [key: string, property: PropertySchema][] {
  return Object.entries(properties).flatMap(([name, property]) => {
    const { properties: inner } = property
    return inner === undefined ? [[prefix + name, property]] : flatten(`${prefix}${name}.`, inner)
  })
}

const VALUES: ReadonlyMap<string, PropertySchema> = new Map(flatten('', PROPERTIES))

/** Dotted keys of all values that a file may set, in the order of the schema. */
export const KEYS: readonly string[] = [...VALUES.keys()]

/** What the schema says about the value of a dotted key; undefined: it is unknown, or an object with keys. */
export const propertyOf = (key: string): PropertySchema | undefined => VALUES.get(key)

/** Whether the value of a key is secret. */
export const isSecret = (key: string): boolean => VALUES.get(key)?.writeOnly === true

/** What the objects in a list have: `keys[1].psk`. */
const ITEM = /(?:^|\.)(\w+)\[\d+\]\.\w+$/
const itemKeys = (unknown: string): readonly string[] | undefined => {
  const inner = VALUES.get(ITEM.exec(unknown)?.[1] ?? '')?.items?.properties
  return inner && Object.keys(inner)
}

const lastName = (key: string): string => key.slice(key.lastIndexOf('.') + 1)

/** Edit distance of two words: insertions, deletions, replacements, and swaps of adjacent letters. */
export function editDistance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let best = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1)
      next.push(best)
    }
    before = row
    row = next
  }
  return row[b.length] ?? 0
}

/** The known key that was probably meant by an unknown one (dotted). */
export function didYouMean(unknown: string): string | undefined {
  const name = lastName(unknown).toLowerCase().replaceAll('-', '_')
  const known = itemKeys(unknown) ?? KEYS
  // correct name in the wrong object
  const other = ELSEWHERE.get(name)
  const elsewhere = known.find((key) => lastName(key) === name) ?? known.find((key) => key === other)
  if (elsewhere !== undefined) return elsewhere
  let best: string | undefined
  let bestEdits = EDITS_MAX + 1
  for (const key of known) {
    const edits = editDistance(name, lastName(key))
    if (edits < bestEdits && edits * 3 <= lastName(key).length) {
      best = key
      bestEdits = edits
    }
  }
  return best
}

/** Keys of a file, dotted. */
export interface Findings {
  /** Keys of values that the file sets, in order, without duplicates. */
  readonly set: readonly string[]
  readonly unknown: readonly string[]
  readonly duplicate: readonly string[]
  /** Warnings about a file of another program as a whole. */
  readonly foreign: readonly string[]
  /** Keys set in the file that kcptun-libev ignores. */
  readonly ours: readonly string[]
  /** Those of each entry of `tunnels`; what is unknown and duplicate there is listed above, too, with its path. */
  readonly entries: readonly Findings[]
}

/** Classifies all keys of a document. A document that is not an object has none. */
export function examine(document: JsonNode): Findings {
  const set = new Set<string>()
  const unknown = new Set<string>()
  const duplicate = new Set<string>()
  const entries: Findings[] = []
  const visit = (prefix: string, node: JsonNode, properties: Properties): void => {
    if (node.kind !== 'object') return
    const seen = new Set<string>()
    for (const { key: name, node: value } of node.members) {
      const key = prefix + name
      if (seen.has(name)) duplicate.add(key)
      seen.add(name)
      const property = Object.hasOwn(properties, name) ? properties[name] : undefined
      if (key === 'tunnels') {
        if (value.kind === 'array') entries.push(...value.items.map(examine))
      } else if (property === undefined) {
        if (!isAnnotation(key)) unknown.add(key)
      } else if (property.properties === undefined) {
        if (!prefix.includes('[')) set.add(key)
        const inner = property.items?.properties
        if (inner === undefined || value.kind !== 'array') continue
        for (const [index, item] of value.items.entries()) visit(`${key}[${index}].`, item, inner)
      } else visit(`${key}.`, value, property.properties)
    }
  }
  visit('', document, PROPERTIES)
  for (const [index, entry] of entries.entries()) {
    for (const key of entry.unknown) if (key !== 'name') unknown.add(`tunnels[${index}].${key}`)
    for (const key of entry.duplicate) duplicate.add(`tunnels[${index}].${key}`)
  }
  return {
    set: [...set],
    unknown: [...unknown],
    duplicate: [...duplicate],
    foreign: goWarnings(document),
    ours: [...[...set].filter((key) => !ORIGINAL.has(key)), ...(entries.length > 0 ? ['tunnels'] : [])],
    entries,
  }
}
