// node build/abi.mjs [--check]: generates from assembly/abi.json, the source of the engine's ABI, constants for the
// engine (assembly/abi.ts, assembly/counters.ts) and for hosts (host/engine/abi.ts), the tables of docs/abi.md, a C
// header (dist/kcptun_core.h) and declarations of core.wasm. --check writes nothing and fails if a committed file differs.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { inProject } from './files.mjs'

/**
 * @typedef {{ value: number, doc?: string }} Value
 * @typedef {{ offset: number, type: string, doc?: string, by?: 'host' | 'engine' }} Field `by`: the writer
 * @typedef {{ min: number, max: number, values?: number[], unset?: boolean, default?: number, group?: string,
 *   doc: string }} ConfigEntry
 * @typedef {{ gauge?: boolean, doc?: string }} Counter
 * @typedef {{ args: string[], kind: 'getter' | 'mutator' | 'handle' | 'poll', doc: string }} Call
 */

/**
 * @typedef {object} Enum
 * @property {string} doc
 * @property {string} prefix of the names in AssemblyScript and C
 * @property {string} type in AssemblyScript
 * @property {boolean} [text] whether hosts get the docs of the values as texts
 * @property {Record<string, Value>} values
 */

/**
 * @typedef {object} Struct
 * @property {string} doc
 * @property {string} prefix of the names in AssemblyScript
 * @property {number} bytes
 * @property {'byte' | 'word'} unit of the offsets in TypeScript
 * @property {Record<string, Field>} fields
 * @property {Record<string, number>} [flags] values of its flags
 */

/**
 * @typedef {object} Abi
 * @property {number} version
 * @property {Record<string, Value>} constants
 * @property {Record<string, Enum>} enums
 * @property {Record<string, Struct>} structs
 * @property {Record<string, ConfigEntry>} config in the order of the block
 * @property {Record<string, Counter>} counters in the order of the block
 * @property {Record<string, Call>} calls
 */

/** @type {Abi} */
export const abi = JSON.parse(readFileSync(inProject('assembly/abi.json'), 'utf8'))

export const HEADER = 'dist/kcptun_core.h'
export const WASM_TYPES = 'dist/core.wasm.d.ts'
const NOTE = 'Generated from assembly/abi.json by build/abi.mjs: edit that file.'

/** @param {string} name */
const upper = (name) => name.replace(/([a-z\d])([A-Z])/g, '$1_$2').toUpperCase()
/** Quoted names in lines of at most 120 characters. @param {string[]} names */
function wrapped(names) {
  /** @type {string[]} */
  const lines = []
  for (const name of names) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + name.length + 5 <= 120) lines[lines.length - 1] = `${last} ${quote(name)},`
    else lines.push(`  ${quote(name)},`)
  }
  return lines
}
/** @param {number} value */
const number = (value) =>
  value > 0xffff && value.toString(16).length < value.toString().length ? `0x${value.toString(16)}` : String(value)
/** @param {string} name */
const key = (name) => (/^[a-z_]\w*$/i.test(name) ? name : `'${name}'`)
/** @param {string} text */
const quote = (text) => `'${text.replaceAll("'", "\\'")}'`

/** Size of a structure field in bytes. @param {string} type */
function bytesOf(type) {
  const [, bits = '0', , count = '1'] = /^u(\d+)(\[(\d+)\])?$/.exec(type) ?? []
  return (Number(bits) / 8) * Number(count)
}

/** Generates constants for AssemblyScript, which inlines them. */
function assembly() {
  const lines = [`/* Shared constants (docs/abi.md). ${NOTE} */`, '']
  const put = (/** @type {string} */ name, /** @type {string} */ type, /** @type {number} */ value, doc = '') => {
    if (doc !== '') lines.push(`/** ${doc} */`)
    lines.push(`export const ${name}: ${type} = ${number(value)}`)
  }
  put('ABI_VERSION', 'i32', abi.version)
  for (const [name, { value, doc }] of Object.entries(abi.constants)) put(name, 'u32', value, doc)
  put('OK', 'i32', 0)
  for (const { doc, prefix, type, values } of Object.values(abi.enums)) {
    lines.push('', `/* ${doc} */`, '')
    for (const [name, { value }] of Object.entries(values)) put(prefix + name, type, value)
  }
  for (const { doc, prefix, bytes, fields, flags = {} } of Object.values(abi.structs)) {
    lines.push('', `/* ${doc} */`, '')
    put(`${prefix}BYTES`, 'u32', bytes)
    for (const [name, { offset }] of Object.entries(fields)) put(prefix + upper(name), 'usize', offset)
    for (const [name, value] of Object.entries(flags)) put(prefix + name, 'u32', value)
  }
  lines.push('', '/* Fields of the config block. */', '')
  const entries = Object.entries(abi.config)
  for (const [index, [name]] of entries.entries()) put(`CONFIG_${upper(name)}`, 'u32', index)
  put('CONFIG_FIELDS', 'u32', entries.length)
  lines.push('', '/** Minimum and maximum of each config field, and whether it may be unset. */')
  lines.push('// biome-ignore format: one field per line', 'export const CONFIG_RANGES: StaticArray<u32> = [')
  for (const [name, { min, max, unset }] of entries) {
    lines.push(`  ${number(min)}, ${number(max)}, ${unset ? 1 : 0}, // ${name}`)
  }
  lines.push(']', '')
  return lines.join('\n')
}

/** Generates the counter indexes for AssemblyScript. */
function assemblyCounters() {
  const names = Object.keys(abi.counters)
  const lines = names.map((name, index) => `export const ${name.toUpperCase()}: u32 = ${index}`)
  return [
    `/* Indexes of the counters. ${NOTE} */`,
    '',
    ...lines,
    `export const COUNTERS: u32 = ${names.length}`,
    '',
  ].join('\n')
}

/** Generates constants and types for TypeScript hosts. */
function typescript() {
  const lines = [`/** The engine's ABI (docs/abi.md). ${NOTE} */`, '', `export const ABI_VERSION = ${abi.version}`]
  for (const [name, { value, doc = '' }] of Object.entries(abi.constants)) {
    lines.push(`/** ${doc} */`, `export const ${name} = ${number(value)}`)
  }
  for (const [name, { doc, text, values }] of Object.entries(abi.enums)) {
    lines.push('', `/** ${doc} */`, `export const ${name} = {`)
    for (const [item, { value }] of Object.entries(values)) lines.push(`  ${item}: ${value},`)
    lines.push('} as const')
    if (text === undefined) continue
    lines.push(
      '',
      `/** Texts of ${name}, by code. */`,
      `export const ${upper(name)}_TEXTS: readonly string[] = [`,
      `  'unknown reason',`,
    )
    for (const { doc: phrase = '' } of Object.values(values)) lines.push(`  ${quote(phrase)},`)
    lines.push(']')
  }
  for (const [name, { doc, bytes, unit, fields, flags = {} }] of Object.entries(abi.structs)) {
    const step = unit === 'word' ? 4 : 1
    lines.push(
      '',
      `/** ${doc.replace(/\.$/, '')}; offsets in ${unit === 'word' ? 'u32 words' : 'bytes'}. */`,
      `export const ${name} = {`,
    )
    for (const [item, { offset }] of Object.entries(fields)) lines.push(`  ${item}: ${offset / step},`)
    lines.push(`  ${unit === 'word' ? 'WORDS' : 'BYTES'}: ${bytes / step},`)
    for (const [item, value] of Object.entries(flags)) lines.push(`  ${item}: ${value},`)
    lines.push('} as const')
  }
  lines.push('', '/** Index (u32) of each field of the config block. */', 'export const ConfigField = {')
  for (const [index, name] of Object.keys(abi.config).entries()) lines.push(`  ${name}: ${index},`)
  lines.push('} as const', 'export type ConfigFieldName = keyof typeof ConfigField')
  lines.push('/** Values of the config block, in the units of docs/abi.md. The engine chooses absent ones. */')
  const grouped = (/** @type {string} */ wanted) =>
    Object.entries(abi.config).flatMap(([name, { group }]) => (group === wanted ? [quote(name)] : []))
  lines.push(
    'export type CoreConfig = Record<Exclude<ConfigFieldName, UnsetField>, number> & Partial<Record<UnsetField, number>>',
    'type UnsetField = KcpField | RateField',
    '',
  )
  lines.push(
    '/** Config fields with the names of their keys below `kcp` in the configuration. */',
    '// biome-ignore format: one line, however long',
    `export const KCP_FIELDS = [${grouped('kcp').join(', ')}] as const`,
    'export type KcpField = (typeof KCP_FIELDS)[number]',
    '/** Config fields of rate limits. */',
    `export type RateField = ${grouped('rate').join(' | ')}`,
    '',
  )
  lines.push(
    '/** Names of the counters, in the order of the block of u64 values. */',
    '// biome-ignore format: several names per line',
    'export const COUNTERS = [',
    ...wrapped(Object.keys(abi.counters)),
  )
  lines.push('] as const', 'export type CounterName = (typeof COUNTERS)[number]')
  lines.push('/** Counters that rise and fall. */', 'export const GAUGES: ReadonlySet<string> = new Set<CounterName>([')
  for (const [name, { gauge }] of Object.entries(abi.counters)) if (gauge) lines.push(`  ${quote(name)},`)
  lines.push('])', '')
  lines.push('/** Every export of the module; all arguments and results are i32. */', 'export interface CoreExports {')
  lines.push('  readonly memory: { readonly buffer: ArrayBuffer }')
  const camel = (/** @type {string} */ name) =>
    name.replace(/_(\w)/g, (_, /** @type {string} */ letter) => letter.toUpperCase())
  for (const [name, { args }] of Object.entries(abi.calls)) {
    lines.push(`  ${key(name)}(${args.map((arg) => `${camel(arg)}: number`).join(', ')}): number`)
  }
  lines.push(
    '}',
    '',
    '// biome-ignore format: several names per line',
    "export const CALLS: readonly Exclude<keyof CoreExports, 'memory'>[] = [",
    ...wrapped(Object.keys(abi.calls)),
  )
  lines.push(']', '')
  return lines.join('\n')
}

/** Generates the declarations of core.wasm where it is imported as a module. */
function wasmTypes() {
  const lines = [
    `/** The engine as a module: \`import { memory, configure } from 'kcptun-wasm/core.wasm'\`. ${NOTE} */`,
    'import type { CoreExports } from "./types/host/engine/abi.js"',
    '',
    'export declare const memory: CoreExports["memory"]',
  ]
  for (const name of Object.keys(abi.calls)) lines.push(`export declare const ${name}: CoreExports["${name}"]`)
  return `${lines.join('\n')}\n`
}

/** Generates the C header, for wasm2c and native hosts of the module. */
function header() {
  const lines = [
    `/* The ABI of core.wasm (docs/abi.md). ${NOTE} */`,
    '#ifndef KCPTUN_CORE_H',
    '#define KCPTUN_CORE_H',
    '',
    '#include <assert.h>',
    '#include <stdint.h>',
    '',
  ]
  const put = (/** @type {string} */ name, /** @type {number} */ value) =>
    lines.push(
      `#define KCPTUN_${name} ${value < 0 ? `(${value})` : `${number(value)}${value > 0x7fffffff ? 'u' : ''}`}`,
    )
  put('ABI_VERSION', abi.version)
  for (const [name, { value }] of Object.entries(abi.constants)) put(name, value)
  for (const { doc, prefix, values } of Object.values(abi.enums)) {
    lines.push('', `/* ${doc} */`)
    for (const [name, { value }] of Object.entries(values)) put(prefix + name, value)
  }
  lines.push('', '/* Fields of the config block, u32 each. */')
  for (const [index, name] of Object.keys(abi.config).entries()) put(`CONFIG_${upper(name)}`, index)
  put('CONFIG_FIELDS', Object.keys(abi.config).length)
  lines.push('', '/* Counters, u64 each. */')
  for (const [index, name] of Object.keys(abi.counters).entries()) put(`COUNTER_${name.toUpperCase()}`, index)
  for (const [name, { doc, bytes, fields, flags = {} }] of Object.entries(abi.structs)) {
    const tag = `kcptun_${upper(name).toLowerCase()}`
    lines.push('', `/* ${doc} Pointers are offsets in the module's memory. */`, `struct ${tag} {`)
    let at = 0
    let gap = 0
    for (const [field, { offset, type }] of Object.entries(fields)) {
      if (offset > at) lines.push(`  uint8_t reserved${gap++}[${offset - at}];`)
      const [, bits, , count] = /^u(\d+)(\[(\d+)\])?$/.exec(type) ?? []
      lines.push(`  uint${bits}_t ${upper(field).toLowerCase()}${count === undefined ? '' : `[${count}]`};`)
      at = offset + bytesOf(type)
    }
    if (bytes > at) lines.push(`  uint8_t reserved${gap}[${bytes - at}];`)
    lines.push('};', `static_assert(sizeof(struct ${tag}) == ${bytes}, "${tag}");`)
    for (const [flag, value] of Object.entries(flags)) put(`${upper(name)}_${flag}`, value)
  }
  lines.push('', '#endif', '')
  return lines.join('\n')
}

/** @param {string[]} head @param {string[][]} rows */
const table = (head, rows) =>
  [
    `| ${head.join(' | ')} |`,
    `|${head.map(() => '---|').join('')}`,
    ...rows.map((row) => `| ${row.join(' | ')} |`),
  ].join('\n')

/** Escapes the text of a table cell. */
const cell = (/** @type {string} */ text = '') => text.replaceAll('|', '\\|')

/** @param {Struct} struct */
function structTable({ fields }) {
  const hasWriter = Object.values(fields).some(({ by }) => by !== undefined)
  const rows = Object.entries(fields).map(([name, { offset, type, doc, by = '' }]) => [
    String(offset),
    type,
    name,
    cell(doc),
    ...(hasWriter ? [by] : []),
  ])
  return table(['offset', 'type', 'field', 'meaning', ...(hasWriter ? ['written by'] : [])], rows)
}

function configTable() {
  const rows = Object.entries(abi.config).map(([name, entry], index) => {
    const range = `${entry.values?.join(', ') ?? `${entry.min}..${entry.max}`}${entry.unset ? ', unset' : ''}`
    return [String(index), name, range, entry.unset ? 'unset' : String(entry.default ?? ''), cell(entry.doc)]
  })
  return table(['index', 'field', 'range', 'default', 'meaning'], rows)
}

function counterTable() {
  const rows = Object.entries(abi.counters).map(([name, { gauge, doc }], index) => [
    String(index),
    name,
    gauge ? 'gauge' : '',
    cell(doc),
  ])
  return table(['index', 'name', 'kind', 'meaning'], rows)
}

/** The calls in three tables: getters of addresses and constants, obfuscator calls, all others. */
function callTables() {
  const calls = Object.entries(abi.calls)
  const isObfs = (/** @type {string} */ name) => name.startsWith('obfs_')
  const isPlace = (/** @type {[string, Call]} */ [name, { args, kind }]) =>
    args.length === 0 && kind === 'getter' && !isObfs(name) && name !== 'session_slots'
  const rows = (/** @type {[string, Call][]} */ list) =>
    list.map(([name, { args, kind, doc }]) => [`\`${name}(${args.join(', ')})\``, kind, cell(doc)])
  const head = ['call', 'kind', 'meaning, result']
  const places = calls.filter(isPlace).map(([name, { doc }]) => [`\`${name}()\``, cell(doc)])
  return {
    places: table(['call', 'result'], places),
    calls: table(head, rows(calls.filter((call) => !isPlace(call) && !isObfs(call[0])))),
    obfs: table(head, rows(calls.filter(([name]) => isObfs(name)))),
  }
}

/** The tables of docs/abi.md, keyed by the name in their markers. @returns {Map<string, string>} */
function tables() {
  const constants = Object.entries(abi.constants).map(([name, { value, doc }]) => [name, number(value), cell(doc)])
  const all = new Map([
    ['constants', table(['name', 'value', 'meaning'], constants)],
    ['config', configTable()],
    ['counters', counterTable()],
    ...Object.entries(callTables()),
  ])
  for (const [name, { values }] of Object.entries(abi.enums)) {
    const rows = Object.entries(values).map(([item, { value, doc }]) => [String(value), item, cell(doc)])
    all.set(name, table(['value', 'name', 'meaning'], rows))
  }
  for (const [name, struct] of Object.entries(abi.structs)) all.set(name, structTable(struct))
  return all
}

/** Fills in the tables of docs/abi.md. @param {string} text */
function document(text) {
  const all = tables()
  const filled = text.replace(
    /(<!-- table: (\w+) -->\n)[\s\S]*?(\n<!-- end -->)/g,
    (_, /** @type {string} */ begin, /** @type {string} */ name, /** @type {string} */ end) => {
      const content = all.get(name)
      if (content === undefined) throw new Error(`docs/abi.md: unknown table ${name}`)
      all.delete(name)
      return `${begin}\n${content}\n${end}`
    },
  )
  if (all.size > 0) throw new Error(`docs/abi.md: no markers for the tables ${[...all.keys()].join(', ')}`)
  return filled
}

/** Content of the committed generated files. */
export function committed() {
  return new Map([
    ['assembly/abi.ts', assembly()],
    ['assembly/counters.ts', assemblyCounters()],
    ['host/engine/abi.ts', typescript()],
    ['docs/abi.md', document(readFileSync(inProject('docs/abi.md'), 'utf8'))],
  ])
}

/** Writes the C header and the declarations of core.wasm, which are not committed. */
export function writeInterfaces() {
  mkdirSync(inProject('dist'), { recursive: true })
  writeFileSync(inProject(HEADER), header())
  writeFileSync(inProject(WASM_TYPES), wasmTypes())
}

if (process.argv[1]?.endsWith('abi.mjs')) {
  const isCheck = process.argv.includes('--check')
  for (const [file, text] of committed()) {
    const path = inProject(file)
    let before = ''
    try {
      before = readFileSync(path, 'utf8')
    } catch {
      // does not exist yet
    }
    if (before === text) continue
    if (isCheck) {
      process.stderr.write(`${file} is out of date: run node build/abi.mjs\n`)
      process.exitCode = 1
    } else writeFileSync(path, text)
  }
  if (!isCheck) writeInterfaces()
}
