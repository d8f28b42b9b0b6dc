/*
 * The KCP segment on the wire (protocol.md 5.1), big-endian:
 *
 *   0        4     5     6       8        12       16       20       24
 *   +--------+-----+-----+-------+--------+--------+--------+--------+----
 *   |  conv  | cmd | frg |  wnd  |   ts   |   sn   |  una   |  len   | data
 *   +--------+-----+-----+-------+--------+--------+--------+--------+----
 */
import { Conv, Sn, Ts } from '../units'

export const HEADER_BYTES: u32 = 24

export const CMD_PUSH: u32 = 81
export const CMD_ACK: u32 = 82
export const CMD_WASK: u32 = 83
export const CMD_WINS: u32 = 84

const CMD: usize = 4
const WND: usize = 6
const TS: usize = 8
const SN: usize = 12
const UNA: usize = 16
const LEN: usize = 20

/** @returns `a - b` in modular arithmetic: negative when a is before b */
export function diff(a: u32, b: u32): i32 {
  return <i32>(a - b)
}

export function readConv(at: usize): Conv {
  return bswap<u32>(load<u32>(at))
}

export function readCmd(at: usize): u32 {
  return load<u8>(at, CMD)
}

export function readWnd(at: usize): u32 {
  return bswap<u16>(load<u16>(at, WND))
}

export function readTs(at: usize): Ts {
  return bswap<u32>(load<u32>(at, TS))
}

export function readSn(at: usize): Sn {
  return bswap<u32>(load<u32>(at, SN))
}

export function readUna(at: usize): Sn {
  return bswap<u32>(load<u32>(at, UNA))
}

export function readLen(at: usize): u32 {
  return bswap<u32>(load<u32>(at, LEN))
}

/** @returns hash of a payload, never 0 (FNV-1a: the datagram is authentic, nobody else chooses what is hashed) */
export function hashOfPayload(payload: usize, len: u32): u32 {
  let hash: u32 = 0x811c9dc5
  for (let i: u32 = 0; i < len; i++) hash = (hash ^ load<u8>(payload + i)) * 0x01000193
  return max<u32>(hash, 1)
}

/** Writes a header; frg is always 0 (protocol.md 5.3). */
export function writeHeader(at: usize, conv: Conv, cmd: u32, wnd: u32, ts: Ts, sn: Sn, una: Sn, len: u32): void {
  store<u32>(at, bswap<u32>(conv))
  store<u32>(at, cmd | ((<u32>bswap<u16>(<u16>wnd)) << 16), CMD)
  store<u32>(at, bswap<u32>(ts), TS)
  store<u32>(at, bswap<u32>(sn), SN)
  store<u32>(at, bswap<u32>(una), UNA)
  store<u32>(at, bswap<u32>(len), LEN)
}
