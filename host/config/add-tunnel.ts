/**
 * Adds a tunnel to the text of a configuration file as an entry of `tunnels`. The rest of the text stays as it is
 * written, except that the one tunnel of a file without `tunnels` becomes the first entry.
 */

import { applyEdits, findNodeAtLocation, modify, type Node, parseTree } from 'jsonc-parser'
import { ConfigError } from '../errors.ts'
import { readJson } from './json.ts'
import { PROCESS_KEYS } from './tunnels.ts'
import { examine } from './unknown-keys.ts'
import { PROPERTIES } from './validate.ts'

/** How a text is written. */
interface Style {
  /** One level of indentation. */
  readonly unit: string
  readonly eol: string
}

function styleOf(text: string): Style {
  return { unit: /\n([ \t]+)"/.exec(text)?.[1] ?? '  ', eol: text.includes('\r\n') ? '\r\n' : '\n' }
}

/** Inserts behind the last member or item of a node, in lines of their own if it is in one. */
function append(text: string, { children = [] }: Node, { unit, eol }: Style, name: string, value: unknown): string {
  const last = children.at(-1)
  if (last === undefined) throw new TypeError('nothing is there')
  const end = last.offset + last.length
  const indent = /(?:^|\n)([ \t]*)$/.exec(text.slice(0, last.offset))?.[1]
  const written =
    indent === undefined
      ? ` ${name}${JSON.stringify(value)}`
      : `${eol}${indent}${name}${block(value, unit, eol + indent)}`
  return `${text.slice(0, end)},${written}${text.slice(end)}`
}

const block = (value: unknown, unit: string, newline: string): string =>
  JSON.stringify(value, null, unit).replaceAll('\n', newline)

/** The text after the addition. */
export interface Addition {
  readonly text: string
  /** Whether the file had one tunnel until now: a running program cannot follow that by a reload. */
  readonly isConverted: boolean
}

/**
 * @param bytes content of a valid file
 * @param entry the new entry, without keys of the process
 * @throws ConfigError
 */
export function addTunnel(bytes: Uint8Array, entry: object): Addition {
  const document = readJson(bytes)
  if (document.kind !== 'object') throw new ConfigError('', '', 'must be a JSON object')
  const [twice] = examine(document).duplicate
  if (twice !== undefined) throw new ConfigError(twice, '', 'is set more than once: leave one of them')
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new ConfigError('', '', 'is not UTF-8 throughout, and cannot be edited')
  }
  const style = styleOf(text)
  const nodeAt = (...path: string[]): Node => {
    const root = parseTree(text)
    const node = root && findNodeAtLocation(root, path)
    if (node === undefined) throw new TypeError('not in the text')
    return node
  }
  const keys = document.members.map(({ key }) => key)
  if (keys.includes('tunnels')) return { text: append(text, nodeAt('tunnels'), style, '', entry), isConverted: false }
  // what belongs to the process stays, and so does what the program does not know
  const own = keys.filter((key) => Object.hasOwn(PROPERTIES, key) && !PROCESS_KEYS.has(key))
  const values: Record<string, unknown> = JSON.parse(text)
  const tunnels = [Object.fromEntries(own.map((key) => [key, values[key]])), entry]
  for (const key of own) text = applyEdits(text, modify(text, [key], undefined, {}))
  const { unit, eol } = style
  if (own.length < keys.length) text = append(text, nodeAt(), style, '"tunnels": ', tunnels)
  else text = text.replace(/\{[^}]*\}/, () => `{${eol}${unit}"tunnels": ${block(tunnels, unit, eol + unit)}${eol}}`)
  return { text, isConverted: true }
}
