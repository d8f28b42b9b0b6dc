/**
 * Validates a tree of `json.ts` against `schema.json`. Supports exactly the JSON Schema features used there (type,
 * minimum, maximum, maxLength, maxItems, maxProperties, enum, default, writeOnly, properties, items). Cross-field rules are in `rules.ts`.
 */

import { ConfigError, HIDDEN, quote } from '../errors.ts'
import type { KcpKey } from './config.ts'
import { decodeString, type JsonNode } from './json.ts'
import schema from './schema.json' with { type: 'json' }

type Scalar = string | number | boolean
/** An object in a list, with defaults. */
export type ItemValues = Readonly<Record<string, Scalar>>
export type Value = Scalar | readonly string[] | Readonly<Record<string, string>> | readonly ItemValues[]

/** One property of the schema. */
export interface PropertySchema {
  /** `string` and `array`: a string, or several. */
  readonly type: string | readonly string[]
  readonly description: string
  readonly default?: Scalar
  readonly minimum?: number
  readonly maximum?: number
  readonly maxLength?: number
  readonly enum?: readonly string[]
  readonly writeOnly?: boolean
  readonly examples?: readonly Scalar[]
  readonly maxItems?: number
  readonly maxProperties?: number
  readonly properties?: Properties
  readonly items?: { readonly type: string; readonly properties?: Properties }
}

export type Properties = Readonly<Record<string, PropertySchema>>

const { tunnels, ...properties } = schema.properties
/** All top-level properties of the schema but `tunnels`. */
export const PROPERTIES: Properties = properties
/** What the schema says about `tunnels`. */
export const TUNNELS = tunnels
/** The keys below `kcp` that choose what is automatic otherwise: those without a default. `mtu` is apart. */
export const KCP_KEYS = Object.entries(schema.properties.kcp.properties)
  .filter(([key, property]) => key !== 'mtu' && !('default' in property))
  .map(([key]) => key as KcpKey)

/**
 * Integers are plain unsigned decimal digits (protocol.md 10.1): no sign, fraction, exponent. The JSON grammar
 * excludes leading zeros.
 */
const INTEGER = /^[0-9]+$/

/** Formats a value for messages. */
export function show(node: JsonNode, property: PropertySchema): string {
  if (property.writeOnly === true) {
    return HIDDEN
  }
  switch (node.kind) {
    case 'number':
      return node.text
    case 'boolean':
      return String(node.value)
    case 'string': {
      const decoded = decodeString(node.raw)
      return decoded.ok ? quote(decoded.text) : ''
    }
    case 'null':
      return 'null'
    case 'array':
      return '[...]'
    case 'object':
      return '{...}'
  }
}

function readInteger(key: string, node: JsonNode, property: PropertySchema): number {
  const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = property
  const range = `must be an integer from ${minimum} to ${maximum}`
  if (node.kind !== 'number') {
    throw new ConfigError(key, show(node, property), range)
  }
  if (!INTEGER.test(node.text)) {
    throw new ConfigError(key, node.text, `${range}, in plain decimal digits`)
  }
  const value = Number(node.text)
  if (value < minimum || value > maximum) {
    throw new ConfigError(key, node.text, range)
  }
  return value
}

/** A number as JSON writes it. */
function readNumber(key: string, node: JsonNode, property: PropertySchema): number {
  const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = property
  const value = node.kind === 'number' ? Number(node.text) : Number.NaN
  if (value >= minimum && value <= maximum) return value
  throw new ConfigError(key, show(node, property), `must be a number from ${minimum} to ${maximum}`)
}

function readBoolean(key: string, node: JsonNode, property: PropertySchema): boolean {
  if (node.kind !== 'boolean') {
    throw new ConfigError(key, show(node, property), 'must be true or false')
  }
  return node.value
}

export function readString(key: string, node: JsonNode, property: PropertySchema): string {
  if (node.kind !== 'string') {
    throw new ConfigError(key, show(node, property), 'must be a string')
  }
  const decoded = decodeString(node.raw)
  if (!decoded.ok) {
    throw new ConfigError(key, show(node, property), decoded.reason)
  }
  if (decoded.text.includes('\0')) {
    throw new ConfigError(key, show(node, property), 'must not contain an escaped NUL')
  }
  if (property.maxLength !== undefined && [...decoded.text].length > property.maxLength) {
    throw new ConfigError(key, show(node, property), `must be at most ${property.maxLength} characters long`)
  }
  if (property.enum !== undefined && !property.enum.includes(decoded.text)) {
    throw new ConfigError(key, show(node, property), `must be one of ${property.enum.join(', ')}`)
  }
  return decoded.text
}

/** An array of strings. */
function readList(key: string, node: JsonNode, property: PropertySchema): readonly string[] {
  const { maxItems = 0 } = property
  const refuse = (): never => {
    throw new ConfigError(key, show(node, property), `must be an array of at most ${maxItems} strings`)
  }
  if (node.kind !== 'array' || node.items.length > maxItems) return refuse()
  return node.items.map((item, index) => readString(`${key}[${index}]`, item, { ...property, type: 'string' }))
}

/** An array of objects. A name that is missing in one of them is an empty one here. */
function readItems(key: string, node: JsonNode, properties: Properties, maxItems: number): readonly ItemValues[] {
  if (node.kind !== 'array' || node.items.length > maxItems)
    throw new ConfigError(
      key,
      node.kind === 'array' ? '[...]' : HIDDEN,
      `must be an array of at most ${maxItems} objects`,
    )
  return node.items.map((item, index) => {
    const path = `${key}[${index}]`
    // anything else may be a secret in the wrong place
    if (item.kind !== 'object') throw new ConfigError(path, HIDDEN, 'must be a JSON object')
    const values = new Map<string, Value>()
    readObject(`${path}.`, item, properties, values)
    fillDefaults(`${path}.`, properties, values)
    const start = path.length + 1
    return Object.fromEntries([...values].map(([path, value]) => [path.slice(start), value])) as ItemValues
  })
}

/** One string, or an array of them. */
function readStrings(key: string, node: JsonNode, property: PropertySchema): Value {
  if (node.kind === 'string') return readString(key, node, property)
  if (node.kind !== 'array') throw new ConfigError(key, show(node, property), 'must be a string or an array of strings')
  if (node.items.length === 0) throw new ConfigError(key, '[]', 'must not be empty')
  return readList(key, node, property)
}

/** An object whose values are strings. */
function readMap(key: string, node: JsonNode, property: PropertySchema): Readonly<Record<string, string>> {
  const { maxProperties = 0 } = property
  const entries = node.kind === 'object' ? node.members : undefined
  if (
    entries === undefined ||
    entries.length > maxProperties ||
    entries.some((entry) => entry.node.kind !== 'string')
  ) {
    throw new ConfigError(key, show(node, property), `must be an object with at most ${maxProperties} strings`)
  }
  return Object.fromEntries(entries.map((entry) => [entry.key, readString(key, entry.node, property)]))
}

function readValue(key: string, node: JsonNode, property: PropertySchema): Value {
  if (typeof property.type !== 'string') return readStrings(key, node, property)
  switch (property.type) {
    case 'integer':
      return readInteger(key, node, property)
    case 'number':
      return readNumber(key, node, property)
    case 'boolean':
      return readBoolean(key, node, property)
    case 'string':
      return readString(key, node, property)
    case 'array': {
      const inner = property.items?.properties
      if (inner !== undefined) return readItems(key, node, inner, property.maxItems ?? 0)
      return readList(key, node, property)
    }
    case 'object':
      return readMap(key, node, property)
    default:
      throw new TypeError(`schema.json: ${key} has an unsupported type: ${property.type}`)
  }
}

function readObject(prefix: string, node: JsonNode, properties: Properties, values: Map<string, Value>): void {
  if (node.kind !== 'object') {
    const key = prefix.slice(0, -1)
    throw new ConfigError(key, show(node, { type: 'object', description: '' }), 'must be a JSON object')
  }
  // every occurrence of a duplicate key is checked; the last one wins (protocol.md 10.1)
  for (const member of node.members) {
    const property = Object.hasOwn(properties, member.key) ? properties[member.key] : undefined
    if (property === undefined) {
      continue
    }
    const key = prefix + member.key
    if (property.properties === undefined) {
      values.set(key, readValue(key, member.node, property))
      continue
    }
    // a repeated nested object starts from the defaults
    for (const inner of Object.keys(property.properties)) {
      values.delete(`${key}.${inner}`)
    }
    readObject(`${key}.`, member.node, property.properties, values)
  }
}

function fillDefaults(prefix: string, properties: Properties, values: Map<string, Value>): void {
  for (const [name, property] of Object.entries(properties)) {
    const key = prefix + name
    if (property.properties !== undefined) {
      fillDefaults(`${key}.`, property.properties, values)
    } else if (property.default !== undefined && !values.has(key)) {
      values.set(key, property.default)
    }
  }
}

/**
 * Validates a document against the schema.
 * @returns dotted key -> value, of the keys that are set
 * @throws ConfigError
 */
export function readValues(document: JsonNode): ReadonlyMap<string, Value> {
  const values = new Map<string, Value>()
  readObject('', document, PROPERTIES, values)
  return values
}

/**
 * Validates a document against the schema.
 * @param above values that count where the document has none
 * @returns dotted key -> value, with defaults; keys without value and default are absent
 * @throws ConfigError
 */
export function validate(document: JsonNode, above?: ReadonlyMap<string, Value>): ReadonlyMap<string, Value> {
  const values = new Map([...(above ?? []), ...readValues(document)])
  fillDefaults('', PROPERTIES, values)
  return values
}
