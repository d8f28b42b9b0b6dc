/**
 * Reads the recorded packets of this directory (README.md lists their fields), and converts hex.
 */

import { readdirSync, readFileSync } from 'node:fs'

const DIRECTORY = 'test/vectors'

/** One recorded datagram. `plain` is null when it does not decrypt and absent without method. */
export interface RecordedPacket {
  readonly dir: 'c2s' | 's2c'
  readonly t_ms: number
  readonly sealed: string
  readonly plain?: string | null
  readonly note?: string
  readonly dropped?: boolean
}

/** A capture of one run of kcptun-libev. */
export interface Capture {
  readonly description: string
  readonly method: string
  readonly psk?: string
  readonly password?: string
  readonly derivedKeyHex: string | null
  readonly nonceBytes: number
  readonly tagBytes: number
  readonly packets: readonly RecordedPacket[]
}

/** Parses a vector file; the caller states its shape. */
export function readVectors<Shape>(name: string): Shape {
  const parsed: Shape = JSON.parse(readFileSync(`${DIRECTORY}/${name}`, 'utf8'))
  return parsed
}

/** All captures that were made with a method, by file name. */
export function sealedCaptures(): ReadonlyMap<string, Capture> {
  const names = readdirSync(DIRECTORY).filter((name) => name.endsWith('.json'))
  const files = names.map((name): [string, Partial<Capture>] => [name, readVectors<Partial<Capture>>(name)])
  return new Map(files.filter((file): file is [string, Capture] => isSealed(file[1])))
}

/** Captures of whole IP packets (`obfs_*.json`) have other fields. */
function isSealed(file: Partial<Capture>): file is Capture {
  return typeof file.derivedKeyHex === 'string' && typeof file.packets?.[0]?.sealed === 'string'
}

/** @returns the bytes in an array of their own, not a slice of a shared pool */
export function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16))
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/**
 * The plaintexts of all datagrams that kcptun-libev itself sent in any of the files, in hex; those that the recorder
 * injected are left out.
 */
export function readRecorded(): readonly string[] {
  const found: string[] = []
  const walk = (value: unknown): void => {
    if (Array.isArray(value)) for (const one of value) walk(one)
    else if (typeof value === 'object' && value !== null) {
      const { dir, plain, sealed, note } = value as { dir?: unknown; plain?: unknown; sealed?: unknown; note?: unknown }
      const text = plain === undefined ? sealed : plain
      if (typeof text === 'string' && text !== '' && dir !== 'in' && note === undefined) found.push(text)
      for (const one of Object.values(value)) walk(one)
    }
  }
  for (const name of readdirSync(DIRECTORY)) if (name.endsWith('.json')) walk(readVectors<unknown>(name))
  return found
}
