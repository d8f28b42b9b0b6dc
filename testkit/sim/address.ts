/** Address records of simulated endpoints (docs/abi.md). */

import { AddressRecord } from '../../host/engine/core.ts'

/** An address record (docs/abi.md). */
export type Address = Uint8Array<ArrayBuffer>

/** The record of 10.0.0.`host`:`port`. */
export function address4(host: number, port: number): Address {
  const record = new Uint8Array(AddressRecord.BYTES)
  const view = new DataView(record.buffer)
  view.setUint16(0, 4, true)
  view.setUint16(2, port, true)
  record.set([10, 0, 0, host], 8)
  return record
}

/** The record of [fd00::`host`]:`port`, with a scope id. */
export function address6(host: number, port: number, scope = 0): Address {
  const record = new Uint8Array(AddressRecord.BYTES)
  const view = new DataView(record.buffer)
  view.setUint16(0, 6, true)
  view.setUint16(2, port, true)
  view.setUint32(4, scope, true)
  record[8] = 0xfd
  record[23] = host
  return record
}

export function addressKey(record: Uint8Array): string {
  return record.join('.')
}
