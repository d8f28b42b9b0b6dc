/**
 * The recorded vectors as typed objects; test/vectors/README.md describes their fields.
 */
import { readFileSync } from 'node:fs'
import type { Decoded } from '../../testkit/decode.ts'

export interface VectorPacket {
  readonly dir: 'c2s' | 's2c'
  readonly t_ms: number
  readonly sealed: string
  /** absent without method: equals `sealed`; null: fails authentication */
  readonly plain?: string | null
  readonly decoded?: Decoded | null
  readonly dropped?: boolean
  readonly note?: string
}

export interface VectorMessage {
  readonly type: string
  readonly len: number
  readonly payload_len?: number
  readonly payload_sha256?: string
}

export interface VectorStream {
  readonly segments: number
  readonly missing: number
  readonly bytes: number
  readonly messages: readonly VectorMessage[]
}

export interface VectorFile {
  readonly method: string
  readonly nonceBytes: number
  readonly tagBytes: number
  readonly packets: readonly VectorPacket[]
  readonly tcpStream: Readonly<Record<string, Readonly<Record<'c2s' | 's2c', VectorStream | undefined>>>>
}

export interface EdgeExchange {
  readonly dir: 'in' | 'out'
  readonly t_ms: number
  readonly plain: string
}

export interface EdgeCase {
  readonly name: string
  readonly expect: string
  readonly exchange: readonly EdgeExchange[]
}

/** Captures of two kcptun-libev endpoints with a relay between them. */
export const CAPTURES = [
  'aes256gcm',
  'blackhole',
  'chacha20poly1305_ietf',
  'keepalive',
  'keepalive0_rebind',
  'lossy',
  'lossy_fastresend',
  'method_without_key',
  'none',
  'password_xchacha20poly1305_ietf',
  'replay_reset',
  'xchacha20poly1305_ietf',
  'xsalsa20poly1305',
  'zero_window',
] as const

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function load(name: string): unknown {
  return JSON.parse(readFileSync(`test/vectors/${name}.json`, 'utf8'))
}

function isCapture(value: unknown): value is VectorFile {
  return isRecord(value) && Array.isArray(value['packets']) && isRecord(value['tcpStream'])
}

function isEdgeFile(value: unknown): value is { cases: readonly EdgeCase[] } {
  return isRecord(value) && Array.isArray(value['cases'])
}

/** A capture by name. */
export function capture(name: string): VectorFile {
  const file = load(name)
  if (!isCapture(file)) throw new Error(`test/vectors/${name}.json: not a capture`)
  return file
}

export function edgeCases(): readonly EdgeCase[] {
  const file = load('edge_cases')
  if (!isEdgeFile(file)) throw new Error('test/vectors/edge_cases.json: no cases')
  return file.cases
}

/** Plaintext of a packet in hex, padding included; null when it fails authentication. */
export function plainOf(packet: VectorPacket): string | null {
  return packet.plain === undefined ? packet.sealed : packet.plain
}
