/**
 * Parses JSON bytes into a tree that preserves what JSON.parse discards: the raw text of numbers, duplicate members in
 * order, and strings as undecoded byte ranges. Strict and lenient as required by protocol.md 10.1: no BOM, comments or
 * trailing commas, limited nesting; strings that are not read may contain control characters, invalid UTF-8 and lone
 * surrogates. Independent of the configuration keys.
 */

import { visit } from 'jsonc-parser'
import { ConfigError } from '../errors.ts'

/** Maximum nesting of arrays and objects inside the outermost value (protocol.md 10.1). */
const NESTING_MAX_LEVELS = 256

export type JsonNode =
  | { readonly kind: 'object'; readonly members: JsonMember[] }
  | { readonly kind: 'array'; readonly items: JsonNode[] }
  | { readonly kind: 'number'; readonly text: string }
  | { readonly kind: 'string'; readonly raw: Uint8Array }
  | { readonly kind: 'boolean'; readonly value: boolean }
  | { readonly kind: 'null' }

export interface JsonMember {
  readonly key: string
  readonly node: JsonNode
}

/** A decoded string, or the reason why it is invalid. */
export type DecodedString =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly reason: string }

/** Texts for jsonc-parser's ParseErrorCode, a `const enum` that bundlers cannot read from a declaration file. */
const SYNTAX_REASONS: Readonly<Record<number, string>> = {
  1: 'unexpected character',
  2: 'malformed number',
  3: 'expected a key in double quotes',
  4: 'expected a value',
  5: 'expected a colon',
  6: 'expected a comma',
  7: 'missing closing brace',
  8: 'missing closing bracket',
  9: 'unexpected data after the outermost object',
  10: 'comments are not allowed',
  11: 'comments are not allowed',
  12: 'unterminated string',
  13: 'malformed number',
  14: 'malformed \\u escape',
  15: 'unknown escape',
}

const DOUBLE_QUOTE = 0x22
const BACKSLASH = 0x5c
const SPACE = 0x20
const ASCII_MAX = 0x7f
/** Replaces a byte that is only allowed inside strings; the scanner rejects it. */
const NEVER_VALID = 0x01
/** Replaces a byte inside a string that is not relevant to the scanner. */
const PLACEHOLDER = 0x3f

/**
 * Converts the text to ASCII with unchanged offsets: control characters and UTF-8 sequences inside strings become
 * placeholders. The scanner only locates tokens; strings are decoded on demand from the original bytes.
 */
function skeleton(bytes: Uint8Array): string {
  const ascii = new Uint8Array(bytes.length)
  let inString = false
  let escaped = false
  bytes.forEach((byte, index) => {
    const special = byte > ASCII_MAX || (inString && byte < SPACE)
    ascii[index] = special ? (inString ? PLACEHOLDER : NEVER_VALID) : byte
    if (!inString) {
      inString = byte === DOUBLE_QUOTE
    } else if (escaped) {
      escaped = false
    } else if (byte === BACKSLASH) {
      escaped = true
    } else if (byte === DOUBLE_QUOTE) {
      inString = false
    }
  })
  return new TextDecoder().decode(ascii)
}

/** Decodes a string token with its quotes. Strict: UTF-8, no raw control characters, no lone surrogates. */
export function decodeString(raw: Uint8Array): DecodedString {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(raw)
  } catch {
    return { ok: false, reason: 'invalid UTF-8' }
  }
  // the scanner has checked the escapes: JSON.parse only rejects raw control characters
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { ok: false, reason: 'unescaped control character' }
  }
  if (typeof value !== 'string') {
    return { ok: false, reason: 'not a string' }
  }
  return /\p{Cs}/u.test(value) ? { ok: false, reason: 'lone surrogate escape' } : { ok: true, text: value }
}

/** Formats an offset as `line 3, column 14`, columns in bytes. */
function position(text: string, offset: number): string {
  const before = text.slice(0, offset)
  return `line ${before.split('\n').length}, column ${offset - before.lastIndexOf('\n')}`
}

function fail(text: string, offset: number, reason: string): never {
  throw new ConfigError('', '', `${position(text, offset)}: ${reason}`)
}

/**
 * Parses one JSON value. `bytes` is the whole file.
 * @throws ConfigError (key '') with line and column for any violation of protocol.md 10.1
 */
export function readJson(bytes: Uint8Array): JsonNode {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
    throw new ConfigError('', '', 'starts with a byte order mark (BOM), which JSON does not allow')
  }
  const text = skeleton(bytes)
  const rawAt = (offset: number, length: number) => bytes.subarray(offset, offset + length)
  const open: JsonNode[] = []
  const keys: string[] = []
  let root: JsonNode | undefined

  const place = (node: JsonNode) => {
    const parent = open.at(-1)
    if (parent === undefined) {
      root = node
    } else if (parent.kind === 'object') {
      parent.members.push({ key: keys.pop() ?? '', node })
    } else if (parent.kind === 'array') {
      parent.items.push(node)
    }
  }
  const begin = (node: JsonNode, offset: number) => {
    place(node)
    open.push(node)
    if (open.length > NESTING_MAX_LEVELS + 1) {
      fail(text, offset, `nested deeper than ${NESTING_MAX_LEVELS} levels`)
    }
  }

  visit(
    text,
    {
      onObjectBegin: (offset) => begin({ kind: 'object', members: [] }, offset),
      onObjectEnd: () => {
        open.pop()
      },
      onArrayBegin: (offset) => begin({ kind: 'array', items: [] }, offset),
      onArrayEnd: () => {
        open.pop()
      },
      onObjectProperty: (_name, offset, length) => {
        const key = decodeString(rawAt(offset, length))
        keys.push(key.ok ? key.text : fail(text, offset, `key name: ${key.reason}`))
      },
      onLiteralValue: (value: unknown, offset, length) => {
        if (typeof value === 'string') {
          place({ kind: 'string', raw: rawAt(offset, length) })
        } else if (typeof value === 'number') {
          place({ kind: 'number', text: text.slice(offset, offset + length) })
        } else {
          place(typeof value === 'boolean' ? { kind: 'boolean', value } : { kind: 'null' })
        }
      },
      onError: (code, offset) => fail(text, offset, SYNTAX_REASONS[code] ?? 'malformed JSON'),
    },
    { disallowComments: true, allowTrailingComma: false, allowEmptyContent: false },
  )
  return root ?? fail(text, 0, 'expected a JSON object')
}

/** The text of a value, with the strings and numbers as they were written. */
export function encodeJson(root: JsonNode): Uint8Array {
  const encoder = new TextEncoder()
  const parts: Uint8Array[] = []
  const add = (text: string): void => void parts.push(encoder.encode(text))
  const write = (node: JsonNode): void => {
    if (node.kind === 'string') parts.push(node.raw)
    else if (node.kind === 'number') add(node.text)
    else if (node.kind === 'boolean') add(String(node.value))
    else if (node.kind === 'null') add('null')
    else if (node.kind === 'array') {
      for (const [index, item] of node.items.entries()) {
        add(index === 0 ? '[' : ',')
        write(item)
      }
      add(node.items.length === 0 ? '[]' : ']')
    } else {
      for (const [index, { key, node: value }] of node.members.entries()) {
        add(`${index === 0 ? '{' : ','}${JSON.stringify(key)}:`)
        write(value)
      }
      add(node.members.length === 0 ? '{}' : '}')
    }
  }
  write(root)
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
