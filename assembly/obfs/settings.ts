/*
 * Settings of the obfuscator, and the block in which the host passes them (docs/abi.md, "Obfuscation").
 */
import {
  OBFS_BYTES,
  OBFS_FILTER,
  OBFS_FILTER_LENGTH,
  OBFS_KIND,
  OBFS_KIND_NONE,
  OBFS_KIND_TCP,
  OBFS_KIND_TCP_WND,
  OBFS_LOCAL,
  OBFS_REMOTE,
} from '../abi'
import { familyOf, IPV4, IPV6 } from '../packet/address'
import { writeFilter } from './filter'

export const NONE: u32 = OBFS_KIND_NONE
/** dpi/tcp-wnd: beside a real TCP connection (protocol.md 9.2). */
export const TCP_WND: u32 = OBFS_KIND_TCP_WND
/** dpi/tcp: without a real connection (protocol.md 9.4). */
export const TCP: u32 = OBFS_KIND_TCP

/** The longest program, IPv6 with address and port, has fewer than 32 instructions. */
export const block: usize = memory.data(OBFS_BYTES, 8)

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
export const local: usize = block + OBFS_LOCAL
/** Argument of `obfs_accept` and `obfs_dial`. */
export const remote: usize = block + OBFS_REMOTE

/**
 * Takes the block and writes the filter.
 * @returns false if the block is invalid
 */
export function takeSettings(isServer: bool): bool {
  const wanted = load<u32>(block, OBFS_KIND)
  const family = familyOf(local)
  if (wanted > TCP || (wanted != NONE && family != IPV4 && family != IPV6)) return false
  kind = wanted
  server = isServer
  if (kind != NONE) store<u32>(block, writeFilter(block + OBFS_FILTER, local, kind == TCP_WND), OBFS_FILTER_LENGTH)
  return true
}
