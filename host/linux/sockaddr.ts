/** Reads and writes struct sockaddr_in and sockaddr_in6 in memory. */

import { ADDRESS_RECORD_BYTES, readRecord, type SocketAddress, writeRecord } from '../net/address.ts'
import { AF_INET, AF_INET6 } from './libc.ts'

const SOCKADDR_IN_BYTES = 16
export const SOCKADDR_IN6_BYTES = 28

/**
 * Writes a struct sockaddr_in or sockaddr_in6 at `at`, which has room for 28 bytes.
 * @returns its length
 */
export function writeSockaddr(address: SocketAddress, view: DataView, at: number, littleEndian: boolean): number {
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  writeRecord(address, record, 0)
  for (let i = 0; i < SOCKADDR_IN6_BYTES; i += 4) view.setUint32(at + i, 0)
  view.setUint16(at, address.family === 4 ? AF_INET : AF_INET6, littleEndian)
  view.setUint16(at + 2, address.port)
  const [start, length] = address.family === 4 ? [at + 4, 4] : [at + 8, 16]
  for (let i = 0; i < length; i++) view.setUint8(start + i, record[8 + i] ?? 0)
  if (address.family === 4) return SOCKADDR_IN_BYTES
  view.setUint32(at + 24, address.scope, littleEndian)
  return SOCKADDR_IN6_BYTES
}

/** Reads a struct sockaddr_in or sockaddr_in6; undefined for any other family. */
export function readSockaddr(view: DataView, at: number, littleEndian: boolean): SocketAddress | undefined {
  const family = view.getUint16(at, littleEndian)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const record = new Uint8Array(ADDRESS_RECORD_BYTES)
  const fields = new DataView(record.buffer)
  fields.setUint16(0, family === AF_INET ? 4 : 6, true)
  fields.setUint16(2, view.getUint16(at + 2), true)
  const [from, length] = family === AF_INET ? [at + 4, 4] : [at + 8, 16]
  for (let i = 0; i < length; i++) record[8 + i] = view.getUint8(from + i)
  if (family === AF_INET6) fields.setUint32(4, view.getUint32(at + 24, littleEndian), true)
  return readRecord(record, 0)
}
