/** The info block of a session (docs/abi.md). */

import { AddressRecord, type Core, Info } from '../../host/engine/core.ts'
import type { Address } from './address.ts'

export interface SessionInfo {
  readonly handle: number
  readonly conv: number
  readonly state: number
  readonly idle: number
  readonly srtt: number
  readonly rto: number
  readonly waitsnd: number
  readonly rmtWnd: number
  readonly cwnd: number
  readonly retransmissions: number
  readonly tcpRead: number
  readonly tcpWritten: number
  readonly address: Address
}

/** The info block, which `session_info` filled for `handle`. */
export function sessionInfo(core: Core, handle: number): SessionInfo {
  const info = core.info()
  const word = (offset: number): number => info.getUint32(offset, true)
  return {
    handle,
    conv: word(Info.conv),
    state: word(Info.state),
    idle: word(Info.idle),
    srtt: word(Info.srtt),
    rto: word(Info.rto),
    waitsnd: word(Info.waitsnd),
    rmtWnd: word(Info.rmtWnd),
    cwnd: word(Info.cwnd),
    retransmissions: word(Info.retransmissions),
    tcpRead: Number(info.getBigUint64(Info.tcpRead, true)),
    tcpWritten: Number(info.getBigUint64(Info.tcpWritten, true)),
    address: new Uint8Array(info.buffer, info.byteOffset + Info.address, AddressRecord.BYTES).slice(),
  }
}
