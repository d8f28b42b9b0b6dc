/* The info block: what the host may learn about one session (docs/abi.md). */
import {
  INFO_ADDRESS,
  INFO_AGE,
  INFO_BYTES,
  INFO_CONGESTION,
  INFO_CONV,
  INFO_CWND,
  INFO_IDLE,
  INFO_PACE,
  INFO_RETRANSMISSIONS,
  INFO_RMT_WND,
  INFO_RTO,
  INFO_RTTVAR,
  INFO_SNDWND,
  INFO_SRTT,
  INFO_STATE,
  INFO_TCP_READ,
  INFO_TCP_WRITTEN,
  INFO_WAITSND,
  TICKS_PER_SECOND,
} from '../abi'
import { seconds } from '../clock'
import { congestionWindow, lossOf, paceOf } from '../kcp/congestion'
import { waitSnd } from '../kcp/conversation'
import { copyAddress } from '../packet/address'
import { addressOf, Session, TIME_WAIT } from '../session/session'
import { addressOfTombstone, Tombstone } from '../session/tombstones'
import { Ticks } from '../units'

export const info: usize = memory.data(INFO_BYTES, 8)

/** Fills the info block for a session that ended: most of it is forgotten. */
export function describeTombstone(t: Tombstone): void {
  memory.fill(info, 0, INFO_BYTES)
  store<u32>(info, t.conv, INFO_CONV)
  store<u32>(info, TIME_WAIT, INFO_STATE)
  store<u32>(info, seconds() - t.bornSecond, INFO_AGE)
  store<u32>(info, seconds() - t.bornSecond, INFO_IDLE)
  store<u32>(info, u32.MAX_VALUE, INFO_SRTT)
  store<u32>(info, u32.MAX_VALUE, INFO_RTO)
  copyAddress(info + INFO_ADDRESS, addressOfTombstone(t))
}

/** Fills the info block. */
export function describeSession(s: Session, now: Ticks): void {
  const isOver = s.state == TIME_WAIT
  const active = <i32>(s.queuedAt - s.progressAt) > 0 ? s.queuedAt : s.progressAt
  store<u32>(info, s.conv, INFO_CONV)
  store<u32>(info, s.state, INFO_STATE)
  store<u32>(info, seconds() - s.createdSecond, INFO_AGE)
  store<u32>(info, (now - active) / TICKS_PER_SECOND, INFO_IDLE)
  store<u32>(info, isOver ? u32.MAX_VALUE : s.srtt, INFO_SRTT)
  store<u32>(info, isOver ? u32.MAX_VALUE : s.rto, INFO_RTO)
  store<u32>(info, isOver ? 0 : waitSnd(s), INFO_WAITSND)
  store<u32>(info, paceOf(s), INFO_PACE)
  store<u64>(info, s.tcpRead, INFO_TCP_READ)
  store<u64>(info, s.tcpWritten, INFO_TCP_WRITTEN)
  copyAddress(info + INFO_ADDRESS, addressOf(s))
  store<u32>(info, s.sndWnd, INFO_SNDWND)
  store<u32>(info, s.rmtWnd, INFO_RMT_WND)
  store<u32>(info, min(congestionWindow(s), s.sndWnd), INFO_CWND)
  store<u32>(info, s.retransmissions, INFO_RETRANSMISSIONS)
  store<u32>(info, s.rttvar, INFO_RTTVAR)
  store<u32>(info, lossOf(s), INFO_CONGESTION)
}
