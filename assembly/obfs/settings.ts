/*
 * Settings of the obfuscator, and the block in which the host passes them (docs/abi.md, "Obfuscation").
 */
import { familyOf, IPV4, IPV6 } from '../packet/address'
import { writeFilter } from './filter'

export const NONE: u32 = 0
/** dpi/tcp-wnd: beside a real TCP connection (protocol.md 9.2). */
export const TCP_WND: u32 = 1
/** dpi/tcp: without a real connection (protocol.md 9.4). */
export const TCP: u32 = 2

const KIND: usize = 0
const LOCAL: usize = 16
const REMOTE: usize = 40
const FILTER_LENGTH: usize = 64
const FILTER: usize = 72

/** The longest program, IPv6 with address and port, has fewer than 32 instructions. */
export const block: usize = memory.data(72 + 32 * 8, 8)

let kind: u32 = NONE
let server: bool = false

/** @returns NONE, TCP_WND or TCP */
export function obfsKind(): u32 {
  return kind
}

export function isObfsServer(): bool {
  return server
}

/** Destination of captured packets; port 0 and an unspecified address match any. */
export const local: usize = block + LOCAL
/** Argument of `obfs_accept` and `obfs_dial`. */
export const remote: usize = block + REMOTE

/**
 * Takes the block and writes the filter.
 * @returns false if the block is invalid
 */
export function takeSettings(isServer: bool): bool {
  const wanted = load<u32>(block, KIND)
  const family = familyOf(local)
  if (wanted > TCP || (wanted != NONE && family != IPV4 && family != IPV6)) return false
  kind = wanted
  server = isServer
  if (kind != NONE) store<u32>(block, writeFilter(block + FILTER, local, kind == TCP_WND), FILTER_LENGTH)
  return true
}
